//! Owns group commit: events are gathered for a tick, or until a batch is full, and appended together.
//! Knows neither stores nor hashes.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidegate_policy::audit::record::{Event, Signer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::chain_end::{Accepted, BATCH_MAX, ChainEnd, SharedSigner};
use super::counters::ChainCounters;
use crate::clock::Clock;

/// How long events are gathered.
pub const TICK: Duration = Duration::from_millis(50);
/// Events that may wait to be gathered.
pub const QUEUE_MAX: usize = 10_000;
/// Between two attempts to empty the spool while no events come.
const RETRY: Duration = Duration::from_secs(1);

/// Answers once the event is in the chain or on the disk; an end without answer means that it is lost.
pub type Acknowledged = oneshot::Receiver<Accepted>;

/// The queue is full, or the writer has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit queue is full or closed")]
pub struct QueueFull;

struct Item {
    event: Event,
    urgent: bool,
    ack: oneshot::Sender<Accepted>,
}

/// The way into the chain.
pub struct Writer {
    queue: mpsc::Sender<Item>,
    signer: SharedSigner,
    counters: ChainCounters,
}

/// The task behind it. It ends when every [`Writer`] is gone and all is committed.
pub type Writing = JoinHandle<()>;

// === impl Writer ===

impl Writer {
    /// Starts the task. Needs a tokio runtime.
    pub fn start(
        end: ChainEnd,
        signer: SharedSigner,
        clock: Arc<dyn Clock>,
        counters: ChainCounters,
        tick: Duration,
    ) -> (Self, Writing) {
        let (queue, items) = mpsc::channel(QUEUE_MAX);
        let writing = tokio::spawn(run(end, items, clock, tick));
        (Self { queue, signer, counters }, writing)
    }

    /// Hands an event over without waiting. `urgent` ends the tick at once: for decisions that wait for
    /// their event.
    pub fn submit(&self, event: Event, urgent: bool) -> Result<Acknowledged, QueueFull> {
        let (ack, acknowledged) = oneshot::channel();
        self.queue.try_send(Item { event, urgent, ack }).map_err(|_full_or_closed| {
            self.counters.dropped.inc();
            QueueFull
        })?;
        Ok(acknowledged)
    }

    /// Another key signs from the next batch on.
    pub fn rotate(&self, signer: Arc<dyn Signer + Send + Sync>) {
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = signer;
    }
}

/// A signer that can be replaced.
pub fn shared(signer: Arc<dyn Signer + Send + Sync>) -> SharedSigner {
    Arc::new(RwLock::new(signer))
}

async fn run(
    mut end: ChainEnd,
    mut items: mpsc::Receiver<Item>,
    clock: Arc<dyn Clock>,
    tick: Duration,
) {
    // What a run before this one left.
    end.retry().await;
    loop {
        let first = tokio::select! {
            item = items.recv() => match item {
                Some(item) => item,
                None => break,
            },
            () = clock.sleep(RETRY), if end.has_spooled() => {
                end.retry().await;
                continue;
            }
        };
        let batch = gather(first, &mut items, clock.as_ref(), tick).await;
        commit(&mut end, batch).await;
    }
    end.retry().await;
}

async fn gather(
    first: Item,
    items: &mut mpsc::Receiver<Item>,
    clock: &dyn Clock,
    tick: Duration,
) -> Vec<Item> {
    let mut over = clock.sleep(tick);
    let mut urgent = first.urgent;
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        let next = if urgent {
            // Whoever came with it goes with it, and nobody is waited for.
            items.try_recv().ok()
        } else {
            tokio::select! {
                item = items.recv() => item,
                () = &mut over => None,
            }
        };
        let Some(item) = next else { break };
        urgent |= item.urgent;
        batch.push(item);
    }
    batch
}

async fn commit(end: &mut ChainEnd, batch: Vec<Item>) {
    let mut events: Vec<Event> = Vec::with_capacity(batch.len());
    for item in &batch {
        // An event that was handed over twice is one event.
        if !events.iter().any(|event| event.id() == item.event.id()) {
            events.push(item.event.clone());
        }
    }
    let Ok(accepted) = end.commit(events).await else { return };
    for item in batch {
        // Who asked may have left.
        if item.ack.send(accepted).is_err() {
            tracing::trace!("nobody waits for this event");
        }
    }
}
