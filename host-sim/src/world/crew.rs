//! The threads that run a world's VMs: all on one, or each on its own with one of them running at a time. It must not know events.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::options::HostOptions;
use crate::host::compile::Compiler;
use crate::host::load::StartError;
use crate::host::process::Process;
use crate::host::settings::ListenerSettings;
use crate::host::shared::SharedCell;
use crate::host::threads::{Plugin, ThreadOptions, Threads};
use crate::host::turnstile::{Stop, Turnstile};

/// Work for one seat.
pub(super) type Job = Box<dyn FnOnce(&mut Process) + Send>;

/// Who runs VMs. A seat is a process of its own where interleavings are explored, and there is but one otherwise.
pub(super) enum Crew {
    Together(Box<Process>),
    Apart { members: Vec<Member>, has_main: bool },
}

/// A thread that waits for jobs, and while it runs one, for its turn.
pub(super) struct Member {
    jobs: Option<Sender<Job>>,
    stops: Receiver<Stop>,
    go: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a thread needs to build its process.
struct Post {
    compiler: Compiler,
    plugins: Vec<Plugin>,
    options: ThreadOptions,
    shared: SharedCell,
    listener: ListenerSettings,
}

impl Crew {
    /// Builds all VMs, plugin by plugin, as Envoy does.
    pub(super) fn start(
        compiler: &Compiler,
        plugins: Vec<Plugin>,
        options: &HostOptions,
        shared: &SharedCell,
        is_apart: bool,
    ) -> Result<Self, StartError> {
        let plugin_count = plugins.len();
        let post = |options: ThreadOptions, listener| Post {
            compiler: compiler.clone(),
            plugins: plugins.clone(),
            options,
            shared: shared.clone(),
            listener,
        };
        let whole = post(options.threads.clone(), options.listener);
        let mut this = if is_apart {
            let members = seats(&options.threads)
                .into_iter()
                .map(|threads| Member::hire(post(threads, options.listener)))
                .collect();
            Self::Apart { members, has_main: options.threads.has_main }
        } else {
            Self::Together(Box::new(whole.process(None)))
        };
        for plugin in 0..plugin_count {
            for seat in 0..this.seat_count() {
                this.run(seat, move |process| process.threads.start_plugin(plugin))
                    .unwrap_or(Ok(()))?;
            }
        }
        Ok(this)
    }

    pub(super) fn seat_count(&self) -> usize {
        match self {
            Self::Together(_) => 1,
            Self::Apart { members, .. } => members.len(),
        }
    }

    pub(super) fn seat_of_worker(&self, worker: usize) -> usize {
        match self {
            Self::Together(_) => 0,
            Self::Apart { has_main, .. } => worker + usize::from(*has_main),
        }
    }

    /// Runs a job to its end; nobody else has a turn meanwhile.
    pub(super) fn run<R: Send + 'static>(
        &mut self,
        seat: usize,
        job: impl FnOnce(&mut Process) -> R + Send + 'static,
    ) -> Option<R> {
        if let Self::Together(process) = self {
            return Some(job(process));
        }
        let (answer, answered) = channel();
        let mut stop = self.begin(
            seat,
            Box::new(move |process| {
                // Nobody waits for the answer of a run that is over.
                if answer.send(job(process)).is_err() {}
            }),
        );
        while stop == Stop::AtCall {
            stop = self.go_on(seat);
        }
        answered.try_recv().ok()
    }

    /// Starts a job and says where it stopped.
    pub(super) fn begin(&mut self, seat: usize, job: Job) -> Stop {
        match self {
            Self::Together(process) => {
                job(process);
                Stop::Done
            }
            Self::Apart { members, .. } => {
                members.get_mut(seat).map_or(Stop::Done, |member| member.begin(job))
            }
        }
    }

    /// Gives a seat that stopped at a call its turn.
    pub(super) fn go_on(&mut self, seat: usize) -> Stop {
        match self {
            Self::Together(_) => Stop::Done,
            Self::Apart { members, .. } => members.get_mut(seat).map_or(Stop::Done, Member::go_on),
        }
    }
}

/// Main first, then each worker; the canary sits with the first.
fn seats(options: &ThreadOptions) -> Vec<ThreadOptions> {
    let mut seats = Vec::new();
    if options.has_main {
        seats.push(ThreadOptions { workers: 0..0, ..options.clone() });
    }
    for worker in options.workers.clone() {
        seats.push(ThreadOptions {
            workers: worker..worker + 1,
            has_main: false,
            ..options.clone()
        });
    }
    for (seat, options) in seats.iter_mut().enumerate() {
        options.seat = seat;
        options.has_canary &= seat == 0;
    }
    seats
}

impl Post {
    fn process(self, turnstile: Option<Turnstile>) -> Process {
        let Self { compiler, plugins, options, shared, listener } = self;
        let threads = Threads::new(&compiler, plugins, options, shared.clone(), turnstile);
        Process::new(threads, shared, listener)
    }
}

impl Member {
    fn hire(post: Post) -> Self {
        let (jobs, todo) = channel::<Job>();
        let (stopped, stops) = channel();
        let (go, turn) = channel();
        let thread = std::thread::spawn(move || {
            let mut process = post.process(Some(Turnstile::new(stopped.clone(), turn)));
            while let Ok(job) = todo.recv() {
                job(&mut process);
                if stopped.send(Stop::Done).is_err() {
                    return;
                }
            }
        });
        Self { jobs: Some(jobs), stops, go: Some(go), thread: Some(thread) }
    }

    fn begin(&mut self, job: Job) -> Stop {
        match &self.jobs {
            Some(jobs) if jobs.send(job).is_ok() => self.stop(),
            _ => Stop::Done,
        }
    }

    fn go_on(&mut self) -> Stop {
        match &self.go {
            Some(go) if go.send(()).is_ok() => self.stop(),
            _ => Stop::Done,
        }
    }

    fn stop(&self) -> Stop {
        self.stops.recv().unwrap_or(Stop::Done)
    }
}

impl Drop for Member {
    /// A member that waits for its turn goes on to its end, and then finds no more jobs.
    fn drop(&mut self) {
        self.jobs = None;
        self.go = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // Its panic was printed where it happened.
        }
    }
}
