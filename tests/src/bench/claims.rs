//! Owns claims of keys as benchmarks make them: callers of one gateway that wait for their answers, or that keep
//! a timetable.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::fingerprint::{HashRule, Head, RequestHasher};
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::stored::{HeaderRule, StoredAnswer};
use tidegate_policy::scope::{CallerScope, Environment, KeyFormat, Tenant, TenantId};
use tidegate_policy::wire::{
    self, AnswerHead, ClaimCall, DECIDE_PATH, DecideRequest, DecisionId, Finish, FinishBy, Keyed,
    SETTLE_PATH, SettleRequest,
};
use tokio::runtime::Builder;

use super::callers::{Connections, by_timetable, without_a_pause};
use super::question;

/// Of an answer.
pub const BODY_OCTETS: usize = 1024;
const LIFE_S: u32 = 86_400;

/// Connections to one gateway, and claims that nobody else makes.
pub struct Callers {
    connections: Arc<Connections>,
    next: AtomicU64,
}

/// What a caller does before it begins again.
#[derive(Clone, Copy)]
pub enum Round {
    /// A limit, for comparison.
    Decision,
    /// Begin.
    Begin,
    /// Begin and complete.
    Both,
}

/// What became of the pairs of a timetable.
pub struct Offered {
    /// How long each begin took from when it was due, in order.
    pub begun: Vec<Duration>,
    /// How long each complete took, in order.
    pub ended: Vec<Duration>,
    /// How many failed.
    pub failed: usize,
}

// === impl Callers ===

impl Callers {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> Result<Arc<Self>, String> {
        let connections = Connections::open(to).await?;
        Ok(Arc::new(Self { connections, next: AtomicU64::new(1) }))
    }

    /// If it was answered well, how long that took from `due` on.
    async fn timed(
        &self,
        nth: u64,
        path: &'static str,
        sent: Bytes,
        due: Instant,
    ) -> Option<Duration> {
        let (status, body) = self.connections.post(nth, path, sent).await?;
        let took = due.elapsed();
        let text = String::from_utf8_lossy(&body);
        let done = path == DECIDE_PATH || text.contains("\"stored\"");
        let claimed = path == SETTLE_PATH || !text.contains("\"in_flight\"");
        (status == 200 && done && claimed).then_some(took)
    }

    /// Rounds per second of so many callers that wait for their answers and ask again.
    pub async fn eager(self: &Arc<Self>, callers: u32, lasts: Duration, round: Round) -> f64 {
        let all = Arc::clone(self);
        without_a_pause(callers, lasts, move |caller| {
            let all = Arc::clone(&all);
            async move {
                let nth = all.next.fetch_add(1, Ordering::Relaxed);
                let sent = match round {
                    Round::Decision => question::body(caller),
                    Round::Begin | Round::Both => claim(nth),
                };
                let now = Instant::now();
                let is_begun = all.timed(nth, DECIDE_PATH, sent.into(), now).await.is_some();
                if !is_begun || !matches!(round, Round::Both) {
                    return is_begun;
                }
                all.timed(nth, SETTLE_PATH, complete(nth).into(), now).await.is_some()
            }
        })
        .await
    }
}

// === impl Offered ===

impl Offered {
    /// Pairs of begin and complete, so many a second. One thread sends and reads them: several would wake each
    /// other, on cores that the gateway and Redis need.
    pub async fn measure(
        to: SocketAddr,
        pairs_per_s: u64,
        lasts: Duration,
    ) -> Result<Self, String> {
        let measured = tokio::task::spawn_blocking(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(Self::here(to, pairs_per_s, lasts))
        });
        measured.await.map_err(|error| error.to_string())?
    }

    async fn here(to: SocketAddr, pairs_per_s: u64, lasts: Duration) -> Result<Self, String> {
        let callers = Callers::connect(to).await?;
        // Written beforehand, a second more than are due: that takes none of the gateway's time.
        let count = pairs_per_s * (lasts.as_secs() + 1);
        let messages = (0..count).map(|nth| (Bytes::from(claim(nth)), Bytes::from(complete(nth))));
        let mut messages: Vec<_> = messages.collect();
        let pairs = by_timetable(pairs_per_s, lasts, |nth, due| {
            let callers = Arc::clone(&callers);
            let (begin, end) = mem::take(&mut messages[usize::try_from(nth).expect("64 bits")]);
            async move {
                let begun = callers.timed(nth, DECIDE_PATH, begin, due).await?;
                let ended = callers.timed(nth, SETTLE_PATH, end, Instant::now()).await?;
                Some((begun, ended))
            }
        });
        let pairs = pairs.await;
        let failed = pairs.iter().filter(|pair| pair.is_none()).count();
        let (mut begun, mut ended): (Vec<_>, Vec<_>) = pairs.into_iter().flatten().unzip();
        begun.sort_unstable();
        ended.sort_unstable();
        Ok(Self { begun, ended, failed })
    }
}

fn scope() -> CallerScope {
    CallerScope {
        region: None,
        environment: Environment::default(),
        tenant: Tenant::Named(TenantId::new("bench").expect("a tenant")),
        key_format: KeyFormat::default(),
    }
}

fn keyed(nth: u64) -> Keyed {
    let head = Head { authority: None, method: b"POST", target: b"/v1/orders", content_type: None };
    let hasher = RequestHasher::new(&head, None, HashRule::default()).expect("no body");
    Keyed {
        key: IdempotencyKey::new(&format!("8e03978e-40d5-43e8-bc93-{nth:012}")).expect("a key"),
        endpoint: Endpoint::of(b"POST", b"/v1/orders", None).expect("an endpoint"),
        configured: false,
        hash: hasher.finish(),
    }
}

fn claim(nth: u64) -> Vec<u8> {
    wire::encode(&DecideRequest {
        claim: Some(ClaimCall {
            keyed: keyed(nth),
            lock_ms: 15_000,
            life_s: LIFE_S,
            takeover: false,
            look: false,
            older_keys: false,
            ephemeral: false,
            replicas: None,
        }),
        leases: Vec::new(),
        v: wire::VERSION,
        id: DecisionId::new(nth.into()),
        scope: scope(),
        timeout_ms: 5_000,
        traceparent: None,
        request_id: None,
        limits: Vec::new(),
    })
}

fn complete(nth: u64) -> Vec<u8> {
    let headers: [(&[u8], &[u8]); 1] = [(b"content-type", b"application/json")];
    let headers = HeaderRule::default().kept(headers).expect("few");
    let answer = StoredAnswer { status: 201, headers, body: Some(vec![b'x'; BODY_OCTETS]) };
    let (answer, octets) = AnswerHead::of(&answer).expect("short");
    let by = FinishBy::Complete { answer, life_s: LIFE_S };
    let message = SettleRequest {
        v: wire::VERSION,
        id: DecisionId::new(nth.into()),
        scope: scope(),
        timeout_ms: 5_000,
        age_us: 0,
        traceparent: None,
        request_id: None,
        adjustments: Vec::new(),
        finish: Some(Finish { keyed: keyed(nth), fence: 1, by }),
        octets: Vec::new(),
    };
    wire::encode_framed(&message, &octets)
}
