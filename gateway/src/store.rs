//! Owns what the service may ask of a store, and which store plays which role. Knows neither
//! callers, deadlines nor HTTP.
//!
//! Every call carries its [`Scope`]: without one it does not compile (product row H5). A call's
//! future owns all it needs, so that it can be left to finish when nobody waits for it any more.

pub mod breakers;
pub mod chains;
pub mod claims;
pub mod keys;
pub mod leases;
pub mod memory;
pub mod redis;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tidegate_policy::gcra::{Quota, Reading, Retry};
use tidegate_policy::identity::Subject;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::limit::refund::Receipt;
use tidegate_policy::reason::Reason;
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;

use self::breakers::Breakers;
use self::chains::Chains;
use self::claims::Claims;
use self::leases::Leases;

/// A call that has been prepared; it starts when it is first polled.
pub type Call<T> = Pin<Box<dyn Future<Output = Result<T, StoreFailure>> + Send>>;

/// One limit to charge.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// Who is counted.
    pub subject: &'a Subject,
    /// `policy.limit`.
    pub limit_id: &'a str,
    /// The limit's numbers.
    pub quota: Quota,
    /// How it counts.
    pub algorithm: Algorithm,
    /// Units; 0 only looks.
    pub cost: u32,
    /// Whether it counts for itself: it is charged if it admits, and denies nobody.
    pub alone: bool,
}

/// What one limit is charged more, or given back, after its decision.
#[derive(Debug, Clone, Copy)]
pub struct Adjustment<'a> {
    /// Who is counted.
    pub subject: &'a Subject,
    /// `policy.limit`.
    pub limit_id: &'a str,
    /// The limit's numbers.
    pub quota: Quota,
    /// How it counts.
    pub algorithm: Algorithm,
    /// Above 0 it charges more, below 0 it gives back.
    pub by: i64,
    /// At most that long ago the decision charged, in µs.
    pub age_us: u64,
    /// Whether it is known that the decision charged by a cold region's numbers.
    pub charged_cold: bool,
    /// What was said of the charge, if it is known.
    pub receipt: Option<Receipt>,
}

/// Where one limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What it says.
    pub reading: Reading,
    /// The units per period that are in force, if they are fewer than configured.
    pub reduced: Option<u32>,
    /// Whether it could not be read: it decides nothing, and its reading says nothing.
    pub unread: bool,
    /// When it was charged, by the store's clock, in µs since 1970; `None` if it was not, or if the reading does not
    /// tell what that came to, since a grant or leases stand beside it.
    pub charged_us: Option<u64>,
}

/// What a store says of all limits of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Whether every limit admits that does not count for itself. If not, none was charged.
    pub allowed: bool,
    /// One per charge, in order.
    pub limits: Vec<Standing>,
}

/// Why a store gave no answer. The text is for the operator's log: it may name hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// There is no connection, or it broke.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// No answer within the store's own response timeout.
    #[error("no answer in time")]
    Timeout,
    /// As many calls as may wait for this one of several servers, which answers. It was not sent.
    #[error("as many calls wait for one server as may, half of --max-in-flight")]
    Crowded,
    /// The store answered with an error.
    #[error("answered with an error: {0}")]
    Refused(String),
    /// The store's answer is none that its script gives.
    #[error("answered what cannot be: {0}")]
    Garbled(String),
    /// Some of several servers carried it out, and these did not.
    #[error("not carried out by {0}; by all others it was")]
    Partly(String),
    /// The memory store holds as many keys as it may.
    #[error("holds {0} live keys, its maximum: raise --memory-keys-max or use Redis")]
    Full(usize),
}

/// What a store counts itself, for the metrics.
#[derive(Debug, Clone, Default)]
pub struct StoreCounters {
    /// Connections opened after the first one of each slot.
    pub reconnects: Counter,
    /// Scripts loaded: at each connect, and after NOSCRIPT.
    pub script_loads: Counter,
    /// Calls refused because the memory store was full.
    pub full: Counter,
    /// Stored answers that could not be opened.
    pub unreadable: Counter,
    /// Servers that began anew from a snapshot, and whose region was made cold for it; by each connection that found it.
    pub rewound: Counter,
    /// Looks at a server that throws keys away when its memory is full: at each connect, and every 30 s.
    pub evicting: Counter,
}

/// What a region is told to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temperature {
    /// It begins now: at most half of each limit until the guard's time has passed.
    Cold,
    /// It is old: whole limits at once.
    Warm,
}

/// A place that holds shared state.
pub trait Store: Send + Sync {
    /// `redis` or `memory`.
    fn kind(&self) -> &'static str;

    /// What the store says of itself in the detailed status: connections, keys. No credentials.
    fn describe(&self) -> String;

    /// How many connections are up, and how many there are; `None` without any.
    fn connections(&self) -> Option<(usize, usize)> {
        None
    }

    /// Whether a region that has begun lately admits less here: without that, making it cold changes nothing.
    fn guards(&self) -> bool {
        false
    }

    /// The same store for the calls of one message; `None` where it makes no difference. On several servers only so
    /// many places wait for one of them, and a message has one place, however many calls it makes.
    fn for_one_message(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// Whether it is several servers, of which at least one has answered lately: what fails is one of them.
    fn answers_elsewhere(&self) -> bool {
        false
    }

    /// Charges all limits or none, by the store's own clock, in one atomic step; on a Cluster several
    /// subjects in several steps.
    fn rate_check(&self, scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked>;

    /// Adjusts what the decision `id` charged, each limit at most once, and says where each stands.
    fn settle(
        &self,
        scope: &Scope,
        id: DecisionId,
        adjustments: &[Adjustment<'_>],
    ) -> Call<Vec<Standing>>;

    /// Whether anything is kept of that limit's subject; a store that cannot tell says yes. For operators.
    fn knows(&self, _scope: &Scope, _limit: &Charge<'_>) -> Call<bool> {
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Forgets what these limits counted. For operators.
    fn reset(&self, scope: &Scope, limits: &[Charge<'_>]) -> Call<()>;

    /// Lets one subject have that many units beyond a limit, for that long; 0 takes it back. In place
    /// of what was granted before. For operators.
    fn grant(&self, scope: &Scope, limit: &Charge<'_>, units: u32, lasts: Duration) -> Call<()>;

    /// Makes a region cold, as if it began now, or declares it warm. For operators.
    fn set_region(&self, scope: &Scope, temperature: Temperature) -> Call<()>;

    /// Asks for a sign of life.
    fn probe(&self) -> Call<()>;

    /// Where it keeps audit chains; `None` if it keeps none.
    fn chains(&self) -> Option<&dyn Chains> {
        None
    }

    /// Where it keeps breakers; `None` if it keeps none.
    fn breakers(&self) -> Option<&dyn Breakers> {
        None
    }

    /// Where it keeps claims; `None` if it keeps none.
    fn claims(&self) -> Option<&dyn Claims> {
        None
    }

    /// Where it leases units of limits; `None` if it leases none.
    fn leases(&self) -> Option<&dyn Leases> {
        None
    }
}

/// What a store is for. The roles may lie in one store or in several (product row G).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreRole {
    /// Limits and breakers of this region.
    Regional,
    /// Limits over all regions.
    Global,
    /// Claims and stored answers.
    Idempotency,
    /// The audit chain.
    Audit,
}

/// The store of each role.
#[derive(Clone)]
pub struct Stores {
    regional: Arc<dyn Store>,
    global: Arc<dyn Store>,
    idempotency: Arc<dyn Store>,
    audit: Arc<dyn Store>,
}

// === impl Charge ===

impl<'a> Charge<'a> {
    /// A look at the limit that is adjusted.
    pub fn look(adjustment: &Adjustment<'a>) -> Self {
        let Adjustment { subject, limit_id, quota, algorithm, .. } = *adjustment;
        Self { subject, limit_id, quota, algorithm, cost: 0, alone: false }
    }
}

// === impl Adjustment ===

impl<'a> Adjustment<'a> {
    /// Gives back what a charge took at most `age_us` ago; `None` if it took nothing, as one that counts for itself and
    /// did not admit.
    pub fn giving_back(charge: &Charge<'a>, standing: &Standing, age_us: u64) -> Option<Self> {
        let Charge { subject, limit_id, quota, algorithm, cost, .. } = *charge;
        let is_charged = !standing.unread && standing.reading.retry == Retry::Fits;
        (cost > 0 && is_charged).then(|| Self {
            subject,
            limit_id,
            quota,
            algorithm,
            by: -i64::from(cost),
            age_us,
            charged_cold: standing.reduced.is_some(),
            receipt: standing.receipt(),
        })
    }
}

// === impl Standing ===

impl Standing {
    /// Stands in for a limit that could not be read and decides nothing.
    pub fn unread(quota: Quota) -> Self {
        let remaining = u64::from(quota.burst());
        let reading = Reading { remaining, next_us: 0, reset_us: 0, retry: Retry::Fits };
        Self { reading, reduced: None, unread: true, charged_us: None }
    }

    /// What to say of the charge when it is given back.
    pub fn receipt(&self) -> Option<Receipt> {
        let (full_us, cold) = (self.reading.reset_us, self.reduced.is_some());
        self.charged_us.map(|at_us| Receipt { at_us, full_us, cold })
    }
}

// === impl StoreFailure ===

impl StoreFailure {
    /// The reason that callers are told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable(_) | Self::Partly(_) => Reason::StoreUnavailable,
            Self::Timeout => Reason::StoreTimeout,
            Self::Crowded => Reason::ServiceOverloaded,
            Self::Refused(_) | Self::Garbled(_) | Self::Full(_) => Reason::StoreError,
        }
    }

    /// Whether the call may have been carried out all the same.
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout | Self::Garbled(_) | Self::Partly(_) => true,
            Self::Refused(_) | Self::Full(_) | Self::Crowded => false,
        }
    }
}

// === impl StoreRole ===

impl StoreRole {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Regional, Self::Global, Self::Idempotency, Self::Audit];

    /// The role as it stands in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regional => "regional",
            Self::Global => "global",
            Self::Idempotency => "idempotency",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for StoreRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Stores ===

impl Stores {
    /// One store behind every role.
    pub fn single(store: Arc<dyn Store>) -> Self {
        Self {
            regional: Arc::clone(&store),
            global: Arc::clone(&store),
            idempotency: Arc::clone(&store),
            audit: store,
        }
    }

    /// The same, with another store for `role`.
    pub fn with(mut self, role: StoreRole, store: Arc<dyn Store>) -> Self {
        match role {
            StoreRole::Regional => self.regional = store,
            StoreRole::Global => self.global = store,
            StoreRole::Idempotency => self.idempotency = store,
            StoreRole::Audit => self.audit = store,
        }
        self
    }

    /// The store of a role.
    pub fn of(&self, role: StoreRole) -> &Arc<dyn Store> {
        match role {
            StoreRole::Regional => &self.regional,
            StoreRole::Global => &self.global,
            StoreRole::Idempotency => &self.idempotency,
            StoreRole::Audit => &self.audit,
        }
    }

    /// The same for the calls of one message that has many.
    pub fn for_one_message(&self, role: StoreRole) -> Arc<dyn Store> {
        let store = self.of(role);
        store.for_one_message().unwrap_or_else(|| Arc::clone(store))
    }
}
