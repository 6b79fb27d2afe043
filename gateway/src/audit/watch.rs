//! Owns the continuous verification of the chain that this gateway writes to, and the checkpoints of what was
//! verified. Reads the store as an auditor would read an export. Knows no spool and no queue.
//!
//! Two passes: one follows the chain as it grows, the other begins with the first record over and over, so
//! that a change of an old record is found, too.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tidegate_policy::audit::append::Place;
use tidegate_policy::audit::keys::KeyRing;
use tidegate_policy::audit::record::{ChainName, Record};

use self::checkpoints::{Owed, Stepping};
pub use self::notes::Notes;
use self::pass::{Pass, Read};
use self::unknown::Unknown;
use self::uses::Uses;
use super::chain_end::SharedKeys;
use super::counters::ChainCounters;
use crate::clock::Clock;
use crate::store::{Store, StoreFailure};
use crate::throttle::Throttle;

mod checkpoints;
mod cut;
mod folder;
mod notes;
mod pass;
mod unknown;
mod uses;

const STEP: Duration = Duration::from_secs(1);
/// So long no step may succeed before that is said, and so long it is not said again.
const FAILS_US: u64 = 5_000_000;
const SAYS_US: u64 = 60_000_000;
/// Chunks that the following pass reads in one step: so fast it catches up after a start.
const CHUNKS_MAX: usize = 50;

/// The verification.
pub struct Watch {
    chain: ChainName,
    store: Arc<dyn Store>,
    keys: SharedKeys,
    ring: Arc<KeyRing>,
    notes: Option<Notes>,
    clock: Arc<dyn Clock>,
    counters: ChainCounters,
    tail: Pass,
    sweep: Pass,
    /// How far the sweep goes before it begins anew.
    sweep_until: u64,
    told: u64,
    uses: Uses,
    /// When the last was written; `None` where the one of a run before may be older than that.
    checkpoint_us: Option<u64>,
    /// When one could not be written, until one can.
    unwritten_us: Option<u64>,
    /// Whether the newest waits for others.
    owed: Owed,
    /// The one that is being written.
    stepping: Option<Stepping>,
    /// Whether the chain was compared with the last checkpoint of a run before.
    is_compared: bool,
    /// Verified records that are not in the store any more.
    missing: Option<Missing>,
    unknown: Unknown,
    /// How often the store had been found set back when the reading that follows the chain began.
    alarms: u64,
}

/// What was verified and is gone.
#[derive(Clone, Copy)]
struct Missing {
    /// The first of them, as far as the store's head tells.
    first: u64,
    /// The last record that was verified.
    last: u64,
    /// Rollbacks that the chain told of before.
    rollbacks: usize,
}

// === impl Watch ===

impl Watch {
    /// Begins with the first record; takes the last checkpoint as what the chain has to be.
    pub fn new(
        chain: ChainName,
        store: Arc<dyn Store>,
        keys: SharedKeys,
        notes: Option<Notes>,
        clock: Arc<dyn Clock>,
        counters: ChainCounters,
    ) -> Result<Self, String> {
        let mut notes = notes;
        if let Some(notes) = &mut notes {
            notes.open()?;
        }
        let ring = with_notes(&keys, notes.as_ref());
        let (tail, sweep) = (Pass::new(&ring, notes.as_ref()), Pass::new(&ring, notes.as_ref()));
        let is_first = notes.as_ref().is_none_or(|notes| notes.last().is_none());
        let checkpoint_us = is_first.then(|| clock.elapsed_us());
        let (sweep_until, told) = (0, 0);
        let uses = Uses::new(counters.revoked_usage.clone());
        counters.rollback.watch();
        let mut watch = Self {
            chain,
            store,
            keys,
            ring,
            notes,
            clock,
            counters,
            tail,
            sweep,
            sweep_until,
            told,
            uses,
            checkpoint_us,
            unwritten_us: None,
            owed: Owed::default(),
            stepping: None,
            is_compared: false,
            missing: None,
            unknown: Unknown::default(),
            alarms: 0,
        };
        watch.show(0);
        Ok(watch)
    }

    /// Verifies until it is dropped.
    pub async fn run(mut self) {
        let said = Throttle::new(1, SAYS_US);
        let mut failing_since = None;
        loop {
            let stepped = self.step().await;
            let now = self.clock.elapsed_us();
            match stepped {
                Ok(()) => failing_since = None,
                Err(failure) => {
                    let since = *failing_since.get_or_insert(now);
                    if now.saturating_sub(since) >= FAILS_US && said.admit(now).is_some() {
                        tracing::warn!(
                            chain = %self.chain, %failure,
                            "the audit chain cannot be read, so it is not verified"
                        );
                    }
                }
            }
            self.clock.sleep(STEP).await;
        }
    }

    /// One step of both passes, and a checkpoint when it is time.
    pub async fn step(&mut self) -> Result<(), StoreFailure> {
        self.follow_keys();
        let place = self.place().await?;
        self.compare(place);
        let verified = self.verify(place).await;
        // Also where nothing could be read: so far it lags behind.
        self.show(place.head.seq);
        verified
    }

    async fn verify(&mut self, place: Place) -> Result<(), StoreFailure> {
        let alarms = self.counters.rollback.raised().get();
        if self.was_set_back(place).await? {
            self.begin_anew(place);
        } else if alarms != self.alarms {
            // It may have been repaired before this look: what came back is read all the same.
            self.tail = Pass::new(&self.ring, self.notes.as_ref());
        }
        self.alarms = alarms;
        for _ in 0..CHUNKS_MAX {
            let (store, chain) = (Arc::clone(&self.store), self.chain.clone());
            match self.tail.read(&store, &chain, place, Some(&mut self.uses)).await? {
                Read::More => {}
                Read::Whole => {
                    // The head moves by whole appends, and each is signed on its last record.
                    if self.tail.verifier.end() == place.head {
                        self.tail.verifier.ends();
                    }
                    break;
                }
                Read::Short => {
                    self.look_for_cut(self.tail.place()).await?;
                    break;
                }
            }
            self.show(place.head.seq);
            self.checkpoint().await;
        }
        self.look_for_missing();
        self.show(place.head.seq);
        self.checkpoint().await;
        self.sweep(place).await
    }

    async fn place(&self) -> Result<Place, StoreFailure> {
        match self.store.chains() {
            Some(chains) => chains.place(&self.chain).await,
            None => Err(StoreFailure::Refused("the store keeps no chains".to_owned())),
        }
    }

    /// Whether what was verified is not there any more: the gateways see to that, and then all is read again.
    async fn was_set_back(&self, place: Place) -> Result<bool, StoreFailure> {
        let end = self.tail.verifier.end();
        if end.seq == 0 {
            return Ok(false);
        }
        if place.head.seq <= end.seq {
            return Ok(place.head != end);
        }
        let Some(chains) = self.store.chains() else { return Ok(false) };
        let (segment, index) = (self.tail.segment, self.tail.index);
        let Some(before) = index.checked_sub(1) else { return Ok(false) };
        let records = chains.records(&self.chain, segment, before, 1).await?;
        let hash = records.first().and_then(|bytes| Record::read(bytes).ok()).map(|r| r.hash);
        Ok(hash != Some(end.hash))
    }

    /// A chain that is shorter than the last checkpoint of a run before has lost records, also where no gateway is left that
    /// knows of them.
    fn compare(&mut self, place: Place) {
        let is_first = !std::mem::replace(&mut self.is_compared, true);
        let Some(notes) = self.notes.as_ref().filter(|_| is_first) else { return };
        let (first, last) = (place.head.seq.saturating_add(1), notes.size());
        if first > last {
            return;
        }
        tracing::error!(
            critical = true, chain = %self.chain, seq = first, checkpoint = last,
            "the audit chain has fewer records than its last checkpoint"
        );
        self.missing = Some(Missing { first, last, rollbacks: notes.epoch() });
    }

    fn begin_anew(&mut self, place: Place) {
        let last = self.tail.verifier.end().seq;
        // A head that is no further back is of another chain from some earlier record on.
        let first = place.head.seq.saturating_add(1).min(last);
        tracing::error!(
            critical = true, chain = %self.chain, seq = first, verified = last,
            "verified audit records are not in the store any more; the chain is verified anew"
        );
        self.miss(first, last);
    }

    /// Records are not there: they are accounted for when all is read again.
    fn miss(&mut self, first: u64, last: u64) {
        let rollbacks = self.tail.verifier.so_far().rollbacks.len();
        let before = self.missing;
        self.missing = Some(Missing {
            first: before.map_or(first, |before| before.first.min(first)),
            last: before.map_or(last, |before| before.last.max(last)),
            rollbacks: before.map_or(rollbacks, |before| before.rollbacks),
        });
        self.tail = Pass::new(&self.ring, self.notes.as_ref());
        self.sweep = Pass::new(&self.ring, self.notes.as_ref());
    }

    /// Missing records are found again when the gateways have put them back, or have said on record that they
    /// are lost.
    fn look_for_missing(&mut self) {
        let Some(missing) = self.missing else { return };
        let so_far = self.tail.verifier.so_far();
        let is_told = so_far.rollbacks.len() > missing.rollbacks;
        if so_far.findings_total == 0 && (self.tail.verifier.end().seq >= missing.last || is_told) {
            tracing::warn!(
                chain = %self.chain, first = missing.first, last = missing.last, is_told,
                "the missing audit records are accounted for"
            );
            self.missing = None;
        }
    }

    fn follow_keys(&mut self) {
        let ring = with_notes(&self.keys, self.notes.as_ref());
        if ring == self.ring {
            return;
        }
        let is_more = ring.keys.keys().any(|version| !self.ring.keys.contains_key(version));
        self.ring = ring;
        for pass in [&mut self.tail, &mut self.sweep] {
            if is_more && unknown::is_all(pass.verifier.so_far()) {
                // With that key there may be nothing to find.
                *pass = Pass::new(&self.ring, self.notes.as_ref());
            } else {
                pass.verifier.trust(KeyRing::clone(&self.ring));
            }
        }
    }

    async fn sweep(&mut self, place: Place) -> Result<(), StoreFailure> {
        let (store, chain) = (Arc::clone(&self.store), self.chain.clone());
        if self.sweep_until == 0 {
            self.sweep_until = self.tail.verifier.end().seq;
        }
        let read = self.sweep.read(&store, &chain, place, None).await?;
        if self.sweep.verifier.so_far().findings_total > 0 {
            // It stays as it is: an alarm does not end by itself.
            return Ok(());
        }
        if let Read::Short = read {
            return self.look_for_cut(self.sweep.place()).await;
        }
        let end = self.sweep.verifier.end().seq;
        // A chain that was set back for good does not reach where it was.
        if end > 0 && end >= self.sweep_until.min(place.head.seq) {
            self.counters.sweeps.inc();
            if self.tail.verifier.so_far().findings_total == 0 {
                self.unknown.ended();
            }
            self.sweep = Pass::new(&self.ring, self.notes.as_ref());
            self.sweep_until = self.tail.verifier.end().seq;
        }
        Ok(())
    }

    fn show(&mut self, there: u64) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (tail, sweep) = (self.tail.verifier.so_far(), self.sweep.verifier.so_far());
        let is_held = self.unknown.holds_back([tail, sweep], self.clock.elapsed_us());
        let wrong = tail.findings_total.saturating_add(sweep.findings_total);
        let wrong = if is_held { 0 } else { wrong };
        let found = wrong.saturating_add(u64::from(self.missing.is_some()));
        let verified = if tail.findings_total == 0 {
            self.tail.verifier.end().seq
        } else {
            tail.first_bad.unwrap_or(1).saturating_sub(1)
        };
        self.counters.verified_seq.set(gauge(verified));
        self.counters.rollback.verified(self.alarms, verified);
        self.counters.verify_lag.set(gauge(there.saturating_sub(verified)));
        self.counters.findings.set(gauge(found));
        let first_bad = tail.first_bad.into_iter().chain(sweep.first_bad).min();
        let first_bad = first_bad.filter(|_| !is_held);
        let missing = self.missing.map(|missing| missing.first);
        let worst = first_bad.into_iter().chain(missing).min();
        self.counters.first_bad.set(gauge(worst.unwrap_or_default()));
        // Which are missing was said when they were missed.
        if found > self.told && wrong > 0 {
            let first = tail.findings.iter().chain(&sweep.findings).next();
            let seq = first_bad.unwrap_or_default();
            let detail = first.map(|found| found.detail.clone()).unwrap_or_default();
            tracing::error!(
                critical = true, chain = %self.chain, findings = found, seq, detail,
                "the audit chain was tampered with"
            );
        }
        self.told = found;
    }
}

fn with_notes(keys: &SharedKeys, notes: Option<&Notes>) -> Arc<KeyRing> {
    let ring = Arc::clone(&*keys.read().unwrap_or_else(PoisonError::into_inner));
    match notes {
        Some(notes) => Arc::new(KeyRing {
            checkpoint_keys: vec![notes.key().clone()],
            ..KeyRing::clone(&ring)
        }),
        None => ring,
    }
}

#[cfg(test)]
mod tests;
