//! Owns what operators see of idempotency keys and do to them: bodies and answers. Knows no tokens. No
//! key and no answer's body is shown or audited: a key is its client's, an answer may hold anything.

use serde::{Deserialize, Serialize};
use tidegate_policy::audit::About;
use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{Abandoned, Found, TTL_MS};
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::scope::{Tenant, TenantId};

use super::operate::{Done, Told, Undone, bad, text};
use crate::access::Role;
use crate::audit::endpoint;
use crate::service::ServiceSettings;
use crate::store::claims::{Claims, Writer};
use crate::store::{StoreFailure, StoreRole, Stores};

/// What records of orders are about.
const ABOUT: &str = "idempotency-key";
/// The state of a record that there is not.
const ABSENT: &str = "absent";
/// The state of one that could not be read behind an order that was carried out.
const NOT_READ: &str = "not_read";

/// What is asked of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What it says.
    Look,
    /// A claim without an answer is given back: a retry runs.
    Release,
    /// It is taken away, whatever it says: a retry runs.
    Delete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordBody {
    tenant: TenantId,
    /// `POST /orders/{}/refund`, as it stands in the record's name; words in its braces count for nothing.
    endpoint: Endpoint,
    key: IdempotencyKey,
}

/// An order and whose record it is for.
#[derive(Debug)]
pub struct Asked {
    order: Order,
    name: RecordName,
    /// Where a gateway of before has recorded it, if that is elsewhere.
    before: Option<RecordName>,
    tenant: TenantId,
    endpoint: Endpoint,
    /// Of the key.
    /// The key, which is told as subjects are: hashed under the operator's key, or not at all.
    key: SubjectName,
}

#[derive(Debug, Serialize, Default)]
struct Shown {
    state: &'static str,
    /// In flight: until the claim's lock ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_ms: Option<u64>,
    /// Done: the answer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Done, with its body: how long that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes: Option<usize>,
    /// What was done to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'static str>,
    /// Absent, for an endpoint that no record has unless it is a configured template: how else it may be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

// === impl Order ===

impl Order {
    /// The order at a path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/v1/idempotency/look" => Some(Self::Look),
            "/v1/idempotency/release" => Some(Self::Release),
            "/v1/idempotency/delete" => Some(Self::Delete),
            _ => None,
        }
    }

    /// Who may.
    pub fn role(self) -> Role {
        match self {
            Self::Look => Role::Operator,
            // A request may then run a second time.
            Self::Release | Self::Delete => Role::Admin,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Look => "look up a record",
            Self::Release => "release a record",
            Self::Delete => "delete a record",
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Reads one; how it ended if that cannot be.
    pub fn read(order: Order, body: &[u8], settings: &ServiceSettings) -> Result<Self, Box<Done>> {
        const SHAPE: &str =
            r#"send {"tenant": "acme", "endpoint": "POST /orders/:int/refund", "key": "8e03978e"}"#;
        let RecordBody { tenant, endpoint, key } = serde_json::from_slice(body)
            .map_err(|error| bad(order.as_str(), &format!("{error}: {SHAPE}")))?;
        let name = RecordName::of(&settings.environment, &tenant, &endpoint, &key);
        let before = RecordName::with_words(&settings.environment, &tenant, &endpoint, &key);
        Ok(Self {
            order,
            name,
            before,
            tenant,
            endpoint,
            key: SubjectName::from_bytes(key.as_str().as_bytes()),
        })
    }

    /// What the audit trail says of it.
    pub fn told(&self) -> Told {
        let Self { order, tenant, endpoint, key, .. } = self;
        let (at, hidden) = endpoint::told(endpoint, false);
        let detail = format!("{} of tenant {} at {at}", order.as_str(), tenant.as_str());
        let subject = Subject { kind: SubjectKind::Header, name: key.clone() };
        let key = About { limit: ABOUT.to_owned(), subject };
        let about = [key].into_iter().chain(hidden).collect();
        Told { detail, tenant: Tenant::Named(tenant.clone()), about }
    }

    /// Carries it out.
    pub async fn run(&self, stores: &Stores) -> Result<String, Undone> {
        let claims = stores.of(StoreRole::Idempotency).claims();
        let none = || StoreFailure::Refused("this store keeps no claims".to_owned());
        let claims = claims.ok_or_else(none)?;
        let shown = self.carry_out(claims).await?;
        let hint = self.hint().filter(|_| shown.state == ABSENT);
        Ok(text(&Shown { hint, ..shown }))
    }

    async fn carry_out(&self, claims: &dyn Claims) -> Result<Shown, Undone> {
        let order = match self.order {
            Order::Look => None,
            Order::Release => Some(self.release(claims).await?),
            Order::Delete => Some(self.delete(claims).await?),
        };
        let shown = match (self.found(claims).await, order) {
            (Ok(found), _) => shown(&found),
            (Err(failure), None) => return Err(Undone::Before(failure)),
            (Err(failure), Some(_)) => {
                tracing::warn!(%failure, "a record could not be read behind an order");
                Shown { state: NOT_READ, ..Shown::default() }
            }
        };
        Ok(Shown { order, ..shown })
    }

    /// Every name under which something of it may lie.
    fn names(&self) -> impl Iterator<Item = &RecordName> {
        [Some(&self.name), self.before.as_ref()].into_iter().flatten()
    }

    /// What a retry meets, of either name. A claim of before that ended, or was taken over, through a gateway of today is no
    /// more.
    async fn found(&self, claims: &dyn Claims) -> Result<Found, StoreFailure> {
        let under = |name| claims.lookup(name, None, Writer::Gateway);
        let Some(before) = &self.before else { return under(&self.name).await };
        let old = under(before).await?;
        let is_over = old == Found::Unknown;
        if !is_over && !matches!(old, Found::Absent | Found::InFlight { .. }) {
            return Ok(old);
        }
        match (under(&self.name).await?, old) {
            (found, Found::Absent) => Ok(found),
            (done @ (Found::Done(_) | Found::Unreadable { .. }), _) => Ok(done),
            (live @ Found::InFlight { .. }, _) if is_over => Ok(live),
            (_, old) => Ok(old),
        }
    }

    async fn release(&self, claims: &dyn Claims) -> Result<&'static str, Undone> {
        const NOTHING: &str = "nothing: no claim is without an answer";
        // Where there is an answer a retry gets that, whatever is claimed under the other name.
        let found = self.found(claims).await.map_err(Undone::Before)?;
        if matches!(found, Found::Done(_) | Found::Unreadable { .. }) {
            return Ok(NOTHING);
        }
        let mut held = Vec::new();
        for name in self.names() {
            let holder = claims.holder(name).await.map_err(Undone::Before)?;
            held.extend(holder.map(|holder| (name, holder)));
        }
        let (mut said, mut released, all) = (NOTHING, 0, held.len());
        for (name, holder) in held {
            // By owner and fence: an answer that comes in between is not taken away.
            let abandoned = claims.abandon(name, holder, TTL_MS).await;
            match abandoned.map_err(|failure| undone(released, all, failure))? {
                Abandoned::Fenced => said = "nothing: it changed meanwhile",
                Abandoned::Freed | Abandoned::Remembered => {
                    released += 1;
                    said = if said == NOTHING { "released" } else { said };
                }
            }
        }
        Ok(said)
    }

    async fn delete(&self, claims: &dyn Claims) -> Result<&'static str, Undone> {
        let (mut deleted, all) = (0, self.names().count());
        for name in self.names() {
            let was_there = claims.delete(name).await;
            let was_there = was_there.map_err(|failure| undone(deleted, all, failure))?;
            deleted += usize::from(was_there);
        }
        Ok(if deleted > 0 { "deleted" } else { "nothing: there was none" })
    }

    /// Of a path with ids in it: how records have it.
    fn hint(&self) -> Option<String> {
        let (method, path) = self.endpoint.as_str().split_once(' ')?;
        // Neither a placeholder nor a template is a path: it would be taken for a literal.
        if path.contains("/:") || path.contains('{') {
            return None;
        }
        let named = Endpoint::of(method.as_bytes(), path.as_bytes(), None).ok()?;
        let other = (named != self.endpoint).then_some(named)?;
        Some(format!(
            "endpoints are recorded with ids replaced: {}, or the configured template",
            other.as_str()
        ))
    }
}

/// What came of an order under so many of its names before one failed.
fn undone(changed: usize, all: usize, failure: StoreFailure) -> Undone {
    match changed {
        0 => Undone::Itself(failure),
        changed => Undone::Part(changed, all, failure),
    }
}

fn shown(found: &Found) -> Shown {
    match found {
        Found::Absent => Shown { state: ABSENT, ..Shown::default() },
        Found::InFlight { wait_us } => {
            Shown { state: "in_flight", wait_ms: Some(wait_us.div_ceil(1_000)), ..Shown::default() }
        }
        Found::Done(answer) => Shown {
            state: "done",
            status: Some(answer.status),
            body_bytes: answer.body.as_ref().map(Vec::len),
            ..Shown::default()
        },
        Found::Unreadable { status } => {
            Shown { state: "unreadable", status: Some(*status), ..Shown::default() }
        }
        // Without a hash nothing is another request's.
        Found::Conflict | Found::Unknown => Shown { state: "unknown", ..Shown::default() },
    }
}

#[cfg(test)]
mod tests;
