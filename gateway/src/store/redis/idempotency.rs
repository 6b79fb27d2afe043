//! Owns the scripts of claims as the gateway calls them: their arguments and what their replies mean.
//! Knows neither names' spelling nor connections.

use std::borrow::Cow;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use redis::{Cmd, Script, Value};
use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{
    self, Abandoned, Begun, Claim, Completed, Extended, Fence, Found, HEAD_LEN, Held,
};
use tidegate_policy::idempotency::stored::{StoredAnswer, StoredHeaders};

use super::seal::{self, SealKeys};
use super::{RedisStore, failure};
use crate::clock::Clock;
use crate::store::claims::{Claims, Completion, Spread, Writer};
use crate::store::{Call, StoreFailure};
use crate::throttle::Throttle;

/// The scripts themselves; their headers list KEYS, ARGV and returns.
pub const TEXTS: [&str; 5] = [
    include_str!("../../../../lua/idem_begin.lua"),
    include_str!("../../../../lua/idem_lookup.lua"),
    include_str!("../../../../lua/idem_complete.lua"),
    include_str!("../../../../lua/idem_abandon.lua"),
    include_str!("../../../../lua/idem_extend.lua"),
];
/// A script then takes the server's own TIME. Only tests of the scripts give another.
const SERVER_TIME: &str = "0";
const LOG_INTERVAL_US: u64 = 10_000_000;

/// The scripts by their SHAs.
#[derive(Debug, Clone)]
pub struct ClaimScripts {
    begin: String,
    lookup: String,
    complete: String,
    abandon: String,
    extend: String,
}

/// What seals answers on their way in and opens them on their way out.
#[derive(Clone)]
pub struct Seal {
    keys: Option<Arc<SealKeys>>,
    clock: Arc<dyn Clock>,
    failures: Arc<Throttle>,
    unreadable: Counter,
}

// === impl ClaimScripts ===

impl ClaimScripts {
    /// Computes the SHAs.
    pub fn new() -> Self {
        let [begin, lookup, complete, abandon, extend] =
            TEXTS.map(|text| Script::new(text).get_hash().to_owned());
        Self { begin, lookup, complete, abandon, extend }
    }

    fn begin(&self, name: &RecordName, claim: &Claim) -> Cmd {
        let mut command = on_record(&self.begin, name);
        command.arg(SERVER_TIME).arg(claim.owner.to_bytes().as_slice());
        command.arg(claim.hash.as_bytes().as_slice()).arg(claim.lock_us).arg(claim.ttl_ms);
        command.arg(u8::from(claim.takeover));
        command
    }

    fn lookup(&self, name: &RecordName, hash: Option<&RequestHash>, by: Writer) -> Cmd {
        let mut command = on_record(&self.lookup, name);
        let hash = hash.map_or([].as_slice(), |hash| hash.as_bytes().as_slice());
        command.arg(SERVER_TIME).arg(hash).arg(u8::from(by == Writer::Anybody));
        command
    }

    fn complete(&self, name: &RecordName, completion: &Completion<'_>) -> Cmd {
        let Completion { held, hash, answer, ttl_ms } = *completion;
        let mut command = on_record(&self.complete, name);
        command.arg(SERVER_TIME).arg(held.owner.to_bytes().as_slice()).arg(held.fence);
        command.arg(hash.as_bytes().as_slice()).arg(ttl_ms).arg(answer.status);
        command.arg(u8::from(answer.body.is_some())).arg(answer.headers.to_bytes());
        command.arg(answer.body.as_deref().unwrap_or_default());
        command
    }

    fn abandon(&self, name: &RecordName, held: Held, keep_ms: u64) -> Cmd {
        let mut command = on_record(&self.abandon, name);
        command.arg(held.owner.to_bytes().as_slice()).arg(held.fence).arg(keep_ms);
        command
    }

    fn extend(&self, name: &RecordName, held: Held, lock_us: u64, ttl_ms: u64) -> Cmd {
        let mut command = on_record(&self.extend, name);
        command.arg(SERVER_TIME).arg(held.owner.to_bytes().as_slice()).arg(held.fence);
        command.arg(lock_us).arg(ttl_ms);
        command
    }
}

fn on_record(sha: &str, name: &RecordName) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(sha).arg(1).arg(name.as_str());
    command
}

// === impl Seal ===

impl Seal {
    /// Without keys.
    pub fn new(clock: &Arc<dyn Clock>, unreadable: Counter) -> Self {
        let failures = Arc::new(Throttle::new(1, LOG_INTERVAL_US));
        Self { keys: None, clock: Arc::clone(clock), failures, unreadable }
    }

    /// With these.
    pub fn with(self, keys: Option<Arc<SealKeys>>) -> Self {
        Self { keys, ..self }
    }

    fn sealed<'a>(
        &self,
        name: &RecordName,
        answer: &'a StoredAnswer,
    ) -> Option<Cow<'a, StoredAnswer>> {
        match &self.keys {
            Some(keys) => keys.seal(name, answer),
            None => Some(Cow::Borrowed(answer)),
        }
    }

    fn opened(&self, name: &RecordName, found: Found) -> Found {
        let Found::Done(answer) = found else { return found };
        let status = answer.status;
        seal::opened(self.keys.as_deref(), name, answer).map_or_else(
            |why| {
                self.unreadable.inc();
                if let Some(more) = self.failures.admit(self.clock.elapsed_us()) {
                    tracing::error!(%why, more, "a stored answer cannot be read");
                }
                Found::Unreadable { status }
            },
            Found::Done,
        )
    }
}

// === impl RedisStore ===

impl RedisStore {
    fn ask<T>(
        &self,
        name: &RecordName,
        command: Cmd,
        read: impl FnOnce(&Value) -> Option<T> + Send + 'static,
    ) -> Call<T>
    where
        T: Send + 'static,
    {
        let (servers, scripts) = (self.servers.clone(), self.scripts.clone());
        let name = name.clone();
        Box::pin(async move {
            let reply = servers.evaluate(name.as_str(), &command, &scripts).await?;
            // Not the reply itself: it may be a client's body.
            read(&reply).ok_or_else(|| {
                StoreFailure::Garbled("a script of claims: no reply that it gives".to_owned())
            })
        })
    }

    /// Runs one command where `name` lies. What the scripts are measured beside (`gateway/examples`).
    pub fn plain(&self, name: &RecordName, command: Cmd) -> Call<()> {
        self.ask(name, command, |_| Some(()))
    }
}

impl Claims for RedisStore {
    fn forgets(&self) -> bool {
        false
    }

    fn begin(&self, name: &RecordName, claim: &Claim) -> Call<Begun> {
        let call = self.ask(name, self.scripts.claims().begin(name, claim), begun);
        let (seal, name) = (self.seal.clone(), name.clone());
        Box::pin(async move {
            Ok(match call.await? {
                Begun::Found(found) => Begun::Found(seal.opened(&name, found)),
                begun => begun,
            })
        })
    }

    fn replicated(
        &self,
        name: &RecordName,
        claim: &Claim,
        fence: Fence,
        Spread { replicas, within }: Spread,
    ) -> Call<u8> {
        let held = Held { owner: claim.owner, fence };
        // Written once more, over this connection, and never claimed anew: the caller may have given the claim back by
        // the time that Redis comes to it, and somebody else may have it.
        let command = self.scripts.claims().extend(name, held, claim.lock_us, claim.ttl_ms);
        let (servers, scripts) = (self.servers.clone(), Arc::clone(&self.scripts));
        let name = name.clone();
        Box::pin(async move {
            let asked = servers.evaluate_apart(name.as_str(), &command, &scripts, replicas).await;
            let (mut live, reply) = asked?;
            if extended(&reply) != Some(Extended::Extended) {
                return Ok(0);
            }
            let acknowledged = live.acknowledged(replicas, within).await;
            acknowledged.map_err(|error| failure(&error))
        })
    }

    fn lookup(&self, name: &RecordName, hash: Option<&RequestHash>, by: Writer) -> Call<Found> {
        let command = self.scripts.claims().lookup(name, hash, by);
        let call = self.ask(name, command, |reply| match reply {
            Value::Array(parts) => found(parts),
            _ => None,
        });
        let (seal, name) = (self.seal.clone(), name.clone());
        Box::pin(async move { Ok(seal.opened(&name, call.await?)) })
    }

    fn complete(&self, name: &RecordName, completion: &Completion<'_>) -> Call<Completed> {
        let Some(answer) = self.seal.sealed(name, completion.answer) else {
            let why = "an answer cannot be sealed: the system gives no randomness".to_owned();
            return Box::pin(std::future::ready(Err(StoreFailure::Refused(why))));
        };
        let completion = Completion { answer: &answer, ..*completion };
        self.ask(name, self.scripts.claims().complete(name, &completion), |reply| match reply {
            Value::Int(1) => Some(Completed::Stored),
            Value::Int(2) => Some(Completed::AlreadyDone),
            Value::Int(0) => Some(Completed::Fenced),
            Value::Int(-1) => Some(Completed::Recovered),
            _ => None,
        })
    }

    fn abandon(&self, name: &RecordName, held: Held, keep_ms: u64) -> Call<Abandoned> {
        self.ask(name, self.scripts.claims().abandon(name, held, keep_ms), |reply| match reply {
            Value::Int(1) => Some(Abandoned::Freed),
            Value::Int(0) => Some(Abandoned::Fenced),
            Value::Int(-1) => Some(Abandoned::Remembered),
            _ => None,
        })
    }

    fn extend(&self, name: &RecordName, held: Held, lock_us: u64, ttl_ms: u64) -> Call<Extended> {
        let command = self.scripts.claims().extend(name, held, lock_us, ttl_ms);
        self.ask(name, command, extended)
    }

    fn holder(&self, name: &RecordName) -> Call<Option<Held>> {
        let mut command = redis::cmd("GETRANGE");
        // Who is at it stands in the head; behind it are only the ends of others.
        command.arg(name.as_str()).arg(0).arg(HEAD_LEN.saturating_sub(1));
        self.ask(name, command, |reply| match reply {
            Value::BulkString(head) => Some(record::in_flight(head)),
            Value::Nil => Some(None),
            _ => None,
        })
    }

    fn delete(&self, name: &RecordName) -> Call<bool> {
        let mut command = redis::cmd("DEL");
        command.arg(name.as_str());
        self.ask(name, command, |reply| match reply {
            Value::Int(deleted) => Some(*deleted > 0),
            _ => None,
        })
    }
}

/// A reply of idem_extend.
fn extended(reply: &Value) -> Option<Extended> {
    match reply {
        Value::Int(1) => Some(Extended::Extended),
        Value::Int(0) => Some(Extended::Fenced),
        Value::Int(-1) => Some(Extended::Gone),
        _ => None,
    }
}

/// A reply of idem_begin.
fn begun(reply: &Value) -> Option<Begun> {
    let Value::Array(parts) = reply else {
        return None;
    };
    match parts.as_slice() {
        [Value::Int(0)] => Some(Begun::Spent),
        [Value::Int(code @ (1 | 7)), Value::Int(fence)] => {
            let fence = Fence::try_from(*fence).ok().filter(|fence| *fence > 0)?;
            Some(Begun::Claimed { fence, taken_over: *code == 7 })
        }
        // Only a lookup says so.
        [Value::Int(8)] => None,
        parts => found(parts).map(Begun::Found),
    }
}

/// What idem_begin and idem_lookup have in common.
fn found(parts: &[Value]) -> Option<Found> {
    match parts {
        [Value::Int(2), Value::Int(wait_us)] => {
            let wait_us = u64::try_from(*wait_us).ok().filter(|wait_us| *wait_us > 0)?;
            Some(Found::InFlight { wait_us })
        }
        [
            Value::Int(3),
            Value::Int(status),
            Value::BulkString(headers),
            Value::BulkString(body),
        ] => answer(*status, headers, Some(body.clone())),
        [Value::Int(4)] => Some(Found::Conflict),
        [Value::Int(5)] => Some(Found::Unknown),
        [Value::Int(6), Value::Int(status), Value::BulkString(headers)] => {
            answer(*status, headers, None)
        }
        [Value::Int(8)] => Some(Found::Absent),
        _ => None,
    }
}

fn answer(status: i64, headers: &[u8], body: Option<Vec<u8>>) -> Option<Found> {
    let status = u16::try_from(status).ok()?;
    let headers = StoredHeaders::from_bytes(headers)?;
    Some(Found::Done(StoredAnswer { status, headers, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(parts: &[Value]) -> Value {
        Value::Array(parts.to_vec())
    }

    fn octets(octets: &[u8]) -> Value {
        Value::BulkString(octets.to_vec())
    }

    #[test]
    fn a_reply_is_read_or_refused_never_repaired() {
        use Value::Int;
        let headers = StoredHeaders::default();
        let done = |body| {
            Begun::Found(Found::Done(StoredAnswer { status: 201, headers: headers.clone(), body }))
        };
        let good = [
            (list(&[Int(0)]), Begun::Spent),
            (list(&[Int(1), Int(3)]), Begun::Claimed { fence: 3, taken_over: false }),
            (list(&[Int(2), Int(9)]), Begun::Found(Found::InFlight { wait_us: 9 })),
            (list(&[Int(3), Int(201), octets(b""), octets(b"\0")]), done(Some(b"\0".to_vec()))),
            (list(&[Int(4)]), Begun::Found(Found::Conflict)),
            (list(&[Int(5)]), Begun::Found(Found::Unknown)),
            (list(&[Int(6), Int(201), octets(b"")]), done(None)),
            (list(&[Int(7), Int(4)]), Begun::Claimed { fence: 4, taken_over: true }),
        ];
        for (reply, expected) in good {
            assert_eq!(begun(&reply), Some(expected), "{reply:?}");
        }
        assert_eq!(found(&[Int(8)]), Some(Found::Absent));
        let bad = [
            Value::Nil,
            Int(1),
            list(&[]),
            list(&[Int(1)]),
            list(&[Int(1), Int(0)]),
            list(&[Int(1), Int(-1)]),
            list(&[Int(2), Int(0)]),
            list(&[Int(3), Int(201), octets(b"")]),
            list(&[Int(3), Int(70_000), octets(b""), octets(b"")]),
            list(&[Int(3), Int(201), octets(b"\0"), octets(b"")]),
            list(&[Int(6), Int(201), octets(b""), octets(b"x")]),
            list(&[Int(8)]),
            list(&[Int(9)]),
        ];
        for reply in bad {
            assert_eq!(begun(&reply), None, "{reply:?}");
        }
    }
}
