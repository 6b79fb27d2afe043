//! Owns the events that wait on the disk: what goes there instead of into the chain, and what leaves it for the
//! chain. Knows no file.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tidegate_policy::audit::record::Event;
use tokio::task::JoinHandle;

use super::own_time::LOOK;
use super::{Accepted, BATCH_MAX, ChainEnd, Lost, Refused};
use crate::audit::spool::{Spool, SpoolError, Waiting};
use crate::store::StoreFailure;

/// So long one look takes from the spool, at least one batch, or takes up what lies behind the head: what comes meanwhile
/// waits for it.
pub(super) const TURN_US: u64 = 20_000;

/// What a step on the spool gave, how many bytes wait since, and how many events were lost.
type Stepped<T> = (T, u64, u64);

// === impl ChainEnd ===

impl ChainEnd {
    /// Whether events wait on the disk.
    pub fn has_spooled(&self) -> bool {
        self.spool_bytes.load(Ordering::Relaxed) > 0
    }

    /// Whether events wait on the disk after a look that has taken some of them, so that the next need not be waited for.
    pub fn drains(&self) -> bool {
        self.drains
    }

    /// `count` of the events are others'.
    pub(super) async fn commit_all(
        &mut self,
        events: Vec<Event>,
        count: usize,
        chains: bool,
    ) -> Result<Accepted, Lost> {
        let ids_from = self.ids_from(&events);
        // Somebody may wait for these, and an outage may have left hundreds of batches.
        let chained =
            if chains { self.chain_all(&events, ids_from, 0).await } else { Err(Refused::Ends) };
        let Err(refused) = chained else { return Ok(Accepted::Chained) };
        if matches!(refused, Refused::Quiet | Refused::Silent | Refused::Ends | Refused::Behind) {
            tracing::info!(chain = %self.chain, events = count, reason = %refused,
                "audit events go to the spool");
        } else {
            tracing::error!(
                critical = true, chain = %self.chain, events = count, reason = %refused,
                "audit events could not be appended; they go to the spool"
            );
        }
        let again = matches!(refused, Refused::Behind).then(|| events.clone());
        let waiting: Vec<Waiting> =
            events.into_iter().map(|event| Waiting { ids_from, event }).collect();
        let pushing = self.step(move |spool| spool.push(&waiting));
        let pushed = self.meanwhile(pushing).await;
        if let (Err(SpoolError::Full(_)), Some(events)) = (&pushed, again)
            && self.chain_all(&events, ids_from, u64::MAX).await.is_ok()
        {
            // The store takes all that waits, so there was room to be made.
            return Ok(Accepted::Chained);
        }
        match pushed {
            Ok(()) => {
                self.counters.spooled.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
                self.counters.spool_full.set(0);
                Ok(Accepted::Spooled)
            }
            Err(error) => {
                self.counters.spool_full.set(1);
                tracing::error!(critical = true, chain = %self.chain, events = count, %error,
                    "audit events are neither in the chain nor on the disk");
                Err(Lost(error))
            }
        }
    }

    /// Before the events goes what waits on the disk, at least a batch of it and for as long as that; an error where more
    /// is left.
    async fn chain_all(
        &mut self,
        events: &[Event],
        ids_from: u64,
        turn_us: u64,
    ) -> Result<(), Refused> {
        self.drains = false;
        if self.is_silent().await {
            return Err(Refused::Silent);
        }
        // Before anything is read from the disk: while others put records back nothing is appended.
        self.place().await?;
        self.drain(turn_us).await?;
        if self.drains {
            return Err(Refused::Behind);
        }
        self.append(events, ids_from).await
    }

    /// Tries to append what waits on the disk, or some of it ([`ChainEnd::drains`]), and looks whether the store was set
    /// back; says nothing if the store is gone.
    pub async fn retry(&mut self) {
        self.ring.catch_up_at(self.clock.elapsed_us());
        // Each append of the last look was one itself.
        self.unsure |= !self.drains;
        self.drains = false;
        if self.is_silent().await {
            return;
        }
        let was_whole = !self.set_back;
        let mut looked = self.look().await;
        if was_whole && self.set_back {
            looked = self.look().await;
        }
        if let Err(refused) = looked {
            tracing::debug!(reason = %refused, "the audit spool stays");
        }
    }

    /// The gateway ends: what is only in memory goes to the disk, if that takes it by now.
    pub fn leave(&mut self) {
        self.ring.catch_up();
    }

    async fn look(&mut self) -> Result<(), Refused> {
        self.place().await?;
        self.drain(TURN_US).await
    }

    /// At least one batch, and more for as long as that.
    async fn drain(&mut self, turn_us: u64) -> Result<(), Refused> {
        let begun = self.clock.elapsed_us();
        while self.has_spooled() {
            let (waiting, end) = match self.on_spool(|spool| spool.peek(BATCH_MAX)).await {
                Ok(read) => read,
                Err(error) => return Err(unreadable(&error)),
            };
            let ids_from = waiting.iter().map(|one| one.ids_from).min().unwrap_or_default();
            let events: Vec<Event> = waiting.into_iter().map(|one| one.event).collect();
            self.append(&events, ids_from).await?;
            self.on_spool(move |spool| spool.pass(end)).await.map_err(|e| unreadable(&e))?;
            self.counters.spool_full.set(0);
            if self.clock.elapsed_us().saturating_sub(begun) >= turn_us {
                self.drains = self.has_spooled();
                break;
            }
        }
        Ok(())
    }

    /// A step on the spool, away from the threads that serve.
    pub(super) async fn on_spool<T: Send + 'static, E: From<std::io::Error> + Send + 'static>(
        &self,
        step: impl FnOnce(&mut Spool) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let stepped = self.step(step).await;
        self.stepped(stepped.map_err(std::io::Error::other)?)
    }

    /// Waits for a step on the spool while others may wait for this gateway's records: a disk may take seconds, and
    /// they count them.
    async fn meanwhile<T, E: From<std::io::Error>>(
        &mut self,
        mut step: JoinHandle<Stepped<Result<T, E>>>,
    ) -> Result<T, E> {
        let stepped = loop {
            tokio::select! {
                biased;
                stepped = &mut step => break stepped,
                () = self.clock.sleep(LOOK) => {}
            }
            if self.set_back
                && !self.is_silent().await
                && let Err(refused) = self.repair().await
            {
                tracing::trace!(reason = %refused, "the audit chain is not whole yet");
            }
        };
        self.stepped(stepped.map_err(std::io::Error::other)?)
    }

    fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Spool) -> T + Send + 'static,
    ) -> JoinHandle<Stepped<T>> {
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || {
            let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
            (step(&mut spool), spool.bytes(), spool.take_lost())
        })
    }

    fn stepped<T>(&self, (done, bytes, lost): Stepped<T>) -> T {
        self.counters.dropped.inc_by(lost);
        self.spool_bytes.store(bytes, Ordering::Relaxed);
        self.counters.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        done
    }
}

fn unreadable(error: &std::io::Error) -> Refused {
    Refused::Store(StoreFailure::Garbled(format!("the spool cannot be read: {error}")))
}
