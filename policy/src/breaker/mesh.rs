//! Owns the record of a breaker that all gateways of a region share, and the one step that changes it:
//! the twin of `lua/cb_step.lua`. Knows neither names nor clocks; the same step drives the store in
//! memory.
//!
//! ```text
//!            window or reporters                  wait over, somebody asks
//!   closed ─────────────────────► open ─────────────────────────────► half open
//!      ▲                           ▲  ▲                                  │  │
//!      │                           │  └── a test failed, or 3 were lost ─┘  │
//!      └───────────────────────────┼──────── so many tests went well ───────┘
//!   operators: forced open (ends as open), disabled and metrics only (end as closed)
//! ```
//!
//! Every transition begins a new epoch, which is never lower than the time, so that a record that was
//! lost begins above all that went before; it forgets every count. A word of another epoch changes
//! nothing. A test is a lease: one at a time, with a holder, a number and an end.

mod admin;
pub mod codec;
mod step;
mod usual;
mod window;

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use self::admin::Order;
pub(super) use self::step::jittered_ms;
pub use self::step::{life_ms, step};
pub use self::usual::{Adaptive, OVER_MS_MAX, Usual};
pub use self::window::{BUCKETS_MAX, Bucket, Window};

/// Who reports: one Envoy process, by 64 random bits.
pub type Holder = [u8; 8];

/// A reporter that was not heard of for that long counts no more, in ms.
pub const REPORTER_LIFE_MS: u64 = 30_000;
/// A reporter that tripped counts as such for that long after it was last heard of, in ms. While it is shut it reports with its
/// ticks; one that began anew in the meantime is another to the mesh, and one sick Envoy is not to count twice.
pub const TRIPPED_LIFE_MS: u64 = 5_000;
/// The most reporters that a record knows; beyond that the one not heard of for longest is forgotten.
pub const REPORTERS_MAX: usize = 64;
/// Tests in a row that nobody finishes and after which it opens again.
pub const LOST_MAX: u8 = 3;
/// A record that nobody touched for that long is gone, in ms.
pub const LIFE_MS: u64 = 3_600_000;
/// The range of an event's entropy: 0 to this, exclusive.
pub const ENTROPY_RANGE: u32 = 1 << 20;
/// The longest time that it can be open by itself before back-off, in ms.
pub const OPEN_MS_MAX: u32 = 3_600_000;
/// The most doublings of back-off.
pub const BACKOFF_MAX: u8 = 5;

/// The numbers of one breaker. They travel with each report: gateways hold no configuration of filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What is looked back on.
    pub window: Window,
    /// Fewer calls than that in the window say nothing.
    pub min_calls: u32,
    /// Failures of 1,000 calls that open it; 0 = they do not.
    pub failure_permille: u16,
    /// Slow calls of 1,000 that open it; 0 = they do not.
    pub slow_permille: u16,
    /// Whether fewer failures open it, too, if they are more than usual. With a window by time only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// How long it is open, in ms; the real time lies within a fifth of it.
    pub open_ms: u32,
    /// How often that time doubles at most while tests fail.
    pub backoff: u8,
    /// Good tests in a row that close it.
    pub successes: u8,
    /// After that many ms a test without an outcome is lost.
    pub probe_ms: u32,
    /// Processes that have to trip by themselves to open it for all; all, if there are fewer.
    pub trip_reporters: u8,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Nobody calls.
    Open,
    /// One call at a time is a test.
    HalfOpen,
    /// An operator closed the way.
    ForcedOpen,
    /// An operator switched it off: calls pass and are counted, and nothing comes of it.
    Disabled,
    /// As disabled, but what it would have done is told.
    MetricsOnly,
}

/// Why it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Too many failures in the window; of a breaker that nobody shares, in a row.
    Failures,
    /// Too many slow calls in the window.
    Slow,
    /// So many processes tripped by themselves.
    Reporters,
    /// A test failed.
    ProbeFailed,
    /// Tests were lost, so many in a row.
    ProbesLost,
    /// The time is over and somebody asked.
    WaitOver,
    /// So many tests went well.
    ProbesSucceeded,
    /// An operator said so.
    Operator,
    /// What an operator said is over.
    Expired,
    /// More failures in the window than usual.
    Unusual,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// How long it had been what it was, in ms.
    pub after_ms: u64,
}

/// A test that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Its number: no other test of this breaker has it.
    pub id: u64,
    /// Who has it.
    pub holder: Holder,
    /// Until when it counts, in ms since 1970.
    pub until_ms: u64,
}

/// What is known of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reporter {
    /// Who.
    pub holder: Holder,
    /// Its last report: an older or repeated one is not counted.
    pub seq: u64,
    /// When it came, in ms since 1970.
    pub seen_ms: u64,
    /// Whether it tripped by itself in this epoch.
    pub tripped: bool,
}

/// What is kept of one breaker. Moments are ms since 1970 by the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub state: State,
    /// Since which transition.
    pub epoch: u64,
    /// When that was.
    pub since_ms: u64,
    /// Open: until then nobody calls. An operator's state: until then; 0 = without end.
    pub until_ms: u64,
    /// How often it opened since it was last closed.
    pub trips: u8,
    /// Good tests in a row.
    pub successes: u8,
    /// Lost tests in a row.
    pub lost: u8,
    /// Whether good tests closed it, so that calls may be let in by and by.
    pub healed: bool,
    /// The test that is out.
    pub probe: Option<Probe>,
    /// The number of the last test.
    pub last_probe: u64,
    /// What is usual.
    pub usual: Usual,
    /// The window, the oldest first.
    pub buckets: Vec<Bucket>,
    /// The processes that report.
    pub reporters: Vec<Reporter>,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The upstream works.
    Ok,
    /// It does not.
    Failed,
    /// Nothing was learnt: it was not used, or its request was denied or cancelled.
    GivenBack,
}

/// What a process has to say of one breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// In which epoch it was counted.
    pub epoch: u64,
    /// Calls that ended, ignored ones not counted.
    #[serde(default)]
    pub calls: u32,
    /// Of them failures.
    #[serde(default)]
    pub failures: u32,
    /// Of them slow ones.
    #[serde(default)]
    pub slow: u32,
    /// Whether the process tripped by itself and still keeps its calls back.
    #[serde(default)]
    pub tripped: bool,
    /// The test that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Settled>,
    /// Whether it wants a test.
    #[serde(default)]
    pub ask: bool,
}

/// A test's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Which.
    pub id: u64,
    /// How.
    pub ended: Ended,
}

/// What happens to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Somebody looks.
    Look,
    /// A process reports, and may ask.
    Sync {
        /// The breaker's numbers.
        terms: &'a Terms,
        /// Who.
        holder: Holder,
        /// Which report of its: higher than all before.
        seq: u64,
        /// What it says.
        batch: Batch,
        /// Below [`ENTROPY_RANGE`].
        entropy: u32,
    },
    /// An operator's order.
    Order {
        /// Which.
        order: Order,
        /// For how long, in ms; 0 = without end (of a trip: [`crate::breaker::Settings::default`]'s time).
        for_ms: u64,
        /// Below [`ENTROPY_RANGE`].
        entropy: u32,
    },
}

/// What a step says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Where it stands now.
    pub state: State,
    /// Since which transition.
    pub epoch: u64,
    /// Open: ms until a test is due. An operator's state: ms until its end, `None` without one.
    pub wait_ms: Option<u64>,
    /// Closed by good tests: ms since.
    pub healed_ms: Option<u64>,
    /// Whether the counts were taken.
    pub counted: bool,
    /// Whether the test's end was taken.
    pub settled: bool,
    /// The test that the process may make: its number, and for how many ms.
    pub permit: Option<(u64, u64)>,
    /// What changed, in order.
    pub transitions: Vec<Transition>,
    /// What it would have done, were it not for metrics only.
    pub would_open: Option<Cause>,
    /// The window: calls, failures, slow calls.
    pub window: (u64, u64, u64),
    /// What is usual.
    pub usual: Usual,
    /// How often it opened since it was last closed.
    pub trips: u8,
    /// Good tests in a row.
    pub successes: u8,
    /// Whether there was no record before.
    pub fresh: bool,
}

// === impl State ===

impl State {
    /// Every state, by its number.
    pub const ALL: [Self; 6] = [
        Self::Closed,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::Disabled,
        Self::MetricsOnly,
    ];

    /// As metrics and operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }

    /// Whether calls pass.
    pub fn passes(self) -> bool {
        matches!(self, Self::Closed | Self::Disabled | Self::MetricsOnly)
    }

    /// Whether an operator ordered it, to its end or without one.
    pub fn is_ordered(self) -> bool {
        matches!(self, Self::ForcedOpen | Self::Disabled | Self::MetricsOnly)
    }
}

// === impl Cause ===

impl Cause {
    /// Every cause, by its number, from 1.
    pub const ALL: [Self; 10] = [
        Self::Failures,
        Self::Slow,
        Self::Reporters,
        Self::ProbeFailed,
        Self::ProbesLost,
        Self::WaitOver,
        Self::ProbesSucceeded,
        Self::Operator,
        Self::Expired,
        Self::Unusual,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Slow => "slow",
            Self::Reporters => "reporters",
            Self::ProbeFailed => "probe_failed",
            Self::ProbesLost => "probes_lost",
            Self::WaitOver => "wait_over",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::Operator => "operator",
            Self::Expired => "expired",
            Self::Unusual => "unusual",
        }
    }
}

// === impl Record ===

impl Record {
    fn new(now_ms: u64) -> Self {
        Self {
            state: State::Closed,
            epoch: now_ms,
            since_ms: now_ms,
            until_ms: 0,
            trips: 0,
            successes: 0,
            lost: 0,
            healed: false,
            probe: None,
            last_probe: 0,
            usual: Usual::default(),
            buckets: Vec::new(),
            reporters: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
