//! Owns the operators' commands on shared state: their paths, the role that each asks for, their
//! bodies and answers. Knows no tokens; each command that is carried out is audited by its listener.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_policy::gcra::Quota;
use tidegate_policy::identity::Subject;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::limit::grant::{SECONDS_MAX, TIMES_MAX};
use tidegate_policy::reason::Reason;
use tidegate_policy::scope::{KeyFormat, Tenant};
use tidegate_policy::wire;

use super::answer::{self, Answer};
use super::{breakers, records};
use crate::access::Role;
use crate::service::ServiceSettings;
use crate::service::breakers::Seen;
use crate::service::observed::Observed;
use crate::store::{Charge, Checked, Standing, StoreFailure, StoreRole, Stores, Temperature};

const JSON: &str = "application/json";

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Makes the region cold or declares it warm.
    Region,
    /// What one limit says of one subject.
    Inspect,
    /// Forgets what one limit counted of one subject.
    Reset,
    /// Lets one subject have more than one limit admits, until a moment.
    Grant,
    /// The keys that are asked about most.
    Hot,
    /// The breakers.
    Breakers,
    /// What a breaker is to be.
    BreakerOrder,
    /// What becomes of an idempotency key's record.
    Record(records::Order),
}

/// What the audit trail says of a command; holds no subjects.
#[derive(Debug)]
pub struct Done {
    /// The answer.
    pub answer: Answer,
    /// What was asked for.
    pub detail: String,
    /// A reason's text, or `ok`.
    pub outcome: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Cold,
    Warm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionBody {
    temperature: Told,
}

// === impl Command ===

impl Command {
    /// The command at a path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/v1/region" => Some(Self::Region),
            "/v1/limits/inspect" => Some(Self::Inspect),
            "/v1/limits/reset" => Some(Self::Reset),
            "/v1/limits/grant" => Some(Self::Grant),
            "/v1/limits/hot" => Some(Self::Hot),
            "/v1/breakers" => Some(Self::Breakers),
            "/v1/breakers/order" => Some(Self::BreakerOrder),
            _ => records::Order::at(path).map(Self::Record),
        }
    }

    /// The method that it takes.
    pub fn method(self) -> Method {
        match self {
            Self::Region
            | Self::Inspect
            | Self::Reset
            | Self::Grant
            | Self::BreakerOrder
            | Self::Record(_) => Method::POST,
            Self::Hot | Self::Breakers => Method::GET,
        }
    }

    /// Whether it changes anything: then it is on record before it is carried out.
    pub fn changes(self) -> bool {
        !matches!(
            self,
            Self::Inspect | Self::Hot | Self::Breakers | Self::Record(records::Order::Look)
        )
    }

    /// Who may.
    pub fn role(self) -> Role {
        match self {
            // It changes every limit of the region at once.
            Self::Region => Role::Admin,
            // Subjects are personal data.
            Self::Inspect | Self::Reset | Self::Grant | Self::Hot => Role::Operator,
            Self::Breakers | Self::BreakerOrder => Role::Operator,
            Self::Record(order) => order.role(),
        }
    }

    /// Carries it out.
    pub async fn run(
        self,
        body: &[u8],
        settings: &ServiceSettings,
        stores: &Stores,
        observed: &Observed,
        seen: &Seen,
    ) -> Done {
        match self {
            Self::Breakers => breakers::list(settings, stores).await,
            Self::BreakerOrder => breakers::order(body, settings, stores, seen).await,
            Self::Record(order) => order.run(body, settings, stores).await,
            Self::Region => region(body, settings, stores).await,
            Self::Inspect | Self::Reset | Self::Grant => {
                self.limit(body, settings, stores, observed).await
            }
            Self::Hot => {
                let text = wire::encode(&observed.hottest());
                let answer = answer::plain(StatusCode::OK, JSON, text);
                Done { answer, detail: "the hottest keys".to_owned(), outcome: "ok" }
            }
        }
    }

    /// The units and seconds of a grant.
    fn extra(self, asked: &LimitBody, quota: Quota) -> Result<Option<(u32, u32)>, String> {
        let (units, seconds) = (asked.units.as_ref(), asked.seconds.as_ref());
        if self != Self::Grant {
            return match (units, seconds) {
                (None, None) => Ok(None),
                (Some(_), _) | (_, Some(_)) => {
                    Err("units and seconds are those of a grant: leave them out".to_owned())
                }
            };
        }
        let most = quota.limit().max(quota.burst()).saturating_mul(TIMES_MAX);
        let meaning = format!("{TIMES_MAX} times the limit; 0 takes a grant back");
        let units = within("units", units, 0, most, &meaning)?;
        let seconds = within("seconds", seconds, 1, SECONDS_MAX, "a week")?;
        Ok(Some((units, seconds)))
    }

    async fn limit(
        self,
        body: &[u8],
        settings: &ServiceSettings,
        stores: &Stores,
        observed: &Observed,
    ) -> Done {
        const SHAPE: &str = r#"send {"limit": "policy.limit", "subject": {"kind": "ip", "name": "192.0.2.1"}, "tenant": null}; to grant also "units" and "seconds""#;
        let what = match self {
            Self::Reset => "reset",
            Self::Grant => "grant",
            _ => "inspect",
        };
        let asked: LimitBody = match serde_json::from_slice(body) {
            Ok(asked) => asked,
            Err(error) => return bad(what, &format!("{error}: {SHAPE}")),
        };
        let who = part("subject", &asked.subject)
            .and_then(|subject: Subject| Ok((subject, part::<Tenant>("tenant", &asked.tenant)?)));
        let (subject, tenant) = match who {
            Ok(who) => who,
            Err(problem) => return bad(what, &format!("{problem}: {SHAPE}")),
        };
        let Some((quota, algorithm)) = observed.limit(&asked.limit) else {
            let told = format!(
                "limit is {:?}: this gateway was not asked about it lately, or of more than 1,024 others; write its id as policy.limit, and ask a gateway that takes its requests",
                shortened(&asked.limit)
            );
            return bad(what, &told);
        };
        let extra = match self.extra(&asked, quota) {
            Ok(extra) => extra,
            Err(problem) => return bad(what, &problem),
        };
        let scope = settings.scope(tenant, KeyFormat::default());
        let store = stores.of(StoreRole::Regional);
        let (subject, limit_id) = (&subject, asked.limit.as_str());
        let look = Charge { subject, limit_id, quota, algorithm, cost: 0, alone: false };
        // No subject in the audit trail: its kind tells enough.
        let mut detail = format!("{what} {limit_id} of one {}", subject.kind.as_str());
        if let Some((units, seconds)) = extra {
            detail = format!("{detail}: {units} units for {seconds} s");
            let lasts = Duration::from_secs(u64::from(seconds));
            if let Err(failure) = store.grant(&scope, &look, units, lasts).await {
                return done(detail, Err(failure));
            }
        }
        let look = [look];
        if self == Self::Reset
            && let Err(failure) = store.reset(&scope, &look).await
        {
            return done(detail, Err(failure));
        }
        let checked = store.rate_check(&scope, &look).await;
        done(detail, checked.map(|checked| shown(limit_id, quota, algorithm, &checked)))
    }
}

/// What a message repeats of a text that may be long.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// A part of a message, or what is wrong with it.
fn part<T: DeserializeOwned>(field: &str, value: &Value) -> Result<T, String> {
    T::deserialize(value)
        .map_err(|error| format!("{field} is {}: {error}", shortened(&value.to_string())))
}

/// A whole number within bounds, or what to send instead.
fn within(
    field: &str,
    value: Option<&Value>,
    least: u32,
    most: u32,
    meaning: &str,
) -> Result<u32, String> {
    let number = value.and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        let told = value.map_or_else(|| "missing".to_owned(), |v| shortened(&v.to_string()));
        format!("{field} is {told}: send a whole number from {least} to {most}, {meaning}")
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitBody {
    limit: String,
    subject: Value,
    #[serde(default)]
    tenant: Value,
    /// Of a grant: how many beyond the limit.
    units: Option<Value>,
    /// Of a grant: how long they last.
    seconds: Option<Value>,
}

/// Where a limit stands, as an operator is told.
#[derive(Serialize)]
struct Shown<'a> {
    limit: &'a str,
    algorithm: &'static str,
    configured: u32,
    period_us: u64,
    burst: u32,
    /// The units per period in force, if the region is cold.
    reduced: Option<u32>,
    remaining: u64,
    next_us: u64,
    reset_us: u64,
}

fn shown(limit: &str, quota: Quota, algorithm: Algorithm, checked: &Checked) -> String {
    let rows: Vec<Shown<'_>> = checked
        .limits
        .iter()
        .map(|Standing { reading, reduced }| Shown {
            limit,
            algorithm: algorithm.as_str(),
            configured: quota.limit(),
            period_us: quota.period_us(),
            burst: quota.burst(),
            reduced: *reduced,
            remaining: reading.remaining,
            next_us: reading.next_us,
            reset_us: reading.reset_us,
        })
        .collect();
    String::from_utf8_lossy(&wire::encode(&rows.first())).into_owned()
}

async fn region(body: &[u8], settings: &ServiceSettings, stores: &Stores) -> Done {
    let told = match serde_json::from_slice(body) {
        Ok(RegionBody { temperature }) => temperature,
        Err(error) => {
            return bad(
                "region",
                &format!(
                    "{error}: send {{\"temperature\": \"cold\"}} or {{\"temperature\": \"warm\"}}"
                ),
            );
        }
    };
    let (temperature, text) = match told {
        Told::Cold => (Temperature::Cold, "cold"),
        Told::Warm => (Temperature::Warm, "warm"),
    };
    let scope = settings.scope(Tenant::None, KeyFormat::default());
    let set = stores.of(StoreRole::Regional).set_region(&scope, temperature).await;
    let what = format!("region {} {}: {text}", settings.region, settings.environment);
    done(
        what,
        set.map(|()| format!(r#"{{"region":"{}","temperature":"{text}"}}"#, settings.region)),
    )
}

pub(super) fn done(detail: String, outcome: Result<String, StoreFailure>) -> Done {
    match outcome {
        Ok(text) => {
            Done { answer: answer::plain(StatusCode::OK, JSON, text), detail, outcome: "ok" }
        }
        Err(failure) => {
            tracing::error!(%failure, detail, "an operator's command failed");
            let reason = failure.reason();
            let told = "the store did not carry it out; see the log of the gateway";
            let answer = answer::problem(StatusCode::SERVICE_UNAVAILABLE, reason, told, None);
            Done { answer, detail, outcome: reason.as_str() }
        }
    }
}

pub(super) fn bad(what: &str, detail: &str) -> Done {
    let reason = Reason::BadMessage;
    let answer = answer::problem(StatusCode::BAD_REQUEST, reason, detail, None);
    Done { answer, detail: format!("{what}: malformed"), outcome: reason.as_str() }
}
