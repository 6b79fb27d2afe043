//! Owns what lies in a place of a table of breakers: whose it is, when it was last used, and its octets; and who
//! makes room for whom. Knows neither keys nor who writes them.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::places::BUCKET;
use super::process::Process;

/// Who was not used for that long and is closed makes room for others, in ms.
pub const QUIET_MS: u64 = 10_000;
/// Who did not come for that long makes room even if it is shut, or was ordered for a time that is over, in ms: the region
/// knows of it for longer, and tells whoever comes back (but not of what this process alone had shut: that begins anew). An order
/// that holds keeps its place.
pub const ABSENT_MS: u64 = 60_000;

/// What lies in a place of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// When it was last used, in ms.
    pub used_ms: u64,
    /// Whose it is.
    pub whose: Rc<str>,
    /// What the workers share of it.
    pub process: Process,
}

// === impl Kept ===

impl Kept {
    /// As octets. A name is at most 255 long.
    pub fn to_bytes(&self) -> Vec<u8> {
        let whose = self.whose.as_bytes();
        let len = u8::try_from(whose.len()).unwrap_or(0);
        let mut octets = self.used_ms.to_le_bytes().to_vec();
        octets.push(len);
        octets.extend(whose.iter().take(usize::from(len)));
        octets.extend(self.process.to_bytes());
        octets
    }

    /// `None` where nobody's lies.
    pub fn from_bytes(octets: &[u8]) -> Option<Self> {
        let (used, rest) = octets.split_first_chunk()?;
        let (len, rest) = rest.split_first()?;
        let (whose, rest) = rest.split_at_checked(usize::from(*len))?;
        Some(Self {
            used_ms: u64::from_le_bytes(*used),
            whose: Rc::from(core::str::from_utf8(whose).ok()?),
            process: Process::from_bytes(rest)?,
        })
    }
}

/// Where there is room for one more among the buckets where it may lie: an empty place of the emptier one, or
/// that of whoever was not used for longest and has nothing left to say; else of who is shut, or was ordered for a time that
/// is over, and has been absent for longest.
pub fn room(lying: &[Option<&Kept>], now_ms: u64) -> Option<usize> {
    let empty = |bucket: &&[Option<&Kept>]| bucket.iter().filter(|kept| kept.is_none()).count();
    let (nth, emptier) =
        lying.chunks(BUCKET).enumerate().max_by_key(|(_, bucket)| empty(bucket))?;
    if let Some(free) = emptier.iter().position(Option::is_none) {
        return Some(nth.saturating_mul(BUCKET).saturating_add(free));
    }
    // A clock that stepped back must not keep everybody for good.
    let unused = |kept: &Kept, ms| now_ms.abs_diff(kept.used_ms) >= ms;
    let is_quiet = |kept: &Kept| kept.process.is_quiet() && unused(kept, QUIET_MS);
    let is_past = |process: &Process| process.is_shut() || process.is_lapsed(now_ms);
    let is_absent = |kept: &Kept| is_past(&kept.process) && unused(kept, ABSENT_MS);
    let longest = |goes: &dyn Fn(&Kept) -> bool| {
        let all = lying.iter().enumerate().filter_map(|(at, kept)| Some((at, (*kept)?)));
        all.filter(|(_, kept)| goes(kept)).min_by_key(|(_, kept)| kept.used_ms).map(|(at, _)| at)
    };
    longest(&is_quiet).or_else(|| longest(&is_absent))
}

#[cfg(test)]
mod tests {
    use super::super::mesh::State;
    use super::super::process::Probe;
    use super::*;
    use alloc::format;
    use alloc::vec;

    #[test]
    fn what_is_kept_is_read_back_and_nothing_else_is() {
        let kept = Kept { used_ms: 7, whose: Rc::from("acme%20ltd"), process: Process::default() };
        let octets = kept.to_bytes();
        assert_eq!(Kept::from_bytes(&octets), Some(kept.clone()));
        // As a filter of before wrote it.
        let before = octets.len() - 17;
        assert_eq!(Kept::from_bytes(octets.get(..before).unwrap_or_default()), Some(kept));
        let later = [octets.clone(), vec![7; 9]].concat();
        assert_eq!(Kept::from_bytes(&later), Kept::from_bytes(&octets), "as a later one would");
        for len in 0..before {
            assert_eq!(Kept::from_bytes(octets.get(..len).unwrap_or_default()), None);
        }
    }

    const NOW: u64 = 1_000_000;

    fn used(ago_ms: u64, process: Process) -> Kept {
        Kept { used_ms: NOW - ago_ms, whose: Rc::from(format!("since-{ago_ms}")), process }
    }

    fn ordered(state: State, until_ms: u64) -> Process {
        Process { state, until_ms, ..Process::default() }
    }

    /// Nobody who never comes back keeps a place for good, however it came to stand there; an order is kept to until its end.
    #[test]
    fn who_is_gone_makes_room_in_every_state_but_under_an_order_that_holds() {
        let goes = |process: Process, ago_ms: u64| {
            let busy = vec![used(0, Process::default()); BUCKET];
            let mut lying: Vec<Option<&Kept>> = busy.iter().chain(&busy).map(Some).collect();
            let gone = used(ago_ms, process);
            lying[3] = Some(&gone);
            room(&lying, NOW) == Some(3)
        };
        let tripped = Process { tripped: true, ..Process::default() };
        assert!(goes(tripped.clone(), ABSENT_MS) && !goes(tripped.clone(), ABSENT_MS - 1));
        let probe = Some(Probe { id: 1, of_mesh: false, until_ms: NOW + 1, out: true });
        assert!(!goes(Process { probe, ..tripped.clone() }, ABSENT_MS), "it is tested");
        for state in [State::ForcedOpen, State::Disabled, State::MetricsOnly] {
            assert!(goes(ordered(state, NOW), ABSENT_MS), "{state:?}: its order is over");
            assert!(!goes(ordered(state, NOW), ABSENT_MS - 1), "{state:?}: it may come back soon");
            let wanted = Process { wanted: true, sought_ms: 1, ..ordered(state, NOW) };
            assert!(goes(wanted, ABSENT_MS), "{state:?}: whoever wanted it tested is gone");
            // One that trips by itself under an order that it had not heard of.
            let tripped = Process { tripped: true, ..ordered(state, NOW + 1) };
            for process in [tripped, ordered(state, NOW + 1), ordered(state, u64::MAX)] {
                assert!(!goes(process, 10 * ABSENT_MS), "{state:?}: as ordered");
            }
        }
        for state in [State::Open, State::HalfOpen] {
            assert!(goes(ordered(state, NOW + 1), ABSENT_MS), "{state:?}");
        }
        assert!(goes(Process::default(), QUIET_MS) && !goes(Process::default(), QUIET_MS - 1));
    }

    #[test]
    fn who_makes_room_for_whom() {
        let shut = Process { state: State::Open, ..Process::default() };
        let full = |ago_ms: u64| vec![used(ago_ms, Process::default()); BUCKET];
        let at = |one: &[Kept], other: &[Kept], empty: &[usize]| {
            let mut lying: Vec<Option<&Kept>> = one.iter().chain(other).map(Some).collect();
            empty.iter().for_each(|at| lying[*at] = None);
            room(&lying, NOW)
        };
        let busy = full(QUIET_MS - 1);
        assert_eq!(at(&busy, &busy, &[]), None, "all are in use");
        assert_eq!(at(&busy, &busy, &[3]), Some(3));
        assert_eq!(at(&busy, &busy, &[3, 10, 12]), Some(10), "the emptier bucket");
        let mut quiet = full(QUIET_MS);
        assert_eq!(at(&busy, &quiet, &[]), Some(8));
        assert_eq!(at(&busy, &quiet, &[3]), Some(3), "nobody goes while there is a place");
        quiet[5] = used(QUIET_MS * 3, Process::default());
        quiet[6] = used(QUIET_MS * 9, shut.clone());
        assert_eq!(at(&busy, &quiet, &[]), Some(13), "for longest, but never one that is shut");
        let half = Process { state: State::HalfOpen, ..Process::default() };
        let mut shuts = vec![used(ABSENT_MS - 1, shut.clone()); BUCKET];
        assert_eq!(at(&busy, &shuts, &[]), None, "they may come back soon");
        shuts[2] = used(ABSENT_MS, half);
        shuts[4] = used(ABSENT_MS + 1, shut.clone());
        shuts[7] = used(ABSENT_MS + 2, ordered(State::ForcedOpen, u64::MAX));
        assert_eq!(at(&busy, &shuts, &[]), Some(12), "the one that is absent for longest");
        shuts[1] = used(QUIET_MS, Process::default());
        assert_eq!(at(&busy, &shuts, &[]), Some(9), "a closed one first");
        let ahead = Kept { used_ms: NOW + QUIET_MS, ..used(0, Process::default()) };
        assert_eq!(at(&vec![ahead; BUCKET], &busy, &[]), Some(0), "the clock stepped back");
    }
}
