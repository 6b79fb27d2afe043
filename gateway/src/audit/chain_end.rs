//! Owns the end of one chain as this gateway knows it: linking events behind it, appending them, what to
//! do when somebody was faster, when the store is gone, and when it was set back. Knows neither queues
//! nor ticks. Record 0049.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tidegate_policy::audit::append::{Append, Outcome, Place};
use tidegate_policy::audit::record::{ChainName, Event, Record, Signer, batch};

use super::counters::ChainCounters;
use super::mark::Mark;
use super::spool::{Spool, SpoolError, Waiting};
use crate::clock::Clock;
use crate::store::chains::Chains;
use crate::store::{Store, StoreFailure};

/// How often an append is repeated at once with the head that the store gave.
const AT_ONCE_MAX: usize = 6;
/// Then it waits up to that long, at random, so that the losers do not meet again (product row D2).
const WAITS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(40)];
/// Records of one append.
pub const BATCH_MAX: usize = 64;
/// A segment with that many records is followed by the next.
pub const SEGMENT_MAX: u64 = 10_000;

/// Who signs from now on; another may take its place at any time.
pub type SharedSigner = Arc<RwLock<Arc<dyn Signer + Send + Sync>>>;

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
#[error("the events are lost")]
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
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where events wait.
    pub spool: Spool,
    /// How far the chain had come.
    pub mark: Mark,
    /// What is counted.
    pub counters: ChainCounters,
}

/// The end.
pub struct ChainEnd {
    chain: ChainName,
    store: Arc<dyn Store>,
    signer: SharedSigner,
    clock: Arc<dyn Clock>,
    spool: Arc<Mutex<Spool>>,
    mark: Mark,
    counters: ChainCounters,
    /// The last place that is known for certain, of this run or of the one before.
    known: Option<Place>,
    /// Whether the store has to be compared with it first: at the start, and after each failure.
    unsure: bool,
    set_back: bool,
}

// === impl ChainEnd ===

impl ChainEnd {
    /// Reads the mark.
    pub fn open(parts: Parts) -> std::io::Result<Self> {
        let Parts { chain, store, signer, clock, spool, mark, counters } = parts;
        let known = mark.read()?;
        counters.spool_bytes.set(i64::try_from(spool.bytes()).unwrap_or(i64::MAX));
        Ok(Self {
            chain,
            store,
            signer,
            clock,
            spool: Arc::new(Mutex::new(spool)),
            mark,
            counters,
            known,
            unsure: true,
            set_back: false,
        })
    }

    /// Whether events wait on the disk.
    pub fn has_spooled(&self) -> bool {
        !self.spool.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Appends the events, at most [`BATCH_MAX`], or leaves them on the disk; what waits there goes first.
    pub async fn commit(&mut self, events: Vec<Event>) -> Result<Accepted, Lost> {
        let ids_from = self.ids_from();
        let refused = match self.drain().await {
            Ok(()) => self.append(events.clone(), ids_from).await.err(),
            Err(refused) => Some(refused),
        };
        let Some(refused) = refused else { return Ok(Accepted::Chained) };
        let count = events.len();
        tracing::error!(
            critical = true, chain = %self.chain, events = count, reason = %refused,
            "audit events could not be appended; they go to the spool"
        );
        let waiting = events.into_iter().map(|event| Waiting { ids_from, event }).collect();
        let pushed = self.on_spool(move |spool: &mut Spool| {
            let waiting: Vec<Waiting> = waiting;
            spool.push(&waiting)
        });
        match pushed.await {
            Ok(()) => {
                self.counters.spooled.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
                Ok(Accepted::Spooled)
            }
            Err(error) => {
                self.counters.dropped.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
                tracing::error!(critical = true, chain = %self.chain, events = count, %error,
                    "audit events are lost");
                Err(Lost(error))
            }
        }
    }

    /// Tries to append what waits on the disk; says nothing if the store is still gone.
    pub async fn retry(&mut self) {
        if let Err(refused) = self.drain().await {
            tracing::debug!(reason = %refused, "the audit spool stays");
        }
    }

    async fn drain(&mut self) -> Result<(), Refused> {
        while self.has_spooled() {
            let (waiting, end) = match self.on_spool(|spool| spool.peek(BATCH_MAX)).await {
                Ok(read) => read,
                Err(error) => return Err(unreadable(&error)),
            };
            let ids_from = waiting.iter().map(|one| one.ids_from).min().unwrap_or_default();
            self.append(waiting.into_iter().map(|one| one.event).collect(), ids_from).await?;
            self.on_spool(move |spool| spool.pass(end)).await.map_err(|e| unreadable(&e))?;
        }
        Ok(())
    }

    async fn append(&mut self, mut events: Vec<Event>, ids_from: u64) -> Result<(), Refused> {
        if events.is_empty() {
            return Ok(());
        }
        let mut place = self.place().await?;
        let begun = place;
        for attempt in 0..=AT_ONCE_MAX + WAITS.len() {
            if let Some(most) = attempt.checked_sub(AT_ONCE_MAX + 1).and_then(|at| WAITS.get(at)) {
                self.clock.sleep(jitter(*most)).await;
            }
            match self.attempt(place, &events, ids_from).await? {
                Outcome::Done(end) => {
                    self.counters.appended.inc_by(u64::try_from(events.len()).unwrap_or(u64::MAX));
                    return self.arrive(begun, place, end).await;
                }
                Outcome::Moved(there) => {
                    self.counters.races_lost.inc();
                    self.ahead(there)?;
                    place = there;
                }
                Outcome::Duplicates(there, twice) => {
                    self.counters.duplicates.inc_by(u64::try_from(twice.len()).unwrap_or(u64::MAX));
                    self.ahead(there)?;
                    place = there;
                    let mut index = 0..;
                    events.retain(|_| !index.next().is_some_and(|at| twice.contains(&at)));
                    if events.is_empty() {
                        return self.arrive(begun, place, there).await;
                    }
                }
            }
        }
        Err(Refused::Races(AT_ONCE_MAX + WAITS.len() + 1))
    }

    /// The chain has reached `end`. If others were in between, it might be another chain than the one
    /// that this gateway knew: one that was lost, and has grown anew. That is asked afterwards, since a
    /// race is lost by whoever asks first.
    async fn arrive(&mut self, begun: Place, expected: Place, end: Place) -> Result<(), Refused> {
        if begun != expected && begun.head.seq > 0 {
            match self.still_holds(begun, end).await {
                Ok(()) => {}
                Err(Refused::Store(failure)) => {
                    tracing::debug!(%failure, "the audit chain is compared before the next append");
                    self.unsure = true;
                    return Ok(());
                }
                Err(refused) => return Err(refused),
            }
        }
        self.reached(end);
        Ok(())
    }

    async fn attempt(
        &mut self,
        expected: Place,
        events: &[Event],
        ids_from: u64,
    ) -> Result<Outcome, Refused> {
        let signer = Arc::clone(&*self.signer.read().unwrap_or_else(PoisonError::into_inner));
        let batch = batch(&self.chain, expected.head, events, &*signer);
        let next = expected.segment_len() >= SEGMENT_MAX;
        let append = Append {
            expected,
            segment: expected.segment.saturating_add(u64::from(next)),
            ids_from,
            hash: batch.head.hash,
            lines: &batch.lines,
        };
        let call = self.chains()?.append(&self.chain, &append);
        let outcome = call.await;
        // It may have been done all the same, and on a server that was not the master any more.
        self.unsure |= outcome.is_err();
        Ok(outcome?)
    }

    /// Where the chain ends, compared with what this gateway knows if there is a doubt.
    async fn place(&mut self) -> Result<Place, Refused> {
        if let (Some(known), false) = (self.known, self.unsure) {
            return Ok(known);
        }
        let there = self.chains()?.place(&self.chain).await?;
        self.ahead(there)?;
        if let Some(known) = self.known
            && there.head.seq > known.head.seq
            && known.head.seq > 0
        {
            self.still_holds(known, there).await?;
        }
        self.reached(there);
        self.unsure = false;
        Ok(there)
    }

    /// Whether the record that this gateway knows is in a chain that has gone on.
    async fn still_holds(&mut self, known: Place, there: Place) -> Result<(), Refused> {
        let index = known.head.seq.saturating_sub(known.segment_first);
        let call = self.chains()?.records(&self.chain, known.segment, index, 1);
        let records = call.await?;
        let held = match records.first() {
            Some(bytes) => Record::read(bytes).is_ok_and(|record| record.hash == known.head.hash),
            // Archived and removed.
            None => there.segment > known.segment,
        };
        if held { Ok(()) } else { Err(self.alarm(known, there)) }
    }

    /// Whether the store can be at that place, for all that is known.
    fn ahead(&mut self, there: Place) -> Result<(), Refused> {
        let Some(known) = self.known else { return Ok(()) };
        let same = there.head.seq == known.head.seq && there.head.hash == known.head.hash;
        if self.set_back || (there.head.seq <= known.head.seq && !same) {
            return Err(self.alarm(known, there));
        }
        Ok(())
    }

    fn alarm(&mut self, known: Place, there: Place) -> Refused {
        if !self.set_back {
            self.set_back = true;
            self.counters.rollback.set(1);
            tracing::error!(
                critical = true, chain = %self.chain, ?known, ?there,
                "the audit chain's store was set back; appends stop, events go to the spool"
            );
        }
        self.unsure = true;
        Refused::SetBack { known, there }
    }

    fn reached(&mut self, place: Place) {
        self.known = Some(place);
        if let Err(error) = self.mark.write(&place) {
            tracing::warn!(%error, "how far the audit chain has come could not be noted");
        }
    }

    /// This segment's ids and the one's before: nobody repeats an append for longer.
    fn ids_from(&self) -> u64 {
        self.known.map_or(0, |known| known.segment.saturating_sub(1))
    }

    fn chains(&self) -> Result<&dyn Chains, Refused> {
        self.store.chains().ok_or(Refused::NoChains)
    }

    /// A step on the spool, away from the threads that serve.
    async fn on_spool<T: Send + 'static, E: From<std::io::Error> + Send + 'static>(
        &self,
        step: impl FnOnce(&mut Spool) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let spool = Arc::clone(&self.spool);
        let run = tokio::task::spawn_blocking(move || {
            let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
            (step(&mut spool), spool.bytes())
        });
        let (done, bytes) = run.await.map_err(std::io::Error::other)?;
        self.counters.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        done
    }
}

fn unreadable(error: &std::io::Error) -> Refused {
    Refused::Store(StoreFailure::Garbled(format!("the spool cannot be read: {error}")))
}

fn jitter(most: Duration) -> Duration {
    let us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    // Without randomness the whole wait is as good as any.
    Duration::from_micros(getrandom::u64().map_or(us, |random| random % us.max(1)))
}

#[cfg(test)]
mod tests;
