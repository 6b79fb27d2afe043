//! Owns what operators see of limits and do to them: bodies and answers. Knows no tokens.

use std::net::Ipv6Addr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_policy::audit::About;
use tidegate_policy::gcra::{Quota, Reading};
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName, V6_PREFIX, spell_ip};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::limit::grant::{SECONDS_MAX, TIMES_MAX};
use tidegate_policy::scope::{KeyFormat, Scope, Tenant};

use super::operate::{Done, Told, Undone, bad, text};
use crate::service::ServiceSettings;
use crate::service::observed::Observed;
use crate::store::{Charge, Standing, StoreRole, Stores};

/// What is asked of one limit and one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// What it says.
    Inspect,
    /// It forgets what it counted.
    Reset,
    /// It lets the subject have more than it admits, until a moment.
    Grant,
}

/// That of one body.
#[derive(Debug)]
pub struct Order {
    act: Act,
    limit: String,
    subject: Subject,
    scope: Scope,
    quota: Quota,
    algorithm: Algorithm,
    /// Of a grant.
    extra: Option<Extra>,
}

#[derive(Debug)]
struct Extra {
    units: u32,
    seconds: u32,
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
    /// As it stands in keys.
    subject: &'a str,
    /// Whether anything was kept of it before: if not, it used nothing lately, or is another's spelling.
    known: bool,
    algorithm: &'static str,
    configured: u32,
    period_us: u64,
    burst: u32,
    /// Absent if it could not be read behind an order that was carried out.
    #[serde(flatten)]
    stands: Option<Stands>,
}

/// What the store says of it now.
#[derive(Serialize)]
struct Stands {
    /// The units per period in force, if the region is cold.
    reduced: Option<u32>,
    remaining: u64,
    next_us: u64,
    reset_us: u64,
}

// === impl Stands ===

impl From<Standing> for Stands {
    fn from(Standing { reading, reduced, .. }: Standing) -> Self {
        let Reading { remaining, next_us, reset_us, .. } = reading;
        Self { reduced, remaining, next_us, reset_us }
    }
}

// === impl Act ===

impl Act {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Reset => "reset",
            Self::Grant => "grant",
        }
    }

    /// The units and seconds of a grant.
    fn extra(self, asked: &LimitBody, quota: Quota) -> Result<Option<Extra>, String> {
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
        Ok(Some(Extra { units, seconds }))
    }
}

// === impl Order ===

impl Order {
    /// Reads one; how it ended if that cannot be.
    pub fn read(
        act: Act,
        body: &[u8],
        settings: &ServiceSettings,
        observed: &Observed,
    ) -> Result<Self, Box<Done>> {
        const SHAPE: &str = r#"send {"limit": "policy.limit", "subject": {"kind": "ip", "name": "192.0.2.1"}, "tenant": null}; to grant also "units" and "seconds""#;
        let refused = |problem: String| bad(act.as_str(), &problem);
        let asked: LimitBody =
            serde_json::from_slice(body).map_err(|error| refused(format!("{error}: {SHAPE}")))?;
        let who = subject(&asked.subject)
            .and_then(|subject| Ok((subject, part::<Tenant>("tenant", &asked.tenant)?)));
        let (subject, tenant) = who.map_err(|problem| refused(format!("{problem}: {SHAPE}")))?;
        if tenant == Tenant::None && subject.is_of_tenant() {
            return Err(refused(
                r#"the subject counts by the tenant: send its name, too, as "tenant": "acme""#
                    .into(),
            ));
        }
        let Some((quota, algorithm)) = observed.limit(&asked.limit) else {
            return Err(refused(format!(
                "limit is {:?}: this gateway was not asked about it lately, or of more than 1,024 others; write its id as policy.limit, and ask a gateway that takes its requests",
                shortened(&asked.limit)
            )));
        };
        let extra = act.extra(&asked, quota).map_err(refused)?;
        let scope = settings.scope(tenant, KeyFormat::default());
        Ok(Self { act, limit: asked.limit, subject, scope, quota, algorithm, extra })
    }

    /// What the audit trail says of it. The subject stands where the trail hashes it; its kind tells enough.
    pub fn told(&self) -> Told {
        let Self { act, limit, subject, .. } = self;
        let mut detail = format!("{} {limit} of one {}", act.as_str(), subject.kind.as_str());
        if let Some(Extra { units, seconds }) = self.extra {
            detail = format!("{detail}: {units} units for {seconds} s");
        }
        let about = About { limit: limit.clone(), subject: subject.clone() };
        Told { detail, tenant: self.scope.tenant.clone(), about: vec![about] }
    }

    /// Carries it out.
    pub async fn run(&self, stores: &Stores) -> Result<String, Undone> {
        let store = stores.of(StoreRole::Regional);
        let Self { limit, subject, scope, quota, algorithm, .. } = self;
        let (quota, algorithm) = (*quota, *algorithm);
        let look = Charge { subject, limit_id: limit, quota, algorithm, cost: 0, alone: false };
        let known = store.knows(scope, &look).await.map_err(Undone::Before)?;
        if let Some(Extra { units, seconds }) = self.extra {
            let lasts = Duration::from_secs(u64::from(seconds));
            store.grant(scope, &look, units, lasts).await?;
        }
        let look = [look];
        if self.act == Act::Reset {
            store.reset(scope, &look).await?;
        }
        let standing = match store.rate_check(scope, &look).await {
            Ok(checked) => checked.limits.into_iter().next().map(Stands::from),
            Err(failure) if self.act == Act::Inspect => return Err(Undone::Before(failure)),
            Err(failure) => {
                tracing::warn!(%failure, "a limit could not be read behind an order");
                None
            }
        };
        Ok(text(&self.shown(known, standing)))
    }

    fn shown(&self, known: bool, stands: Option<Stands>) -> Shown<'_> {
        Shown {
            limit: &self.limit,
            subject: self.subject.name.as_str(),
            known,
            algorithm: self.algorithm.as_str(),
            configured: self.quota.limit(),
            period_us: self.quota.period_us(),
            burst: self.quota.burst(),
            stands,
        }
    }
}

/// A subject as it stands in keys, or an address as people write it.
fn subject(value: &Value) -> Result<Subject, String> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let address = text("name").filter(|_| text("kind") == Some(SubjectKind::Ip.as_str()));
    match address.and_then(network) {
        Some(name) => Ok(Subject { kind: SubjectKind::Ip, name }),
        None => part("subject", value),
    }
}

/// Of IPv6 it is a network that is counted: of 64 bits, if nothing else is said.
fn network(text: &str) -> Option<SubjectName> {
    let plain = text.replace("%3A", ":").replace("%2F", "/");
    let (address, bits) = match plain.split_once('/') {
        Some((address, bits)) => {
            (address, bits.parse().ok().filter(|bits| (1..=128).contains(bits))?)
        }
        None => (plain.as_str(), V6_PREFIX),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    Some(SubjectName::from_bytes(spell_ip(address.into(), bits).as_bytes()))
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
