//! Owns the operators' commands on shared state: their paths, the role that each asks for, and how they are
//! read and answered. Knows no tokens; that each is on record is its caller's business.

use http::{Method, StatusCode};
use serde::Deserialize;
use tidegate_policy::audit::About;
use tidegate_policy::reason::Reason;
use tidegate_policy::scope::{KeyFormat, Tenant};
use tidegate_policy::wire;

use super::answer::{self, Answer};
use super::{breakers, limits, records};
use crate::access::Role;
use crate::service::ServiceSettings;
use crate::service::breakers::Seen;
use crate::service::observed::Observed;
use crate::store::{StoreFailure, StoreRole, Stores, Temperature};

const JSON: &str = "application/json";

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Makes the region cold or declares it warm.
    Region,
    /// What becomes of what one limit says of one subject.
    Limit(limits::Act),
    /// The keys that are asked about most.
    Hot,
    /// The breakers.
    Breakers,
    /// What a breaker is to be.
    BreakerOrder,
    /// What becomes of an idempotency key's record.
    Record(records::Order),
}

/// A command whose body was read.
#[derive(Debug)]
pub struct Ready {
    /// What is told of it before it is carried out.
    pub told: Told,
    changes: bool,
    work: Work,
}

/// What the audit trail says of a command beside its actor and its outcome.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// What was asked for; holds no subjects.
    pub detail: String,
    /// Whom it is about.
    pub tenant: Tenant,
    /// The limit and the subject, which the trail hashes or leaves out.
    pub about: Vec<About>,
}

/// Why a command has no answer of its own, and so what became of it.
#[derive(Debug)]
pub enum Undone {
    /// It cannot be carried out as this gateway is set up: what to do about that.
    Never(&'static str),
    /// It was not begun: what it asks for first failed.
    Before(StoreFailure),
    /// It failed itself: whether it was carried out only some failures say.
    Itself(StoreFailure),
    /// It was carried out on so many of so many.
    Part(usize, usize, StoreFailure),
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// The answer.
    pub answer: Answer,
    /// What was asked for, and what of it was not done; holds no subjects.
    pub detail: String,
    /// A reason's text, or `ok`.
    pub outcome: &'static str,
}

#[derive(Debug)]
enum Work {
    Region(Temperature),
    Limit(Box<limits::Order>),
    Hot,
    Breakers,
    BreakerOrder(breakers::Asked),
    Record(Box<records::Asked>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Asked {
    Cold,
    Warm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionBody {
    temperature: Asked,
}

// === impl Command ===

impl Command {
    /// The command at a path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/v1/region" => Some(Self::Region),
            "/v1/limits/inspect" => Some(Self::Limit(limits::Act::Inspect)),
            "/v1/limits/reset" => Some(Self::Limit(limits::Act::Reset)),
            "/v1/limits/grant" => Some(Self::Limit(limits::Act::Grant)),
            "/v1/limits/hot" => Some(Self::Hot),
            "/v1/breakers" => Some(Self::Breakers),
            "/v1/breakers/order" => Some(Self::BreakerOrder),
            _ => records::Order::at(path).map(Self::Record),
        }
    }

    /// The method that it takes.
    pub fn method(self) -> Method {
        match self {
            Self::Region | Self::Limit(_) | Self::BreakerOrder | Self::Record(_) => Method::POST,
            Self::Hot | Self::Breakers => Method::GET,
        }
    }

    /// Whether it changes anything: then it is on record before it is carried out.
    pub fn changes(self) -> bool {
        !matches!(
            self,
            Self::Limit(limits::Act::Inspect)
                | Self::Hot
                | Self::Breakers
                | Self::Record(records::Order::Look)
        )
    }

    /// Who may.
    pub fn role(self) -> Role {
        match self {
            // It changes every limit of the region at once.
            Self::Region => Role::Admin,
            // Subjects are personal data.
            Self::Limit(_) | Self::Hot => Role::Operator,
            Self::Breakers | Self::BreakerOrder => Role::Operator,
            Self::Record(order) => order.role(),
        }
    }

    /// Reads its body; how it ended if that cannot be.
    pub fn read(
        self,
        body: &[u8],
        settings: &ServiceSettings,
        observed: &Observed,
    ) -> Result<Ready, Box<Done>> {
        let untold = |detail: String| Told { detail, ..Told::default() };
        let (told, work) = match self {
            Self::Region => {
                let temperature = temperature(body)?;
                let (region, environment) = (&settings.region, &settings.environment);
                let detail = format!("region {region} {environment}: {}", word(temperature));
                (untold(detail), Work::Region(temperature))
            }
            Self::Limit(act) => {
                let order = limits::Order::read(act, body, settings, observed)?;
                (order.told(), Work::Limit(Box::new(order)))
            }
            Self::Hot => (untold("the hottest keys".to_owned()), Work::Hot),
            Self::Breakers => (untold("the breakers".to_owned()), Work::Breakers),
            Self::BreakerOrder => {
                let asked = breakers::Asked::read(body)?;
                (untold(asked.detail()), Work::BreakerOrder(asked))
            }
            Self::Record(order) => {
                let asked = records::Asked::read(order, body, settings)?;
                (asked.told(), Work::Record(Box::new(asked)))
            }
        };
        Ok(Ready { told, changes: self.changes(), work })
    }
}

// === impl Ready ===

impl Ready {
    /// Carries it out.
    pub async fn run(
        self,
        settings: &ServiceSettings,
        stores: &Stores,
        observed: &Observed,
        seen: &Seen,
    ) -> Done {
        let changes = self.changes;
        let outcome = match self.work {
            Work::Region(temperature) => set_region(temperature, settings, stores).await,
            Work::Limit(order) => order.run(stores).await,
            Work::Hot => Ok(text(&observed.hottest())),
            Work::Breakers => breakers::list(settings, stores).await,
            Work::BreakerOrder(asked) => asked.run(settings, stores, seen).await,
            Work::Record(asked) => asked.run(stores).await,
        };
        done(self.told.detail, changes, outcome)
    }
}

/// A body as text.
pub(super) fn text<T: serde::Serialize>(value: &T) -> String {
    String::from_utf8_lossy(&wire::encode(value)).into_owned()
}

fn temperature(body: &[u8]) -> Result<Temperature, Box<Done>> {
    const SHAPE: &str = r#"send {"temperature": "cold"} or {"temperature": "warm"}"#;
    match serde_json::from_slice(body) {
        Ok(RegionBody { temperature: Asked::Cold }) => Ok(Temperature::Cold),
        Ok(RegionBody { temperature: Asked::Warm }) => Ok(Temperature::Warm),
        Err(error) => Err(bad("region", &format!("{error}: {SHAPE}"))),
    }
}

fn word(temperature: Temperature) -> &'static str {
    match temperature {
        Temperature::Cold => "cold",
        Temperature::Warm => "warm",
    }
}

async fn set_region(
    temperature: Temperature,
    settings: &ServiceSettings,
    stores: &Stores,
) -> Result<String, Undone> {
    let scope = settings.scope(Tenant::None, KeyFormat::default());
    let store = stores.of(StoreRole::Regional);
    if !store.guards() {
        return Err(Undone::Never(match temperature {
            Temperature::Cold => {
                "no region is ever cold here: start all its gateways with --cold-start, a time like 5m"
            }
            Temperature::Warm => {
                "no region is ever cold here, and no mark was set for those of its gateways that have a guard: give the order to one of them, or start all with --cold-start, a time like 5m"
            }
        }));
    }
    store.set_region(&scope, temperature).await?;
    Ok(format!(r#"{{"region":"{}","temperature":"{}"}}"#, settings.region, word(temperature)))
}

fn done(detail: String, changes: bool, outcome: Result<String, Undone>) -> Done {
    match outcome {
        Ok(text) => {
            Done { answer: answer::plain(StatusCode::OK, JSON, text), detail, outcome: "ok" }
        }
        Err(Undone::Never(remedy)) => {
            let reason = Reason::BadMessage;
            let answer = answer::problem(StatusCode::BAD_REQUEST, reason, remedy, None);
            Done { answer, detail, outcome: reason.as_str() }
        }
        Err(Undone::Part(done, of, failure)) => {
            let what = format!("carried out on {done} of {of}: give the order again");
            failed(detail, &what, &failure)
        }
        Err(Undone::Itself(failure @ StoreFailure::Partly(_))) => {
            failed(detail, &format!("{failure}: give the order again"), &failure)
        }
        Err(Undone::Itself(failure)) if changes && failure.may_be_done() => {
            let what = "no answer of the store, which may have carried it out: look, and give the order again if it has not";
            failed(detail, what, &failure)
        }
        Err(Undone::Before(failure) | Undone::Itself(failure)) => {
            failed(detail, "the store did not carry it out", &failure)
        }
    }
}

fn failed(detail: String, what: &str, failure: &StoreFailure) -> Done {
    tracing::error!(%failure, detail, what, "an operator's command failed");
    let reason = failure.reason();
    let told = format!("{what}; see the log of the gateway");
    let answer = answer::problem(StatusCode::SERVICE_UNAVAILABLE, reason, &told, None);
    Done { answer, detail: format!("{detail}: {what}"), outcome: reason.as_str() }
}

impl From<StoreFailure> for Undone {
    fn from(failure: StoreFailure) -> Self {
        Self::Itself(failure)
    }
}

/// How a command ended that could not be read.
pub(super) fn bad(what: &str, detail: &str) -> Box<Done> {
    let reason = Reason::BadMessage;
    let answer = answer::problem(StatusCode::BAD_REQUEST, reason, detail, None);
    Box::new(Done { answer, detail: format!("{what}: malformed"), outcome: reason.as_str() })
}
