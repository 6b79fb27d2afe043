//! Owns the cores: threads with a runtime of their own, on each of which connections live together with all that
//! answers them. Knows no HTTP and no store.
//!
//! Why not one runtime that shares its work: record 0073.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::own_thread::OwnThread;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The index of the core that this runs on; 0 on a thread that is none.
pub fn current() -> usize {
    CURRENT.get()
}

/// The threads that answer. They end, whatever they do, once this is gone.
pub struct Cores {
    first: Core,
    others: Vec<Core>,
}

struct Core {
    handle: Handle,
    places: Arc<AtomicUsize>,
    _thread: Option<OwnThread>,
}

/// What lives on one core until it is dropped.
pub struct Place {
    handle: Handle,
    places: Arc<AtomicUsize>,
}

/// One of a thing for each core.
pub struct PerCore<T> {
    first: T,
    others: Vec<T>,
}

// === impl Cores ===

impl Cores {
    /// No thread of its own: everything lives in the runtime that this is called in. Panics outside one.
    pub fn here() -> Self {
        let first = Core { handle: Handle::current(), places: Arc::default(), _thread: None };
        Self { first, others: Vec::new() }
    }

    /// Starts `count` threads, at least one.
    pub fn start(count: usize) -> io::Result<Self> {
        let first = Core::start(0)?;
        let others = (1..count).map(Core::start).collect::<Result<_, _>>()?;
        Ok(Self { first, others })
    }

    /// How many there are, at least one.
    pub fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// A place on the core that has the fewest.
    pub fn place(&self) -> Place {
        let emptiest = self
            .others
            .iter()
            .fold(&self.first, |least, core| if core.held() < least.held() { core } else { least });
        emptiest.places.fetch_add(1, Ordering::Relaxed);
        Place { handle: emptiest.handle.clone(), places: Arc::clone(&emptiest.places) }
    }

    /// Starts a task on a core; an index beyond the last counts on from the first.
    pub fn spawn<F>(&self, index: usize, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.handle(index).spawn(task)
    }

    /// The runtimes, in the order of the cores' indices.
    pub fn handles(&self) -> impl Iterator<Item = &Handle> {
        [&self.first].into_iter().chain(&self.others).map(|core| &core.handle)
    }

    /// One of the thing for each.
    pub fn each<T>(&self, make: impl Fn() -> T) -> PerCore<T> {
        PerCore { first: make(), others: self.others.iter().map(|_| make()).collect() }
    }

    fn handle(&self, index: usize) -> &Handle {
        let index = index.checked_rem(self.count()).unwrap_or(0);
        let other = index.checked_sub(1).and_then(|index| self.others.get(index));
        &other.unwrap_or(&self.first).handle
    }
}

// === impl Core ===

impl Core {
    fn start(index: usize) -> io::Result<Self> {
        let thread = OwnThread::start(format!("core-{index}"), move || CURRENT.set(index))?;
        Ok(Self { handle: thread.handle(), places: Arc::default(), _thread: Some(thread) })
    }

    fn held(&self) -> usize {
        self.places.load(Ordering::Relaxed)
    }
}

// === impl Place ===

impl Place {
    /// The runtime there.
    pub fn core(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl PerCore ===

impl<T> PerCore<T> {
    /// One, whichever core asks.
    pub fn alone(one: T) -> Self {
        Self { first: one, others: Vec::new() }
    }

    /// The current core's.
    pub fn mine(&self) -> &T {
        let other = current().checked_sub(1).and_then(|index| self.others.get(index));
        other.unwrap_or(&self.first)
    }

    /// Everybody's.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        [&self.first].into_iter().chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn each_core_is_a_thread_that_knows_its_index() {
        let cores = Cores::start(3).expect("threads");
        let mut names = Vec::new();
        for index in 0..4 {
            let told = cores
                .spawn(index, async { (current(), thread::current().name().map(str::to_owned)) });
            names.push(told.await.expect("an answer"));
        }
        let core = |index: usize| (index, Some(format!("core-{index}")));
        assert_eq!(names, [core(0), core(1), core(2), core(0)]);
        assert_eq!(current(), 0, "the caller's thread is none of them");
    }

    #[tokio::test]
    async fn connections_are_spread_and_a_place_that_is_free_is_taken_again() {
        let cores = Cores::start(3).expect("threads");
        let mut places = Vec::new();
        for _ in 0..6 {
            places.push(cores.place());
        }
        let held = || [&cores.first, &cores.others[0], &cores.others[1]].map(Core::held);
        assert_eq!(held(), [2, 2, 2]);
        places.remove(4);
        assert_eq!(held(), [2, 1, 2]);
        places.push(cores.place());
        assert_eq!(held(), [2, 2, 2]);
    }

    #[tokio::test]
    async fn each_core_has_its_own_of_a_thing() {
        let cores = Cores::start(2).expect("threads");
        let counts = Arc::new(cores.each(|| AtomicUsize::new(0)));
        for index in [0, 1, 1] {
            let counts = Arc::clone(&counts);
            let counted =
                cores.spawn(index, async move { counts.mine().fetch_add(1, Ordering::Relaxed) });
            counted.await.expect("counted");
        }
        let all: Vec<usize> = counts.all().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(all, [1, 2]);
    }

    #[tokio::test]
    async fn what_runs_on_a_core_ends_with_it() {
        struct Told(Option<oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.take().map(|told| told.send(()));
            }
        }
        let cores = Cores::start(1).expect("a thread");
        let (told, ended) = oneshot::channel();
        let held = Told(Some(told));
        let endless = cores.spawn(0, async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(cores);
        ended.await.expect("dropped with its runtime");
        assert!(endless.await.is_err());
    }
}
