//! Owns the host's side of pools: their keys in shared data, who leads the process's tick, and the
//! worker's own memory where there is no shared data. Knows nothing of what a slot means.

use std::collections::BTreeMap;

use tidegate_policy::fnv;
use tidegate_policy::lease::holder::TICK_US;
use tidegate_policy::lease::slot::{LAYOUT, SLOTS, Slot};

use crate::host;

/// Workers that write one slot at once get their turn within that many tries.
const TRIES_MAX: usize = 16;
/// Who leads the tick does so for that long; then another may.
const LEADS_US: u64 = 3 * TICK_US;
const BITMAP_LEN: usize = 128;

/// Where the pools of one gateway lie.
#[derive(Debug)]
pub(crate) struct Home {
    /// Tells the keys of different gateways, regions and environments apart.
    name: String,
    /// The slots that this worker knows to be listed.
    listed: [u8; BITMAP_LEN],
    /// Where the host refuses shared data.
    own: Option<BTreeMap<u16, Vec<u8>>>,
}

// === impl Home ===

impl Home {
    pub(crate) fn new(name: &str) -> Self {
        let short = fnv::hash64(name.as_bytes());
        let name = format!("tidegate.lease.{LAYOUT}.{short:016x}");
        Self { name, listed: [0; BITMAP_LEN], own: None }
    }

    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Changes one slot, all workers in turn; `step` may run several times. `None` if the slot could
    /// not be written, or if `step` says that there is nothing to write.
    pub(crate) fn update<T>(
        &mut self,
        slot: u16,
        mut step: impl FnMut(&mut Slot) -> Option<T>,
    ) -> Option<Option<T>> {
        if let Some(own) = &mut self.own {
            let bytes = own.entry(slot).or_default();
            let mut records = Slot::from_bytes(bytes);
            let said = step(&mut records)?;
            *bytes = records.to_bytes();
            return Some(Some(said));
        }
        let key = self.key(slot);
        for _ in 0..TRIES_MAX {
            let Ok((bytes, cas)) = host::shared(&key) else { break };
            let mut records = Slot::from_bytes(&bytes);
            let said = step(&mut records)?;
            match host::set_shared(&key, &records.to_bytes(), cas) {
                Ok(true) => {
                    self.list(slot);
                    return Some(Some(said));
                }
                Ok(false) => {}
                Err(_no_data) => break,
            }
        }
        self.alone();
        None
    }

    /// The slots that this worker has to look after at this tick: all that are in use, if it leads
    /// the process; none otherwise.
    pub(crate) fn led_slots(&mut self, now_us: u64, worker: u64) -> Vec<u16> {
        if let Some(own) = &self.own {
            return own.keys().copied().collect();
        }
        if !self.leads(now_us, worker) {
            return Vec::new();
        }
        let Ok((listed, _)) = host::shared(&self.list_key()) else { return Vec::new() };
        slots(&listed)
    }

    /// A host without shared data, or one that is too busy with it: from now on this worker is a
    /// holder of its own, if there is none at all.
    fn alone(&mut self) {
        if host::shared(&self.list_key()).is_err() {
            self.own = Some(BTreeMap::new());
        }
    }

    fn leads(&self, now_us: u64, worker: u64) -> bool {
        let key = format!("{}.lead", self.name);
        let Ok((bytes, cas)) = host::shared(&key) else { return false };
        let number = |at: usize| {
            let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<8>());
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let (until_us, leader) = (number(0), number(8));
        // A clock that stepped back must not leave the process without a leader.
        let is_led = now_us < until_us && until_us <= now_us.saturating_add(LEADS_US);
        if is_led && leader != worker {
            return false;
        }
        let until_us = now_us.saturating_add(LEADS_US);
        let bytes = [until_us.to_le_bytes(), worker.to_le_bytes()].concat();
        host::set_shared(&key, &bytes, cas) == Ok(true)
    }

    /// Lists a slot for whoever leads. Never taken back: 1,024 are few.
    fn list(&mut self, slot: u16) {
        let (byte, bit) = place(slot);
        if self.listed.get(byte).is_none_or(|known| known & bit != 0) {
            return;
        }
        let key = self.list_key();
        for _ in 0..TRIES_MAX {
            let Ok((mut listed, cas)) = host::shared(&key) else { return };
            listed.resize(BITMAP_LEN, 0);
            let known = listed.get(byte).is_some_and(|known| known & bit != 0);
            if let Some(to) = listed.get_mut(byte) {
                *to |= bit;
            }
            if known || host::set_shared(&key, &listed, cas) == Ok(true) {
                if let Some(to) = self.listed.get_mut(byte) {
                    *to |= bit;
                }
                return;
            }
        }
    }

    fn key(&self, slot: u16) -> String {
        format!("{}.{slot}", self.name)
    }

    fn list_key(&self) -> String {
        format!("{}.list", self.name)
    }
}

/// Those that are listed: nearly all octets say of eight slots at once that they are not.
fn slots(listed: &[u8]) -> Vec<u16> {
    let mut slots = Vec::new();
    for (first, octet) in (0..SLOTS).step_by(8).zip(listed) {
        let mut bits = *octet;
        while bits != 0 {
            slots.extend(u16::try_from(bits.trailing_zeros()).map(|bit| first.saturating_add(bit)));
            bits &= bits.wrapping_sub(1);
        }
    }
    slots
}

fn place(slot: u16) -> (usize, u8) {
    (usize::from(slot / 8), 1 << (slot % 8))
}
