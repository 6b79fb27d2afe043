//! Owns group commit: events are gathered for a tick, or until a batch is full, and appended together.
//! Knows neither stores nor hashes.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tidegate_policy::audit::record::{Event, Signer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::chain_end::{Accepted, BATCH_MAX, ChainEnd, LOOK_SOON, Lost, SharedSigner};
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

/// Answers once the event is in the chain or on the disk; an end without answer means that it is lost.
pub type Acknowledged = oneshot::Receiver<Accepted>;

/// The queue is full, or the writer has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit queue is full or closed")]
pub struct QueueFull;

struct Item {
    event: Event,
    /// Whether somebody else keeps it until it is acknowledged, and hands it over again.
    is_kept: bool,
    ack: oneshot::Sender<Accepted>,
}

/// The way into the chain.
pub struct Writer {
    queue: mpsc::Sender<Item>,
    /// Those that somebody waits for: they pass all others.
    urgent: mpsc::Sender<Item>,
    stop: watch::Sender<Stop>,
    counters: ChainCounters,
}

/// The task behind it. It ends when the [`Writer`] is gone or was told to stop, and all is committed.
pub type Writing = JoinHandle<()>;

/// What the task is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Not,
    /// When all is committed.
    Committed,
    /// When all is on the disk.
    Kept,
}

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

    fn close(&mut self) {
        self.items.close();
        self.urgent.close();
    }

    /// Takes along what is there, those first that are waited for.
    fn fill(&mut self, batch: &mut Vec<Item>) {
        self.hurry(batch);
        while batch.len() < BATCH_MAX
            && let Ok(item) = self.items.try_recv()
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
        let (stop, stopped) = watch::channel(Stop::Not);
        let queues = Queues { items, urgent: urgent_items };
        let run = run(end, queues, stopped, clock, tick, counters.clone());
        let writing = tokio::spawn(run);
        (Self { queue, urgent, stop, counters }, writing)
    }

    /// Hands an event over without waiting. An `urgent` one is appended at once: for decisions and
    /// commands that wait for their event.
    pub fn submit(&self, event: Event, urgent: bool) -> Result<Acknowledged, QueueFull> {
        let handed = self.hand_over(event, urgent, false);
        if handed.is_err() {
            self.counters.dropped.inc();
        }
        handed
    }

    /// The same of an event that its maker keeps until it is acknowledged: what is not taken now is not lost.
    pub fn offer(&self, event: Event, urgent: bool) -> Result<Acknowledged, QueueFull> {
        self.hand_over(event, urgent, true)
    }

    fn hand_over(
        &self,
        event: Event,
        urgent: bool,
        is_kept: bool,
    ) -> Result<Acknowledged, QueueFull> {
        let (ack, acknowledged) = oneshot::channel();
        let queue = if urgent { &self.urgent } else { &self.queue };
        let handed = queue.try_send(Item { event, is_kept, ack });
        handed.map_err(|_full_or_closed| QueueFull)?;
        Ok(acknowledged)
    }

    /// Takes no more events; what was handed over is committed.
    pub fn stop(&self) {
        self.stop.send_replace(Stop::Committed);
    }

    /// There is no more time: what is left goes to the disk.
    pub fn keep_the_rest(&self) {
        self.stop.send_replace(Stop::Kept);
    }

    /// Events that nobody has taken out of the queues.
    pub fn queued(&self) -> u64 {
        let queues = [&self.queue, &self.urgent];
        let queued = queues.map(|queue| queue.max_capacity().saturating_sub(queue.capacity()));
        u64::try_from(queued.iter().sum::<usize>()).unwrap_or(u64::MAX)
    }
}

/// A signer that can be replaced.
pub fn shared(signer: Arc<dyn Signer + Send + Sync>) -> SharedSigner {
    Arc::new(RwLock::new(Some(signer)))
}

async fn run(
    mut end: ChainEnd,
    mut queues: Queues,
    mut stopped: watch::Receiver<Stop>,
    clock: Arc<dyn Clock>,
    tick: Duration,
    counters: ChainCounters,
) {
    let mut batch = Vec::new();
    let until = stopped.clone();
    tokio::select! {
        biased;
        () = told(&mut stopped, Stop::Kept) => {}
        () = serve(&mut end, &mut queues, &mut batch, until, clock.as_ref(), tick, &counters) => return,
    }
    queues.close();
    loop {
        // First the batch under way: whether it was appended, its ids tell.
        queues.fill(&mut batch);
        if batch.is_empty() {
            break;
        }
        let kept = end.keep(events(&batch)).await;
        answer(&mut batch, kept, &counters);
    }
}

/// Ends when the task is told that, or nobody can tell it any more.
async fn told(stopped: &mut watch::Receiver<Stop>, what: Stop) {
    if stopped.wait_for(|stop| *stop >= what).await.is_err() && what == Stop::Kept {
        // The writer is gone: what it handed over is committed.
        std::future::pending::<()>().await;
    }
}

/// May be dropped at any moment; `batch` is then what was not answered yet.
async fn serve(
    end: &mut ChainEnd,
    queues: &mut Queues,
    batch: &mut Vec<Item>,
    mut stopped: watch::Receiver<Stop>,
    clock: &dyn Clock,
    tick: Duration,
    counters: &ChainCounters,
) {
    // What a run before this one left.
    end.retry().await;
    loop {
        tokio::select! {
            biased;
            Some(item) = queues.urgent.recv() => {
                batch.push(item);
                queues.hurry(batch);
            }
            item = queues.items.recv() => match item {
                Some(item) => {
                    batch.push(item);
                    gather(batch, queues, clock, tick).await;
                }
                None => break,
            },
            () = told(&mut stopped, Stop::Committed) => break,
            () = clock.sleep(if end.looks_often() { LOOK_SOON } else { LOOK }) => {
                end.retry().await;
                continue;
            }
        }
        commit(end, batch, counters).await;
    }
    queues.close();
    loop {
        queues.fill(batch);
        if batch.is_empty() {
            break;
        }
        commit(end, batch, counters).await;
    }
    // The disk may not come back with the next run.
    end.hasten();
    end.retry().await;
    while end.has_spooled() && end.is_quiet() {
        clock.sleep(LOOK_SOON).await;
        end.retry().await;
    }
}

async fn gather(batch: &mut Vec<Item>, queues: &mut Queues, clock: &dyn Clock, tick: Duration) {
    let mut over = clock.sleep(tick);
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
            queues.hurry(batch);
            break;
        }
    }
}

fn events(batch: &[Item]) -> Vec<Event> {
    batch.iter().map(|item| item.event.clone()).collect()
}

async fn commit(end: &mut ChainEnd, batch: &mut Vec<Item>, counters: &ChainCounters) {
    let accepted = end.commit(events(batch)).await;
    answer(batch, accepted, counters);
}

fn answer(batch: &mut Vec<Item>, accepted: Result<Accepted, Lost>, counters: &ChainCounters) {
    let accepted = match accepted {
        Ok(accepted) => accepted,
        Err(refused) => {
            let lost = batch.drain(..).filter(|item| !item.is_kept).count();
            counters.dropped.inc_by(u64::try_from(lost).unwrap_or(u64::MAX));
            if lost > 0 {
                tracing::error!(critical = true, events = lost, error = %refused, "audit events are lost");
            }
            return;
        }
    };
    for item in batch.drain(..) {
        // Who asked may have left.
        if item.ack.send(accepted).is_err() {
            tracing::trace!("nobody waits for this event");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain_end::tests::{Mode, event, open_with, world};
    use crate::clock::SystemClock;

    /// A filter hands its events over again and again until they are acknowledged.
    #[tokio::test]
    async fn only_events_that_nobody_else_has_are_lost() {
        let (store, dir) = world();
        store.set(Mode::Gone);
        let counters = ChainCounters::default();
        let end = open_with(&store, dir.path(), 10);
        let clock = Arc::new(SystemClock::new());
        let (writer, writing) = Writer::start(end, clock, counters.clone(), TICK);
        for attempt in 0..3 {
            let offered = writer.offer(event("a-filters"), true).expect("room").await;
            assert!(offered.is_err(), "the spool is full: {attempt}");
        }
        assert_eq!(counters.dropped.get(), 0);
        assert!(writer.submit(event("own"), true).expect("room").await.is_err());
        assert_eq!(counters.dropped.get(), 1);
        // The same where the queue takes no more.
        writer.stop();
        writing.await.expect("it ends");
        assert!(writer.offer(event("a-filters"), true).is_err());
        assert_eq!(counters.dropped.get(), 1);
        assert!(writer.submit(event("own"), false).is_err());
        assert_eq!(counters.dropped.get(), 2);
    }
}
