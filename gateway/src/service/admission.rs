//! Owns the bound on store calls under way and the two deadlines: how long a caller waits for a
//! place, and how long for everything. Knows nothing of what is called.
//!
//! A place is held until its call has really ended, not until its caller stopped waiting; so at
//! most `max_in_flight` calls are ever out, however long a store hangs. Source: product rows A4 to A6.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::statistics::Statistics;
use crate::clock::{Clock, whole_us};
use crate::metrics::{Held, Metrics, SharedMetrics};
use crate::throttle::Throttle;

/// How often exhaustion is logged.
const EXHAUSTED_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The bound and the deadlines. In order: `pool_wait < deadline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// Calls that may be out at once, at least 1.
    pub max_in_flight: usize,
    /// How long a caller waits for a place.
    pub pool_wait: Duration,
    /// How long a decision may take, the wait included.
    pub deadline: Duration,
}

/// Why a call has no outcome for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDone {
    /// There was no place within the pool wait; nothing was called.
    Overloaded,
    /// The deadline passed while the call was out; it goes on and keeps its place.
    Late {
        /// When the caller came, on the clock's stopwatch.
        begun_us: u64,
        /// How long ago the deadline was when it was seen to have passed, in µs.
        by_us: u64,
    },
}

/// The bound.
pub struct Admission {
    settings: AdmissionSettings,
    places: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    metrics: SharedMetrics,
    exhausted: Throttle,
}

/// A place that is taken; counted for as long as it lives.
struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Held,
}

/// What a call leaves behind that goes on after its caller was answered.
#[derive(Debug, Clone, Copy)]
pub enum Leaves {
    /// Nothing that anybody misses.
    Nothing,
    /// A claim, which has to be given back.
    Claim,
    /// Less than there was: it ends a claim, for which others wait. Asked also of a store that is left alone: a stall
    /// of a moment must not leave keys locked for hours.
    End,
}

// === impl Admission ===

impl Admission {
    /// All places are free.
    pub fn new(settings: AdmissionSettings, clock: Arc<dyn Clock>, metrics: SharedMetrics) -> Self {
        let max = settings.max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        metrics.in_flight_max.set(i64::try_from(max).unwrap_or(i64::MAX));
        Self {
            settings,
            places: Arc::new(Semaphore::new(max)),
            clock,
            metrics,
            exhausted: Throttle::new(1, whole_us(EXHAUSTED_LOG_INTERVAL)),
        }
    }

    /// Runs what `call` makes, once there is a place for it.
    pub async fn run<F>(&self, call: impl FnOnce() -> F) -> Result<F::Output, NotDone>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let begun_us = self.clock.elapsed_us();
        let place = self.enter().await?;
        let call = call();
        let mut work = Lasting::new(
            async move {
                let outcome = call.await;
                drop(place);
                outcome
            },
            &self.metrics,
        );
        // A store in memory has answered by now, and needs no timer.
        let first = poll_fn(|context| Poll::Ready(Pin::new(&mut work).poll(context))).await;
        if let Poll::Ready(outcome) = first {
            return Ok(outcome);
        }
        let spent = Duration::from_micros(self.clock.elapsed_us().saturating_sub(begun_us));
        let deadline = self.clock.sleep(self.settings.deadline.saturating_sub(spent));
        tokio::select! {
            biased;
            outcome = &mut work => Ok(outcome),
            () = deadline => {
                let spent_us = self.clock.elapsed_us().saturating_sub(begun_us);
                let by_us = spent_us.saturating_sub(whole_us(self.settings.deadline));
                Err(NotDone::Late { begun_us, by_us })
            }
        }
    }

    /// How it is set up.
    pub fn settings(&self) -> AdmissionSettings {
        self.settings
    }

    async fn enter(&self) -> Result<Place, NotDone> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => self.wait().await?,
        };
        let counted = Held::new(&self.metrics.in_flight);
        self.peak(self.metrics.in_flight.get());
        Ok(Place { _permit: permit, _counted: counted })
    }

    /// The statistics since they were last taken.
    pub fn statistics(&self) -> Statistics {
        let Metrics {
            in_flight, in_flight_peak, waiting, waits, acquire_timeouts, outlived, ..
        } = self.metrics.as_ref();
        let now = in_flight.get();
        Statistics {
            in_flight: now,
            // What is under way now is where the next interval begins.
            in_flight_peak: in_flight_peak.set(now).max(now),
            in_flight_max: self.metrics.in_flight_max.get(),
            waiting: waiting.get(),
            waits: waits.get(),
            acquire_timeouts: acquire_timeouts.get(),
            outlived: outlived.get(),
        }
    }

    /// Seldom more than a look: most calls are no peak.
    fn peak(&self, now: i64) {
        let peak = &self.metrics.in_flight_peak;
        if now > peak.get() {
            peak.inner().fetch_max(now, Ordering::Relaxed);
        }
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, NotDone> {
        self.metrics.waits.inc();
        let _waiting = Held::new(&self.metrics.waiting);
        let patience = self.clock.sleep(self.settings.pool_wait);
        tokio::select! {
            biased;
            // The semaphore is never closed; were it, that would be an overload too.
            Ok(permit) = Arc::clone(&self.places).acquire_owned() => Ok(permit),
            () = patience => Err(self.overloaded()),
        }
    }

    /// Counts and tells that a bound on calls turned one away.
    pub fn overloaded(&self) -> NotDone {
        self.metrics.acquire_timeouts.inc();
        if let Some(more) = self.exhausted.admit(self.clock.elapsed_us()) {
            tracing::error!(
                critical = true,
                max_in_flight = self.settings.max_in_flight,
                pool_wait = ?self.settings.pool_wait,
                more,
                "the bound on store calls is exhausted: callers get service-overloaded"
            );
        }
        NotDone::Overloaded
    }
}

/// A future that is finished in the background if it is dropped unfinished, be it because its
/// caller's deadline passed or because the caller left.
struct Lasting<F: Future + Send + 'static>
where
    F::Output: Send + 'static,
{
    future: Option<Pin<Box<F>>>,
    metrics: SharedMetrics,
}

// === impl Lasting ===

impl<F: Future + Send + 'static> Lasting<F>
where
    F::Output: Send + 'static,
{
    fn new(future: F, metrics: &SharedMetrics) -> Self {
        Self { future: Some(Box::pin(future)), metrics: Arc::clone(metrics) }
    }
}

impl<F: Future + Send + 'static> Future for Lasting<F>
where
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out while it is polled: one that panics is not polled again on drop.
        let Some(mut future) = self.future.take() else {
            return Poll::Pending;
        };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            self.future = Some(future);
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Lasting<F>
where
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the call with it.
        if let Some(future) = self.future.take()
            && let Ok(runtime) = Handle::try_current()
        {
            self.metrics.outlived.inc();
            runtime.spawn(future);
        }
    }
}
