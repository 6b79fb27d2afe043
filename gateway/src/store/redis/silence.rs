//! Owns how many calls may wait for one node of a Cluster that answers nobody. Knows no connections.
//!
//! The places of the gateway are for all nodes: without this bound one that stands still would take them all,
//! and the clients of the others would be turned away. So what is counted is places: a message has one, however many
//! calls it makes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::store::StoreFailure;

/// So many may wait for a node that is silent.
const WAITING_MAX: usize = 16;
/// A node that answered nobody for that long, while calls waited, is silent.
const SILENT_US: u64 = 50_000;

/// What one node was asked and has not answered.
pub struct Silence {
    clock: Arc<dyn Clock>,
    /// So many may wait, whatever the node does.
    waiting_max: usize,
    /// Places.
    waiting: AtomicUsize,
    /// How many calls wait of each message that has several.
    messages: Mutex<HashMap<Message, usize>>,
    /// Those that stand behind others on purpose, as many again at most. That they hear nothing says nothing of the node,
    /// and they have no place of the gateway's that others could miss.
    behind: AtomicUsize,
    /// When it last answered, or when the first of those that wait began to.
    heard_us: AtomicU64,
    /// The last that waited did so in vain.
    suspect: AtomicBool,
}

/// A message of many calls, which have one place together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message(u64);

/// How a call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It is all that its place is for.
    Alone,
    /// The message is waited for in any case.
    OneOf(Message),
    /// It stands behind others on purpose, which wait for so many replicas: it hears nothing for as long as they last,
    /// and takes that for no silence.
    Behind(u8),
}

/// A call that waits.
pub struct Waiting<'s> {
    silence: &'s Silence,
    manner: Manner,
    heard: bool,
}

// === impl Message ===

impl Message {
    /// Another than all before.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

// === impl Silence ===

impl Silence {
    /// Of a node that nobody has asked, where `places` calls are under way at most: half of them may wait for one.
    pub fn new(clock: Arc<dyn Clock>, places: usize) -> Self {
        Self {
            waiting_max: (places / 2).max(1),
            clock,
            waiting: AtomicUsize::new(0),
            messages: Mutex::default(),
            behind: AtomicUsize::new(0),
            heard_us: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
        }
    }

    /// Lets a call that is about to be sent wait. `Timeout` where the node is silent: it would wait in vain. `Crowded`
    /// where it answers, and enough wait.
    pub fn enter(&self, manner: Manner) -> Result<Waiting<'_>, StoreFailure> {
        let takes = match manner {
            Manner::Alone => self.takes_one(),
            Manner::OneOf(message) => self.takes_one_of(message),
            Manner::Behind(_) => self.takes_behind(),
        };
        match (takes, manner) {
            (true, _) => Ok(Waiting { silence: self, manner, heard: false }),
            (false, Manner::Alone | Manner::OneOf(_)) if self.is_silent() => {
                Err(StoreFailure::Timeout)
            }
            (false, _) => Err(StoreFailure::Crowded),
        }
    }

    fn takes_one(&self) -> bool {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let takes = self.bears(before);
        if !takes {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        takes
    }

    fn bears(&self, before: usize) -> bool {
        if before >= self.waiting_max {
            return false;
        }
        if before == 0 && !self.suspect.load(Ordering::Relaxed) {
            self.heard_us.store(self.clock.elapsed_us(), Ordering::Relaxed);
        }
        before < WAITING_MAX || !self.is_silent()
    }

    /// A message that waits already may as well send the rest, unless that would be in vain.
    fn takes_one_of(&self, message: Message) -> bool {
        let mut messages = self.messages();
        let takes = match messages.get(&message) {
            Some(_) => !self.is_silent(),
            None => self.takes_one(),
        };
        if takes {
            let calls = messages.entry(message).or_default();
            *calls = calls.saturating_add(1);
        }
        takes
    }

    fn takes_behind(&self) -> bool {
        let takes = self.behind.fetch_add(1, Ordering::Relaxed) < self.waiting_max;
        if !takes {
            self.behind.fetch_sub(1, Ordering::Relaxed);
        }
        takes
    }

    fn leaves(&self, manner: Manner) {
        match manner {
            Manner::Behind(_) => _ = self.behind.fetch_sub(1, Ordering::Relaxed),
            Manner::Alone => _ = self.waiting.fetch_sub(1, Ordering::Relaxed),
            Manner::OneOf(message) => {
                let mut messages = self.messages();
                let Some(calls) = messages.get_mut(&message) else { return };
                *calls = calls.saturating_sub(1);
                if *calls == 0 {
                    messages.remove(&message);
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn is_silent(&self) -> bool {
        let heard_us = self.heard_us.load(Ordering::Relaxed);
        self.clock.elapsed_us().saturating_sub(heard_us) >= SILENT_US
    }

    /// A count is whole between its steps.
    fn messages(&self) -> MutexGuard<'_, HashMap<Message, usize>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting<'_> {
    /// The node has answered, whatever it said.
    pub fn heard(mut self) {
        self.heard = true;
        self.silence.heard_us.store(self.silence.clock.elapsed_us(), Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !matches!(self.manner, Manner::Behind(_)) {
            self.silence.suspect.store(!self.heard, Ordering::Relaxed);
        }
        self.silence.leaves(self.manner);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    fn turned_away(silence: &Silence) -> StoreFailure {
        silence.enter(Manner::Alone).err().expect("enough wait")
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_keeps_sixteen_waiting_and_a_slow_one_as_many_as_come() {
        let silence = Silence::new(Arc::new(ManualClock::at(0)), 100);
        let pass = async |ms| tokio::time::advance(Duration::from_millis(ms)).await;
        pass(1_000).await;
        let mut waiting: Vec<Waiting<'_>> =
            (0..49).map(|_| silence.enter(Manner::Alone).expect("new")).collect();
        pass(49).await;
        waiting.push(silence.enter(Manner::Alone).expect("not silent yet"));
        assert_eq!(turned_away(&silence), StoreFailure::Crowded, "half of the places");
        waiting.pop();
        pass(1).await;
        assert_eq!(turned_away(&silence), StoreFailure::Timeout);
        pass(1).await;
        assert!(silence.enter(Manner::Behind(1)).is_ok(), "behind others");
        assert!(
            silence.enter(Manner::Alone).is_err(),
            "who stood behind others was not sent in vain"
        );
        waiting.swap_remove(0).heard();
        assert!(silence.enter(Manner::Alone).is_ok(), "it answers, if slowly");
        // All give up at once. That is no new beginning: sixteen try.
        pass(50).await;
        waiting.clear();
        pass(5_000).await;
        waiting.extend((0..16).map(|_| silence.enter(Manner::Alone).expect("a try")));
        assert!(silence.enter(Manner::Alone).is_err());
        drop(waiting.pop());
        waiting.push(silence.enter(Manner::Alone).expect("one of them gave up, another may try"));
        assert!(silence.enter(Manner::Alone).is_err());
        waiting.into_iter().for_each(Waiting::heard);
        pass(5_000).await;
        let again: Vec<Waiting<'_>> =
            (0..17).map(|_| silence.enter(Manner::Alone).expect("calm")).collect();
        assert_eq!(again.len(), 17, "nobody waited meanwhile: that is no silence");
    }

    /// Claims that wait for replicas hear nothing for as long as WAIT lasts: no silence for anybody else. They have given
    /// their places back, so they keep nobody else from the node either, however many they are.
    #[tokio::test(start_paused = true)]
    async fn those_that_stand_behind_others_on_purpose_make_no_node_silent() {
        let silence = Silence::new(Arc::new(ManualClock::at(0)), 100);
        let behind: Vec<_> =
            (0..50).map(|_| silence.enter(Manner::Behind(1)).expect("room")).collect();
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(silence.enter(Manner::Behind(1)).is_err(), "as many as half of the places");
        let calls: Vec<_> = (0..50).map(|_| silence.enter(Manner::Alone).expect("room")).collect();
        assert!(silence.enter(Manner::Alone).is_err(), "half of the places");
        calls.into_iter().for_each(Waiting::heard);
        drop(behind);
        tokio::time::advance(Duration::from_secs(5)).await;
        let calls: Vec<_> = (0..17).map(|_| silence.enter(Manner::Alone).expect("calm")).collect();
        assert_eq!(calls.len(), 17, "and what came of them says nothing");
    }

    /// A place is one message, however many calls it makes: those of one never keep each other from a node that answers.
    #[tokio::test(start_paused = true)]
    async fn the_calls_of_one_message_count_once() {
        let silence = Silence::new(Arc::new(ManualClock::at(0)), 10);
        let pass = async |ms| tokio::time::advance(Duration::from_millis(ms)).await;
        pass(1_000).await;
        let messages: [Message; 6] = std::array::from_fn(|_| Message::new());
        let one_of = |at: usize| silence.enter(Manner::OneOf(messages[at]));
        let mut waiting: Vec<Vec<Waiting<'_>>> =
            (0..5).map(|at| (0..100).map(|_| one_of(at).expect("room")).collect()).collect();
        assert!(one_of(5).is_err() && silence.enter(Manner::Alone).is_err(), "five of ten places");
        pass(49).await;
        let mut last = waiting.pop().expect("five");
        last.truncate(1);
        last.push(one_of(4).expect("it has its place still"));
        assert!(one_of(5).is_err());
        last.clear();
        waiting.push(vec![one_of(5).expect("the place of the one that ended")]);
        assert!(one_of(4).is_err());
        pass(1).await;
        assert!(one_of(0).is_err(), "silent: the rest would be sent in vain");
        waiting[0].pop().expect("many").heard();
        waiting[0].push(one_of(0).expect("it answers"));
        drop(waiting);
        pass(5_000).await;
        // They gave up: one try for each, and no second one.
        let tries: Vec<_> = (0..5).map(|at| one_of(at).expect("a try")).collect();
        assert!((0..6).all(|at| one_of(at).is_err()));
        tries.into_iter().for_each(Waiting::heard);
        assert!(silence.messages().is_empty() && silence.waiting.load(Ordering::Relaxed) == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn of_few_places_half_are_fewer_than_sixteen() {
        for (places, most) in [(1, 1), (10, 5), (31, 15)] {
            let silence = Silence::new(Arc::new(ManualClock::at(0)), places);
            let waiting: Vec<_> =
                std::iter::from_fn(|| silence.enter(Manner::Alone).ok()).collect();
            assert_eq!(waiting.len(), most, "{places}");
        }
    }
}
