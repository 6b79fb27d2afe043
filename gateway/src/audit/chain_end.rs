//! Owns the end of one chain as this gateway knows it: linking events behind it, appending them, what to
//! do when somebody was faster, when the store is gone, and when it was set back. Knows neither queues
//! nor ticks. Record 0049.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tidegate_policy::audit::append::{Append, Outcome, Place};
use tidegate_policy::audit::keys::KeyRing;
use tidegate_policy::audit::record::{ChainName, Event, Head, Signer, batch};

use super::counters::ChainCounters;
use super::mark::Mark;
use super::ring::{Appended, Ring};
use super::spool::{Spool, SpoolError};
use crate::clock::Clock;
use crate::store::chains::Chains;
use crate::store::{Store, StoreFailure};

mod certain;
mod noted;
mod own;
mod own_time;
mod parted;
mod races;
mod repair;
mod silent;
mod torn;
mod vouched;
mod waiting;

pub use self::own_time::LOOK as LOOK_SOON;

/// Records of one append.
pub const BATCH_MAX: usize = 64;
/// Places that are remembered, to tell where a store that was set back begins to differ.
const SEEN_MAX: usize = 4_096;
/// What happened longer ago may have been sent before, by a filter that heard no answer: within that time no more than two
/// segments fill, up to 5,000 events a second.
const OLD_MS: u64 = 2_000;
/// A segment with that many records is followed by the next.
pub const SEGMENT_MAX: u64 = 10_000;

/// Who signs from now on; another may take its place at any time. `None` while no key may sign.
pub type SharedSigner = Arc<RwLock<Option<Arc<dyn Signer + Send + Sync>>>>;

/// The public keys that go with the signers; replaced together with them.
pub type SharedKeys = Arc<RwLock<Arc<KeyRing>>>;

/// What became of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// They are in the chain.
    Chained,
    /// They are on this machine's disk and will be in the chain.
    Spooled,
}

/// The events are neither in the chain nor on the disk.
#[derive(Debug, thiserror::Error)]
#[error("neither the chain nor the disk takes the events")]
pub struct Lost(#[source] SpoolError);

/// Why an append was not done.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the store keeps no chains")]
    NoChains,
    #[error(transparent)]
    Store(#[from] StoreFailure),
    #[error("others were faster {0} times in a row")]
    Races(usize),
    #[error("every key that could sign is revoked")]
    NoKey,
    #[error("others may have to put records back first")]
    Quiet,
    #[error("the store does not answer")]
    Silent,
    #[error("events that came before wait on the disk")]
    Behind,
    #[error("the gateway ends")]
    Ends,
    #[error("the spool has no room for what the store lost")]
    NoRoom,
    #[error("no gateway has signed the record {0}, with which the chain ends")]
    Foreign(u64),
    #[error("{key} holds {held} records, the head counts {counted}")]
    Torn { key: String, held: u64, counted: u64 },
    #[error("{key} begins with the record {first}, the head says {said}")]
    Misnumbered { key: String, first: u64, said: u64 },
    #[error("the store was set back: it ends at {there:?}, this gateway knows {known:?}")]
    SetBack { known: Place, there: Place },
}

/// What the end of a chain stands on.
pub struct Parts {
    /// The chain's name.
    pub chain: ChainName,
    /// Where it lies.
    pub store: Arc<dyn Store>,
    /// Who signs.
    pub signer: SharedSigner,
    /// By what others' signatures are checked.
    pub keys: SharedKeys,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where events wait.
    pub spool: Spool,
    /// How far the chain had come.
    pub mark: Mark,
    /// What was appended last.
    pub ring: Ring,
    /// What is counted.
    pub counters: ChainCounters,
}

/// The end.
pub struct ChainEnd {
    chain: ChainName,
    store: Arc<dyn Store>,
    signer: SharedSigner,
    keys: SharedKeys,
    clock: Arc<dyn Clock>,
    spool: Arc<Mutex<Spool>>,
    /// What waits there; a lock would have to be waited for.
    spool_bytes: AtomicU64,
    /// Whether more waits there than the last look has taken, and the store takes it.
    drains: bool,
    mark: Mark,
    /// Whether the disk did not take the mark last time.
    is_unnoted: bool,
    counters: ChainCounters,
    /// The last places that were known for certain.
    seen: VecDeque<Place>,
    /// What it appended last, in case that the store loses it.
    ring: Ring,
    /// Appends whose replies did not come.
    doubtful: Vec<Appended>,
    /// Of the lost events, those that a record tells of.
    losses_told: u64,
    /// Tells its own events from those of other runs.
    run: u64,
    /// The last place that is known for certain, of this run or of the one before.
    known: Option<Place>,
    /// Whether the store has to be compared with it first: at the start, and after each failure.
    unsure: bool,
    set_back: bool,
    /// The last end of the chain that is known to be signed, and the last one that is not.
    vouched: Option<Head>,
    foreign: Option<Head>,
    /// Where the chain was last found torn, and with how many records.
    torn: Option<(Head, u64)>,
    /// The segment and its first number that were last found true, and the end whose were last found false.
    begins: Option<(u64, u64)>,
    misnumbered: Option<Place>,
    /// For how long others are to be left time, since the store could not be reached, or never was before; and
    /// since when it can be. In µs of `own_time`.
    grace_us: Option<u64>,
    in_touch_since: Option<u64>,
    /// In which memory of the store the chain lay when that was asked last.
    memory: Option<u64>,
    /// By what is waited for others.
    own_time: own_time::OwnTime,
    /// Asks the store that did not answer whether it does.
    probe: silent::Probe,
    /// Of the repair, while the store is set back.
    progress: repair::Progress,
}

// === impl ChainEnd ===

impl ChainEnd {
    /// Reads the mark.
    pub fn open(parts: Parts) -> std::io::Result<Self> {
        let Parts { chain, store, signer, keys, clock, mut spool, mark, ring, counters } = parts;
        let known = mark.read()?;
        let memory = store.chains().and_then(|chains| chains.memory(&chain));
        let losses_told = counters.dropped.get();
        counters.dropped.inc_by(spool.take_lost());
        let bytes = spool.bytes();
        counters.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(Self {
            chain,
            store,
            signer,
            keys,
            clock,
            spool: Arc::new(Mutex::new(spool)),
            spool_bytes: AtomicU64::new(bytes),
            drains: false,
            mark,
            is_unnoted: false,
            losses_told,
            counters,
            seen: known.into_iter().collect(),
            ring,
            doubtful: Vec::new(),
            run: getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?,
            known,
            unsure: true,
            set_back: false,
            vouched: None,
            foreign: None,
            torn: None,
            begins: None,
            misnumbered: None,
            // A gateway that begins knows no more than one that was away.
            grace_us: Some(own_time::BEGINS_US),
            in_touch_since: None,
            memory,
            own_time: own_time::OwnTime::default(),
            probe: silent::Probe::default(),
            progress: repair::Progress::default(),
        })
    }

    /// Whether the store was set back, and is not whole again.
    #[cfg(test)]
    pub fn is_set_back(&self) -> bool {
        self.set_back
    }

    /// Whether it has to look often: others put records back, or wait for this gateway's, or the store keeps silent.
    pub fn looks_often(&self) -> bool {
        self.set_back || self.is_quiet() || self.probe.is_under_way()
    }

    /// Appends the events, at most [`BATCH_MAX`], or leaves them on the disk; what waits there goes first.
    /// With them goes what is to be told of events that were lost.
    pub async fn commit(&mut self, events: Vec<Event>) -> Result<Accepted, Lost> {
        self.accept(events, true).await
    }

    /// Leaves the events on the disk, since the gateway ends and has no time for the store.
    pub async fn keep(&mut self, events: Vec<Event>) -> Result<Accepted, Lost> {
        self.accept(events, false).await
    }

    async fn accept(&mut self, mut events: Vec<Event>, chains: bool) -> Result<Accepted, Lost> {
        let losses = self.counters.dropped.get();
        let count = events.len();
        if losses > self.losses_told {
            events.extend(self.loss(losses));
        }
        let accepted = self.commit_all(events, count, chains).await;
        if accepted.is_ok() {
            self.losses_told = losses;
        }
        accepted
    }

    async fn append(&mut self, events: &[Event], ids_from: u64) -> Result<(), Refused> {
        if events.is_empty() {
            return Ok(());
        }
        let mut events = each_once(events);
        let mut place = self.place().await?;
        let (begun, mut refuted) = (place, noted::Refuted::default());
        for attempt in 0..races::ATTEMPTS_MAX {
            if let Some(pause) = races::pause(attempt) {
                self.clock.sleep(pause).await;
            }
            match self.attempt(place, &events, ids_from, &refuted).await? {
                Outcome::Done(end) => {
                    self.counters.appended.inc_by(u64::try_from(events.len()).unwrap_or(u64::MAX));
                    return self.arrive(begun, place, end).await;
                }
                Outcome::Moved(there, last) => {
                    self.counters.races_lost.inc();
                    self.ahead(there)?;
                    // Mostly it is in the answer: whoever asked for it first would lose the next race, too.
                    if !self.vouches(there, &last) {
                        self.vouch(there).await?;
                    }
                    place = there;
                }
                Outcome::Duplicates(there, noted) => {
                    self.confirm(there).await;
                    self.ahead(there)?;
                    self.vouch(there).await?;
                    let ids: Vec<&str> = events.iter().map(Event::id).collect();
                    let twice = self.proven(there, &ids, &noted, &mut refuted).await?;
                    for event in twice.iter().filter_map(|at| events.get(*at)) {
                        self.ring.loosen(ids_from, event.clone());
                    }
                    self.counters.duplicates.inc_by(u64::try_from(twice.len()).unwrap_or(u64::MAX));
                    place = there;
                    let mut index = 0..;
                    events.to_mut().retain(|_| !index.next().is_some_and(|at| twice.contains(&at)));
                    if events.is_empty() {
                        return self.arrive(begun, place, there).await;
                    }
                }
                Outcome::Torn(there, held) => {
                    return Err(self.torn(there, segment_behind(there), held));
                }
            }
        }
        Err(Refused::Races(races::ATTEMPTS_MAX))
    }

    /// The chain has reached `end`. If others were in between, it might be another chain than the one
    /// that this gateway knew: one that was lost, and has grown anew. That is asked afterwards, since a
    /// race is lost by whoever asks first. Where it cannot be asked, the append counts as failed: what is not
    /// known to be in the chain is not missed when it is lost.
    async fn arrive(&mut self, begun: Place, expected: Place, end: Place) -> Result<(), Refused> {
        if begun != expected && begun.head.seq > 0 {
            let held = self.still_holds(begun).await;
            self.unsure |= held.is_err();
            held?;
        }
        self.reached(end);
        Ok(())
    }

    async fn attempt(
        &mut self,
        expected: Place,
        events: &[Event],
        ids_from: u64,
        refuted: &noted::Refuted,
    ) -> Result<Outcome, Refused> {
        // It need not have failed: on a machine that stood still nobody asked meanwhile.
        if self.has_lost_touch() {
            return Err(Refused::Quiet);
        }
        let signer = self.signer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let signer = signer.ok_or(Refused::NoKey)?;
        let batch = batch(&self.chain, expected.head, events, &*signer);
        let segment = segment_behind(expected);
        let appended = Appended {
            start: expected,
            segment,
            ids_from,
            hash: batch.head.hash,
            lines: batch.lines,
        };
        let ids: Vec<&str> = events.iter().map(Event::id).collect();
        let refuted = refuted.of(&ids);
        let call = Append { refuted: &refuted, ..appended.call(expected) };
        let outcome = self.chains()?.append(&self.chain, &call).await;
        match &outcome {
            Ok(Outcome::Done(_)) => self.ring.push(appended),
            Ok(_) => {}
            Err(failure) => {
                // It may have been done all the same, and on a server that was not the master any more.
                self.failed(failure);
                self.doubt(appended);
            }
        }
        Ok(outcome?)
    }

    /// From which segment on ids are looked up: this one's and the one's before, since nobody repeats a fresh append
    /// for longer. What happened a while ago a filter may have sent before: as far back as is looked up at all.
    fn ids_from(&self, events: &[Event]) -> u64 {
        let now_ms = self.clock.unix_us() / 1_000;
        let is_old = |event: &Event| now_ms.saturating_sub(event.ts_ms()) >= OLD_MS;
        match self.known {
            Some(known) if !events.iter().any(is_old) => known.segment.saturating_sub(1),
            Some(_) | None => 0,
        }
    }

    fn chains(&self) -> Result<&dyn Chains, Refused> {
        self.store.chains().ok_or(Refused::NoChains)
    }
}

/// The segment into which is appended behind that place.
fn segment_behind(place: Place) -> u64 {
    place.segment.saturating_add(u64::from(place.segment_len() >= SEGMENT_MAX))
}

/// The script compares with the chain, not within one append.
fn each_once(events: &[Event]) -> Cow<'_, [Event]> {
    let ids: BTreeSet<&str> = events.iter().map(Event::id).collect();
    if ids.len() == events.len() {
        return Cow::Borrowed(events);
    }
    let mut ids = BTreeSet::new();
    Cow::Owned(events.iter().filter(|event| ids.insert(event.id())).cloned().collect())
}

#[cfg(test)]
pub(crate) mod tests;
