//! Owns group commit: events are gathered for a tick, or until a batch is full, and appended together.
//! Knows neither stores nor hashes.

use std::sync::atomic::{AtomicU64, Ordering};
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
/// Places of a batch that those that are waited for leave to all others: there may always be somebody who waits.
const OTHERS: usize = BATCH_MAX / 4;
/// Between two looks at the store, and attempts to empty the spool, while no events come.
const LOOK: Duration = Duration::from_secs(1);

/// Answers once the event is in the chain or on the disk; an end without answer means that it is lost.
pub type Acknowledged = oneshot::Receiver<Accepted>;

/// The queue is full, or the writer has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit queue is full or closed")]
pub struct QueueFull;

/// How soon an event is appended that its maker keeps until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// With all that come within a tick.
    Gathered,
    /// At once with those before it: whoever sent it sends no more until it is acknowledged, and more wait there.
    Last,
    /// At once, before all that nobody waits for.
    Urgent,
}

struct Item {
    event: Event,
    haste: Haste,
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
    tally: Tally,
}

/// What is counted, here and in the task.
#[derive(Clone)]
struct Tally {
    counters: ChainCounters,
    /// Events that nobody else keeps and that were not answered yet.
    owed: Arc<AtomicU64>,
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
    /// Takes along all others that are waited for, as far as they are there and the batch has so many places.
    fn hurry(&mut self, batch: &mut Vec<Item>, places: usize) {
        while batch.len() < places
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
        self.hurry(batch, BATCH_MAX - OTHERS);
        while batch.len() < BATCH_MAX
            && let Ok(item) = self.items.try_recv()
        {
            batch.push(item);
        }
        self.hurry(batch, BATCH_MAX);
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
        let tally = Tally { counters, owed: Arc::default() };
        let run = run(end, queues, stopped, clock, tick, tally.clone());
        let writing = tokio::spawn(run);
        (Self { queue, urgent, stop, tally }, writing)
    }

    /// Hands an event over without waiting. An `urgent` one is appended at once: for decisions and
    /// commands that wait for their event.
    pub fn submit(&self, event: Event, urgent: bool) -> Result<Acknowledged, QueueFull> {
        let haste = if urgent { Haste::Urgent } else { Haste::Gathered };
        let handed = self.hand_over(event, haste, false);
        if handed.is_err() {
            self.tally.counters.dropped.inc();
        }
        handed
    }

    /// The same of an event that its maker keeps until it is acknowledged: what is not taken now is not lost.
    pub fn offer(&self, event: Event, haste: Haste) -> Result<Acknowledged, QueueFull> {
        self.hand_over(event, haste, true)
    }

    fn hand_over(
        &self,
        event: Event,
        haste: Haste,
        is_kept: bool,
    ) -> Result<Acknowledged, QueueFull> {
        let (ack, acknowledged) = oneshot::channel();
        let queue = if haste == Haste::Urgent { &self.urgent } else { &self.queue };
        // Before the task can answer it.
        let room = queue.try_reserve().map_err(|_full_or_closed| QueueFull)?;
        self.tally.owed.fetch_add(u64::from(!is_kept), Ordering::SeqCst);
        room.send(Item { event, haste, is_kept, ack });
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

    /// Events that were handed over and neither answered nor are kept by who made them.
    pub fn owed(&self) -> u64 {
        self.tally.owed.load(Ordering::SeqCst)
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
    tally: Tally,
) {
    let mut batch = Vec::new();
    let until = stopped.clone();
    tokio::select! {
        biased;
        () = told(&mut stopped, Stop::Kept) => {}
        () = serve(&mut end, &mut queues, &mut batch, until, clock.as_ref(), tick, &tally) => {}
    }
    queues.close();
    loop {
        // First the batch under way: whether it was appended, its ids tell.
        queues.fill(&mut batch);
        if batch.is_empty() {
            break;
        }
        let kept = end.keep(events(&batch)).await;
        answer(&mut batch, kept, &tally);
    }
    end.leave();
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
    tally: &Tally,
) {
    // What a run before this one left.
    end.retry().await;
    loop {
        tokio::select! {
            biased;
            Some(item) = queues.urgent.recv() => {
                batch.push(item);
                queues.fill(batch);
            }
            item = queues.items.recv() => match item {
                Some(item) => {
                    let haste = item.haste;
                    batch.push(item);
                    gather(batch, haste, queues, clock, tick).await;
                }
                None => break,
            },
            () = told(&mut stopped, Stop::Committed) => break,
            () = clock.sleep(until_look(end)) => {
                end.retry().await;
                continue;
            }
        }
        commit(end, batch, tally).await;
        if end.drains() {
            // Where events come without a rest there would be no look.
            end.retry().await;
        }
    }
    queues.close();
    loop {
        queues.fill(batch);
        if batch.is_empty() {
            break;
        }
        commit(end, batch, tally).await;
    }
    // The disk may not come back with the next run.
    end.hasten();
    end.retry().await;
    while end.drains() || end.has_spooled() && end.is_quiet() {
        clock.sleep(until_look(end)).await;
        end.retry().await;
    }
}

fn until_look(end: &ChainEnd) -> Duration {
    match (end.drains(), end.looks_often()) {
        (true, _) => Duration::ZERO,
        (false, true) => LOOK_SOON,
        (false, false) => LOOK,
    }
}

/// Behind an event of that haste.
async fn gather(
    batch: &mut Vec<Item>,
    mut haste: Haste,
    queues: &mut Queues,
    clock: &dyn Clock,
    tick: Duration,
) {
    let mut over = clock.sleep(tick);
    while batch.len() < BATCH_MAX && haste == Haste::Gathered {
        let item = tokio::select! {
            biased;
            Some(item) = queues.urgent.recv() => Some(item),
            item = queues.items.recv() => item,
            () = &mut over => None,
        };
        let Some(item) = item else { break };
        haste = item.haste;
        batch.push(item);
    }
    if haste == Haste::Urgent {
        queues.hurry(batch, BATCH_MAX);
    }
}

fn events(batch: &[Item]) -> Vec<Event> {
    batch.iter().map(|item| item.event.clone()).collect()
}

async fn commit(end: &mut ChainEnd, batch: &mut Vec<Item>, tally: &Tally) {
    let accepted = end.commit(events(batch)).await;
    answer(batch, accepted, tally);
}

fn answer(batch: &mut Vec<Item>, accepted: Result<Accepted, Lost>, tally: &Tally) {
    let own = batch.iter().filter(|item| !item.is_kept).count();
    let own = u64::try_from(own).unwrap_or(u64::MAX);
    tally.owed.fetch_sub(own, Ordering::SeqCst);
    let accepted = match accepted {
        Ok(accepted) => accepted,
        Err(refused) => {
            batch.clear();
            tally.counters.dropped.inc_by(own);
            if own > 0 {
                tracing::error!(critical = true, events = own, error = %refused, "audit events are lost");
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
    use tidegate_policy::audit::verify::Verdict;
    use tidegate_tests::eventually;

    use super::*;
    use crate::audit::chain_end::tests::{Mode, event, open_with, verify, world};
    use crate::audit::ring::Ring;
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
            let offered = writer.offer(event("a-filters"), Haste::Urgent).expect("room").await;
            assert!(offered.is_err(), "the spool is full: {attempt}");
        }
        assert_eq!(counters.dropped.get(), 0);
        assert!(writer.submit(event("own"), true).expect("room").await.is_err());
        assert_eq!(counters.dropped.get(), 1);
        // The same where the queue takes no more.
        writer.stop();
        writing.await.expect("it ends");
        assert!(writer.offer(event("a-filters"), Haste::Urgent).is_err());
        assert_eq!(counters.dropped.get(), 1);
        assert!(writer.submit(event("own"), false).is_err());
        assert_eq!(counters.dropped.get(), 2);
    }

    /// A disk that was full when the gateway began, and is not any more.
    #[tokio::test(start_paused = true)]
    async fn what_was_appended_on_a_full_disk_is_on_it_after_a_while_and_after_the_end() {
        for is_end in [false, true] {
            let (store, dir) = world();
            let full = dir.path().join("recent.new");
            std::fs::create_dir(&full).expect("made");
            let end = open_with(&store, dir.path(), 1_000_000);
            let clock = Arc::new(SystemClock::new());
            let (writer, writing) = Writer::start(end, clock, ChainCounters::default(), TICK);
            let appended = writer.submit(event("first"), true).expect("room").await;
            assert_eq!(appended, Ok(Accepted::Chained));
            std::fs::remove_dir(&full).expect("removed");
            if is_end {
                writer.stop();
                writing.await.expect("it ends");
            } else {
                tokio::time::sleep(std::time::Duration::from_secs(40)).await;
                writing.abort();
                assert!(writing.await.is_err(), "it was killed");
            }
            let ring = Ring::open(dir.path()).expect("opened");
            assert_eq!(ring.appends().count(), 1, "at the end: {is_end}");
        }
    }

    /// Those of the batch under way are in no queue; what a filter has it hands over again.
    #[tokio::test]
    async fn what_nobody_has_answered_is_owed_wherever_it_is() {
        let (store, dir) = world();
        let end = open_with(&store, dir.path(), 1_000_000);
        let clock = Arc::new(SystemClock::new());
        let (writer, writing) = Writer::start(end, clock, ChainCounters::default(), TICK);
        let first = writer.submit(event("first"), true).expect("room");
        assert_eq!((first.await, writer.owed()), (Ok(Accepted::Chained), 0));
        store.set(Mode::Never);
        let of_the_batch = [
            writer.submit(event("own"), true).expect("room"),
            writer.offer(event("a-filters"), Haste::Urgent).expect("room"),
        ];
        store.asked.notified().await;
        let queued = [
            writer.submit(event("own-too"), false).expect("room"),
            writer.submit(event("own-urgent"), true).expect("room"),
            writer.offer(event("a-filters-too"), Haste::Gathered).expect("room"),
        ];
        assert_eq!(writer.owed(), 3);
        writer.stop();
        writer.keep_the_rest();
        writing.await.expect("it ends");
        for acknowledged in of_the_batch.into_iter().chain(queued) {
            assert_eq!(acknowledged.await, Ok(Accepted::Spooled));
        }
        assert_eq!(writer.owed(), 0);
    }

    /// Under load there is always somebody who waits for an event.
    #[tokio::test(start_paused = true)]
    async fn events_that_are_waited_for_leave_room_for_the_others() {
        let (store, dir) = world();
        let end = open_with(&store, dir.path(), 1_000_000);
        let clock = Arc::new(SystemClock::new());
        let (writer, writing) = Writer::start(end, clock, ChainCounters::default(), TICK);
        let writer = Arc::new(writer);
        store.set(Mode::Slow);
        let mut waits = tokio::task::JoinSet::new();
        // More than a batch of them, each with the next one as soon as it is answered.
        for client in 0..2 * BATCH_MAX {
            let writer = Arc::clone(&writer);
            waits.spawn(async move {
                for number in 0..5 {
                    let event = event(&format!("waits-{client}-{number}"));
                    let accepted = writer.submit(event, true).expect("room").await;
                    assert_eq!(accepted, Ok(Accepted::Chained));
                }
            });
        }
        tokio::task::yield_now().await;
        let other = writer.submit(event("other"), false).expect("room");
        assert_eq!(other.await, Ok(Accepted::Chained));
        assert!(waits.try_join_next().is_none(), "it came after one of them was done");
        waits.join_all().await;
        writer.stop();
        writing.await.expect("it ends");
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.len()), (Verdict::Valid, 10 * BATCH_MAX + 1));
    }

    /// At most 64 are appended together, and whoever completes a batch ends the tick.
    #[tokio::test(start_paused = true)]
    async fn events_are_gathered_for_a_tick_or_until_a_batch_is_full() {
        let (store, dir) = world();
        let end = open_with(&store, dir.path(), 1_000_000);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let counters = ChainCounters::default();
        let (writer, writing) = Writer::start(end, Arc::clone(&clock), counters, TICK);
        let (gathered, last) = (Haste::Gathered, Haste::Last);
        let rows = [
            (64, gathered, 1, 0),
            (63, gathered, 1, 50_000),
            (65, gathered, 2, 50_000),
            (1, last, 1, 0),
            (63, last, 1, 0),
            (65, last, 2, 0),
        ];
        for (row, (count, haste, batches, waits_us)) in rows.into_iter().enumerate() {
            let (before, since_us) = (store.appends(), clock.elapsed_us());
            let offer = |n| {
                let haste = if n == count { haste } else { gathered };
                writer.offer(event(&format!("e-{row}-{n}")), haste).expect("room")
            };
            let acknowledged: Vec<_> = (1..=count).map(offer).collect();
            for accepted in acknowledged {
                assert_eq!(accepted.await, Ok(Accepted::Chained));
            }
            assert_eq!(store.appends() - before, batches, "{count}");
            let waited_us = clock.elapsed_us() - since_us;
            // The clock of a test stands still but for what is waited for, in steps of a ms.
            assert!((waits_us..=waits_us + 1_000).contains(&waited_us), "{count}: {waited_us}");
        }
        writer.stop();
        writing.await.expect("it ends");
    }

    /// The store was away for long, and takes a batch a second since: a command does not wait for all of them.
    #[tokio::test(start_paused = true)]
    async fn what_waits_on_the_disk_keeps_nobody_waiting_and_goes_first() {
        let (store, dir) = world();
        let mut end = open_with(&store, dir.path(), 1_000_000);
        let mut expected = Vec::new();
        for batch in 0..20 {
            let ids: Vec<String> =
                (0..BATCH_MAX).map(|number| format!("e-{batch}-{number}")).collect();
            end.keep(ids.iter().map(|id| event(id)).collect()).await.expect("on the disk");
            expected.extend(ids);
        }
        store.set(Mode::Slow);
        let clock = Arc::new(SystemClock::new());
        let counters = ChainCounters::default();
        let (writer, writing) = Writer::start(end, clock, counters.clone(), TICK);
        for (number, urgent) in [(1, true), (2, false), (3, true), (4, false)] {
            let before = store.appends();
            let id = format!("new-{number}");
            let accepted = writer.submit(event(&id), urgent).expect("room").await;
            assert_eq!(accepted, Ok(Accepted::Spooled), "{id}");
            // The look under way, and the batch before it goes to the disk.
            assert!(store.appends() <= before + 3, "{id}: {}", store.appends());
            expected.push(id);
        }
        // The rest leaves although nothing comes any more, and what comes then waits for nothing.
        eventually(Duration::from_secs(60), "the spool is empty", async || {
            if store.appends() >= 21 { Ok(()) } else { Err(store.appends()) }
        })
        .await;
        store.set(Mode::Up);
        let last = writer.submit(event("last"), true).expect("room").await;
        assert_eq!(last, Ok(Accepted::Chained));
        expected.push("last".to_owned());
        writer.stop();
        writing.await.expect("it ends");
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids), (Verdict::Valid, expected));
        assert_eq!(counters.dropped.get(), 0);
    }
}
