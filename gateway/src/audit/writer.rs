//! Owns group commit: events are gathered for a tick, or until a batch is full, and appended together.
//! Knows neither stores nor hashes.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tidegate_policy::audit::record::{Event, Signer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::chain_end::{Accepted, BATCH_MAX, ChainEnd, SharedSigner};
use super::counters::ChainCounters;
use crate::clock::Clock;

/// How long events are gathered.
pub const TICK: Duration = Duration::from_millis(50);
/// Events that may wait to be gathered.
pub const QUEUE_MAX: usize = 10_000;
/// Events that decisions or commands wait for, at most.
const URGENT_MAX: usize = 1_000;
/// Between two looks at the store, and attempts to empty the spool, while no events come.
const LOOK: Duration = Duration::from_secs(1);
/// While records have to be put back: gateways take turns with their pieces.
const LOOK_SOON: Duration = Duration::from_millis(50);

/// Answers once the event is in the chain or on the disk; an end without answer means that it is lost.
pub type Acknowledged = oneshot::Receiver<Accepted>;

/// The queue is full, or the writer has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit queue is full or closed")]
pub struct QueueFull;

struct Item {
    event: Event,
    ack: oneshot::Sender<Accepted>,
}

/// The way into the chain.
pub struct Writer {
    queue: mpsc::Sender<Item>,
    /// Those that somebody waits for: they pass all others.
    urgent: mpsc::Sender<Item>,
    stop: watch::Sender<bool>,
    counters: ChainCounters,
}

/// The task behind it. It ends when the [`Writer`] is gone or was told to stop, and all is committed.
pub type Writing = JoinHandle<()>;

/// Where the events come from.
struct Queues {
    items: mpsc::Receiver<Item>,
    urgent: mpsc::Receiver<Item>,
}

// === impl Queues ===

impl Queues {
    /// Takes along all others that are waited for, as far as they are there.
    fn hurry(&mut self, batch: &mut Vec<Item>) {
        while batch.len() < BATCH_MAX
            && let Ok(item) = self.urgent.try_recv()
        {
            batch.push(item);
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Starts the task. Needs a tokio runtime.
    pub fn start(
        end: ChainEnd,
        clock: Arc<dyn Clock>,
        counters: ChainCounters,
        tick: Duration,
    ) -> (Self, Writing) {
        let (queue, items) = mpsc::channel(QUEUE_MAX);
        let (urgent, urgent_items) = mpsc::channel(URGENT_MAX);
        let (stop, stopped) = watch::channel(false);
        let queues = Queues { items, urgent: urgent_items };
        let writing = tokio::spawn(run(end, queues, stopped, clock, tick));
        (Self { queue, urgent, stop, counters }, writing)
    }

    /// Hands an event over without waiting. An `urgent` one is appended at once: for decisions and
    /// commands that wait for their event.
    pub fn submit(&self, event: Event, urgent: bool) -> Result<Acknowledged, QueueFull> {
        let (ack, acknowledged) = oneshot::channel();
        let queue = if urgent { &self.urgent } else { &self.queue };
        queue.try_send(Item { event, ack }).map_err(|_full_or_closed| {
            self.counters.dropped.inc();
            QueueFull
        })?;
        Ok(acknowledged)
    }

    /// Takes no more events; what was handed over is committed.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// A signer that can be replaced.
pub fn shared(signer: Arc<dyn Signer + Send + Sync>) -> SharedSigner {
    Arc::new(RwLock::new(Some(signer)))
}

async fn run(
    mut end: ChainEnd,
    mut queues: Queues,
    mut stopped: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
    tick: Duration,
) {
    // What a run before this one left.
    end.retry().await;
    loop {
        let batch = tokio::select! {
            biased;
            Some(item) = queues.urgent.recv() => {
                let mut batch = vec![item];
                queues.hurry(&mut batch);
                batch
            }
            item = queues.items.recv() => match item {
                Some(item) => gather(item, &mut queues, clock.as_ref(), tick).await,
                None => break,
            },
            _ = stopped.changed() => break,
            () = clock.sleep(if end.is_set_back() { LOOK_SOON } else { LOOK }) => {
                end.retry().await;
                continue;
            }
        };
        commit(&mut end, batch).await;
    }
    queues.items.close();
    queues.urgent.close();
    loop {
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX
            && let Some(item) = queues.urgent.try_recv().or_else(|_| queues.items.try_recv()).ok()
        {
            batch.push(item);
        }
        if batch.is_empty() {
            break;
        }
        commit(&mut end, batch).await;
    }
    end.retry().await;
}

async fn gather(first: Item, queues: &mut Queues, clock: &dyn Clock, tick: Duration) -> Vec<Item> {
    let mut over = clock.sleep(tick);
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        let (item, urgent) = tokio::select! {
            biased;
            Some(item) = queues.urgent.recv() => (Some(item), true),
            item = queues.items.recv() => (item, false),
            () = &mut over => (None, false),
        };
        let Some(item) = item else { break };
        batch.push(item);
        if urgent {
            queues.hurry(&mut batch);
            break;
        }
    }
    batch
}

async fn commit(end: &mut ChainEnd, batch: Vec<Item>) {
    let events: Vec<Event> = batch.iter().map(|item| item.event.clone()).collect();
    let Ok(accepted) = end.commit(events).await else { return };
    for item in batch {
        // Who asked may have left.
        if item.ack.send(accepted).is_err() {
            tracing::trace!("nobody waits for this event");
        }
    }
}
