//! Owns the order of one decision: read the message, check its sender, admit, charge, answer.
//! Knows neither HTTP nor what kind of store it asks, and reads no clock but the one it is given.

pub mod admission;
mod audit;
pub mod breakers;
mod chronicle;
mod claim;
pub mod guard;
mod hot;
mod ledger;
pub mod observed;
mod pressure;
mod refused;
mod settle;
pub mod statistics;
mod sync;
pub mod together;
mod told;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::audit::Action;
use tidegate_policy::breaker::{Outcome, alone};
use tidegate_policy::config::ConfigHash;
use tidegate_policy::identity::Subject;
use tidegate_policy::reason::Reason;
use tidegate_policy::scope::{CallerScope, Environment, KeyFormat, Region, Scope, Tenant};
use tidegate_policy::wire::{DecideReply, DecideRequest, DecisionId, Verdict};

use self::admission::{Admission, AdmissionSettings, Leaves, NotDone};
use self::breakers::Seen;
use self::chronicle::{Chronicle, Decided};
use self::guard::Guard;
use self::observed::Observed;
use self::pressure::{Blame, Pressure};
pub use self::refused::{OVERLOADED, Refused};
use self::refused::{action_of, outward};
use crate::audit::Auditor;
use crate::clock::Clock;
use crate::cores::Cores;
use crate::metrics::SharedMetrics;
use crate::store::{StoreFailure, StoreRole, Stores};
use crate::throttle::Throttle;

const LOG_INTERVAL_US: u64 = 1_000_000;

/// What the service is told at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The region that names the keys.
    pub region: Region,
    /// Whether it was configured; if not, a filter's own region is not compared with it.
    pub region_configured: bool,
    /// The environment that names the keys.
    pub environment: Environment,
    /// The bound and the deadlines.
    pub admission: AdmissionSettings,
    /// When a store that fails is left alone for a while.
    pub breaker: alone::Settings,
}

/// The decisions.
pub struct Service {
    settings: ServiceSettings,
    stores: Stores,
    clock: Arc<dyn Clock>,
    admission: Admission,
    pressure: Pressure,
    guard: Guard,
    metrics: SharedMetrics,
    chronicle: Chronicle,
    observed: Arc<Observed>,
    seen: Arc<Seen>,
    mismatches: Throttle,
    failures: Throttle,
}

// === impl ServiceSettings ===

impl ServiceSettings {
    /// The scope of a tenant's keys here.
    pub fn scope(&self, tenant: Tenant, key_format: KeyFormat) -> Scope {
        let (region, environment) = (self.region.clone(), self.environment.clone());
        Scope { region, environment, tenant, key_format }
    }
}

// === impl Service ===

impl Service {
    /// Puts a service together; starts nothing.
    pub fn new(
        settings: ServiceSettings,
        stores: Stores,
        clock: Arc<dyn Clock>,
        metrics: SharedMetrics,
        auditor: Arc<Auditor>,
    ) -> Self {
        let admission =
            Admission::new(settings.admission, Arc::clone(&clock), Arc::clone(&metrics));
        let pressure = Pressure::new(settings.admission, Arc::clone(&clock), Arc::clone(&metrics));
        let guard = Guard::new(
            StoreRole::Regional,
            settings.breaker,
            Arc::clone(&clock),
            Arc::clone(&metrics),
            Arc::clone(&auditor),
        );
        let observed = Arc::new(Observed::new(Arc::clone(&clock), Arc::clone(&metrics)));
        let seen = Seen::new(Arc::clone(&metrics), Arc::clone(&auditor), Arc::clone(&clock));
        let chronicle = Chronicle::new(auditor, Arc::clone(&clock));
        Self {
            settings,
            stores,
            clock,
            admission,
            pressure,
            guard,
            metrics,
            chronicle,
            observed,
            seen: Arc::new(seen),
            mismatches: Throttle::new(1, LOG_INTERVAL_US),
            failures: Throttle::new(1, LOG_INTERVAL_US),
        }
    }

    /// The same, for decisions that are spread over cores.
    pub fn on(mut self, cores: &Cores) -> Self {
        self.pressure = self.pressure.on(cores);
        self
    }

    /// Decides on one message. Ends within the deadline, whatever the store does.
    pub async fn decide(
        &self,
        message: &[u8],
        config: Option<ConfigHash>,
    ) -> Result<DecideReply, Refused> {
        // Before it costs anything: nothing else makes up for time.
        if self.pressure.sheds() {
            self.chronicle.shed();
            return Err(Refused {
                reason: Reason::ServiceOverloaded,
                detail: OVERLOADED.to_owned(),
                id: None,
            });
        }
        let begun_us = self.clock.elapsed_us();
        let message = match DecideRequest::decode(message) {
            Ok(message) => Arc::new(message),
            Err(error) => {
                return Err(Refused {
                    reason: error.reason(),
                    detail: error.to_string(),
                    id: None,
                });
            }
        };
        let decided = match self.check(&message) {
            Ok(scope) => self.charge(&message, scope).await,
            Err(refused) => Err(refused),
        };
        self.note((&message, config), &decided, begun_us).await;
        decided
    }

    /// Watches how long work waits for the core that this runs on, for as long as the gateway lives.
    pub async fn watch_pressure(self: Arc<Self>) {
        self.pressure.watch().await;
    }

    /// The guard of the store.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// What it remembers of its decisions, for operators.
    pub fn observed(&self) -> &Arc<Observed> {
        &self.observed
    }

    /// What it knows of breakers, for metrics.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// The bound's state, for the status.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    fn check(&self, message: &DecideRequest) -> Result<Scope, Refused> {
        let scope = self.scope(message.id, &message.scope, message.timeout_ms)?;
        let places = message.limits.iter().map(|limit| (limit.id.as_str(), &limit.subject));
        self.refuse_repeated(message.id, places)?;
        Ok(scope)
    }

    /// Whether the caller may ask here, and in which scope its keys lie.
    fn scope(
        &self,
        id: DecisionId,
        theirs: &CallerScope,
        timeout_ms: u32,
    ) -> Result<Scope, Refused> {
        let own = &self.settings;
        self.serves(id, theirs)?;
        let deadline = own.admission.deadline;
        if Duration::from_millis(u64::from(timeout_ms)) <= deadline {
            let detail = format!(
                "the filter waits {timeout_ms} ms, but this gateway may take {deadline:?}: set the filter's gateway.timeout above {deadline:?} or --deadline (TIDEGATE_DEADLINE) below {timeout_ms} ms"
            );
            return Err(Refused { reason: Reason::DeadlineOrder, detail, id: Some(id) });
        }
        Ok(own.scope(theirs.tenant.clone(), theirs.key_format))
    }

    /// Whether this is a gateway of the caller's region and environment.
    fn serves(&self, id: DecisionId, theirs: &CallerScope) -> Result<(), Refused> {
        let refuse = |reason, detail| Err(Refused { reason, detail, id: Some(id) });
        let own = &self.settings;
        if let Some(region) = &theirs.region
            && own.region_configured
            && *region != own.region
        {
            let detail = format!(
                "the filter is in region {region}, this gateway serves {}: send the filter to its own region's gateway",
                own.region
            );
            return refuse(Reason::RegionMismatch, detail);
        }
        if theirs.environment != own.environment {
            let detail = format!(
                "the filter was deployed for environment {}, this gateway serves {}: set TIDEGATE_ENVIRONMENT of both to the same name",
                theirs.environment, own.environment
            );
            return refuse(Reason::EnvironmentMismatch, detail);
        }
        Ok(())
    }

    /// A limit that stands twice in one message for one subject: both would share a key, and the
    /// second charge would overwrite the first.
    fn refuse_repeated<'m>(
        &self,
        id: DecisionId,
        limits: impl Iterator<Item = (&'m str, &'m Subject)>,
    ) -> Result<(), Refused> {
        let mut seen: Vec<(&str, &Subject)> = Vec::new();
        for limit in limits {
            if seen.contains(&limit) {
                let detail = format!("limit {} is listed twice for one subject", limit.0);
                return Err(Refused { reason: Reason::BadMessage, detail, id: Some(id) });
            }
            seen.push(limit);
        }
        Ok(())
    }

    /// Runs a store call behind the breaker, within the bound and the deadline.
    async fn admitted<T, F>(
        &self,
        id: DecisionId,
        leaves: Leaves,
        call: impl FnOnce() -> F,
    ) -> Result<T, Refused>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreFailure>> + Send + 'static,
    {
        self.admitted_or(id, leaves, call, || None).await
    }

    /// The same; `late` says what there is already when the deadline passes.
    async fn admitted_or<T, F>(
        &self,
        id: DecisionId,
        leaves: Leaves,
        call: impl FnOnce() -> F,
        late: impl FnOnce() -> Option<T>,
    ) -> Result<T, Refused>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreFailure>> + Send + 'static,
    {
        let refuse =
            |reason, detail: &str| Refused { reason, detail: detail.to_owned(), id: Some(id) };
        let trial = self.guard.admit();
        if trial.is_none() && !matches!(leaves, Leaves::End) {
            return Err(refuse(
                Reason::StoreCircuitOpen,
                "the store failed too often in a row and is left alone for a while",
            ));
        }
        let done = self.admission.run(call).await;
        let blame = match &done {
            &Err(NotDone::Late { begun_us, by_us }) => self.pressure.blame(begun_us, by_us),
            Ok(_) | Err(NotDone::Overloaded) => Blame::Nobody,
        };
        if matches!(done, Ok(Ok(_))) {
            self.pressure.answered();
        }
        // Of several servers one that fails says nothing of the others.
        let elsewhere = self.stores.of(StoreRole::Regional).answers_elsewhere();
        let outcome = match &done {
            // An answer of the store's, whatever it says, shows that it can be reached.
            Ok(Ok(_) | Err(StoreFailure::Refused(_) | StoreFailure::Garbled(_))) => {
                Outcome::Success
            }
            Ok(Err(StoreFailure::Unreachable(_) | StoreFailure::Timeout)) if elsewhere => {
                Outcome::Ignored
            }
            Ok(Err(StoreFailure::Unreachable(_) | StoreFailure::Timeout)) => Outcome::Failure,
            Err(NotDone::Late { .. }) if blame == Blame::Store && !elsewhere => Outcome::Failure,
            Ok(Err(StoreFailure::Full(_) | StoreFailure::Partly(_) | StoreFailure::Crowded))
            | Err(NotDone::Overloaded | NotDone::Late { .. }) => Outcome::Ignored,
        };
        if let Some(trial) = trial {
            trial.end(outcome);
        }
        if matches!(done, Err(NotDone::Late { .. }))
            && let Some(done) = late()
        {
            return Ok(done);
        }
        // Who is told of an overload takes it that nothing was begun.
        let overloaded = match leaves {
            Leaves::Nothing | Leaves::End => (Reason::ServiceOverloaded, OVERLOADED),
            Leaves::Claim => (Reason::StoreTimeout, outward(&StoreFailure::Timeout)),
        };
        let (reason, detail) = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(StoreFailure::Crowded)) => {
                self.admission.overloaded();
                overloaded
            }
            Ok(Err(failure)) => {
                self.log_failure(&failure);
                (failure.reason(), outward(&failure))
            }
            Err(NotDone::Overloaded) => (Reason::ServiceOverloaded, OVERLOADED),
            Err(NotDone::Late { .. }) if blame == Blame::Gateway => {
                self.pressure.shed();
                overloaded
            }
            Err(NotDone::Late { .. }) => {
                self.log_failure(&StoreFailure::Timeout);
                (Reason::StoreTimeout, outward(&StoreFailure::Timeout))
            }
        };
        Err(refuse(reason, detail))
    }

    async fn note(
        &self,
        (message, config): (&DecideRequest, Option<ConfigHash>),
        decided: &Decided,
        begun_us: u64,
    ) {
        let (outcome, action) = match decided {
            Ok(DecideReply { verdict: Verdict::Allow, .. }) => ("allow", None),
            Ok(DecideReply { verdict: Verdict::Deny, .. }) => {
                (Reason::QuotaExceeded.as_str(), Some(Action::Deny))
            }
            Err(refused) => (refused.reason.as_str(), action_of(refused.reason)),
        };
        tracing::debug!(
            id = %message.id,
            outcome,
            traceparent = message.traceparent,
            request_id = message.request_id,
            "decided"
        );
        match decided {
            Ok(reply) => {
                match reply.verdict {
                    Verdict::Allow => self.metrics.allowed.inc(),
                    Verdict::Deny => self.metrics.denied.inc(),
                };
                self.observed.note(message, reply);
            }
            Err(refused) => self.log_mismatch(refused),
        }
        let spent_us = self.clock.elapsed_us().saturating_sub(begun_us);
        self.chronicle.decided((message, config), decided, action, outcome, spent_us).await;
    }
}

#[cfg(test)]
mod tests;
