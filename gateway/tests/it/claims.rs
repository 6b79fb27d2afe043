//! Claims over HTTP, through gateways: beside a decision and finished with its settlement.

use std::time::Duration;

use http::Method;
use tidegate_gateway::Running;
use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::fingerprint::{HashRule, Head, RequestHasher};
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::stored::{BODY_LEN_MAX, HeaderRule, StoredAnswer};
use tidegate_policy::scope::{Tenant, TenantId};
use tidegate_policy::wire::{
    AnswerHead, ClaimCall, ClaimState, DecideReply, DecideRequest, DecisionId, Finish, FinishBy,
    Finished, Keyed, OCTETS_MAX, SETTLE_PATH, SettleReply, SettleRequest, VERSION, Verdict,
    encode_framed,
};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

use crate::bench::{CALM, Caller, Speaks, TOKEN, question, request, settings, start};

const PATIENCE: Duration = Duration::from_secs(60);

fn keyed(order: u32, key: &str) -> Keyed {
    let target = format!("/v1/orders/{order}/refund");
    let head =
        Head { authority: None, method: b"POST", target: target.as_bytes(), content_type: None };
    let hasher = RequestHasher::new(&head, None, HashRule::default()).expect("no body");
    Keyed {
        key: IdempotencyKey::new(key).expect("a key"),
        endpoint: Endpoint::of(b"POST", target.as_bytes(), None).expect("an endpoint"),
        configured: false,
        hash: hasher.finish(),
    }
}

/// The question of one decision, with a claim for a refund of an order.
pub fn asked(id: u128, tenant: &str, order: u32, key: &str) -> DecideRequest {
    let mut asked = question("203.0.113.7");
    asked.id = DecisionId::new(id);
    asked.timeout_ms = 5_000;
    asked.scope.tenant = Tenant::Named(TenantId::new(tenant).expect("a tenant"));
    asked.limits.clear();
    asked.claim = Some(ClaimCall {
        keyed: keyed(order, key),
        lock_ms: 600_000,
        life_s: 86_400,
        takeover: false,
        look: false,
        older_keys: false,
        ephemeral: false,
        replicas: None,
    });
    asked
}

pub async fn decide(gateway: &Running, asked: &DecideRequest) -> DecideReply {
    let caller = Caller::new(Speaks::Http2);
    eventually(PATIENCE, "a verdict", async || {
        let answer = caller.decide(gateway.data_addr, asked).await;
        if answer.status != 200 {
            return Err(answer.text());
        }
        DecideReply::decode(&answer.body, asked.id).map_err(|error| error.to_string())
    })
    .await
}

async fn state(gateway: &Running, asked: &DecideRequest) -> Option<ClaimState> {
    decide(gateway, asked).await.claim
}

async fn finish(
    gateway: &Running,
    asked: &DecideRequest,
    fence: u64,
    by: FinishBy,
    octets: Vec<u8>,
) -> Option<Finished> {
    let keyed = asked.claim.as_ref().expect("a claim").keyed.clone();
    let message = SettleRequest {
        v: VERSION,
        id: asked.id,
        scope: asked.scope.clone(),
        timeout_ms: 5_000,
        age_us: 0,
        traceparent: None,
        request_id: None,
        adjustments: Vec::new(),
        finish: Some(Finish { keyed, fence, by }),
        octets,
    };
    let body = encode_framed(&message, &message.octets);
    let sent = request(gateway.data_addr, Method::POST, SETTLE_PATH, Some(TOKEN), body);
    let answer = Caller::new(Speaks::Http1).send(sent).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    SettleReply::decode(&answer.body, asked.id).expect("a reply").finish
}

/// Claims, and ends the claim with an answer.
pub async fn complete_one(gateway: &Running, asked: &DecideRequest) {
    assert_eq!(state(gateway, asked).await, CLAIMED);
    let (by, octets) = complete(&answer(Vec::new()));
    assert_eq!(finish(gateway, asked, 1, by, octets).await, Some(Finished::Stored));
}

/// Completes what was claimed in a store that knows nothing of it any more.
pub async fn complete_a_lost_one(gateway: &Running, asked: &DecideRequest) {
    let (by, octets) = complete(&answer(Vec::new()));
    assert_eq!(finish(gateway, asked, 1, by, octets).await, Some(Finished::Recovered));
}

/// Claims under one id, and again under the other as soon as nobody knows what became of the first.
pub async fn take_over(gateway: &Running, (first, second): (u128, u128), key: &str) {
    let asked = |id| {
        let mut asked = asked(id, "acme", 1, key);
        let claim = asked.claim.as_mut().expect("a claim");
        (claim.lock_ms, claim.takeover) = (1, true);
        asked
    };
    assert_eq!(state(gateway, &asked(first)).await, CLAIMED);
    eventually(PATIENCE, "a takeover", async || match state(gateway, &asked(second)).await {
        Some(ClaimState::Claimed { fence: 2, taken_over: true, .. }) => Ok(()),
        other => Err(other),
    })
    .await;
}

fn answer(body: Vec<u8>) -> StoredAnswer {
    let headers: [(&[u8], &[u8]); 2] = [(b"location", b"/refunds/1"), (b"set-cookie", b"s=1")];
    let headers = HeaderRule::default().kept(headers).expect("few");
    StoredAnswer { status: 201, headers, body: Some(body) }
}

fn complete(answer: &StoredAnswer) -> (FinishBy, Vec<u8>) {
    let (answer, octets) = AnswerHead::of(answer).expect("not too long");
    (FinishBy::Complete { answer, life_s: 86_400 }, octets)
}

const CLAIMED: Option<ClaimState> = claimed(1);

const fn claimed(fence: u64) -> Option<ClaimState> {
    Some(ClaimState::Claimed { fence, taken_over: false, replicas: None })
}

#[tokio::test]
async fn a_retry_through_another_gateway_gets_the_first_answer() {
    let redis = Redis::start().await;
    let flags = format!("--redis-url {} {CALM}", redis.url());
    let (one, other) = (start(settings(&flags)).await, start(settings(&flags)).await);
    let every: Vec<u8> = (0..=u8::MAX).collect();
    for (index, body) in [Vec::new(), every.repeat(BODY_LEN_MAX / 256)].into_iter().enumerate() {
        let key = format!("k-{index}");
        let first = asked(1, "acme", 1, &key);
        let retry = asked(2, "acme", 1, &key);
        assert_eq!(state(&one, &first).await, CLAIMED);
        assert_eq!(state(&one, &first).await, CLAIMED, "the reply was lost: the same claim");
        let waits = state(&other, &retry).await;
        assert!(matches!(waits, Some(ClaimState::InFlight { .. })), "{waits:?}");
        let answer = answer(body);
        let (by, octets) = complete(&answer);
        assert_eq!(finish(&one, &first, 1, by, octets.clone()).await, Some(Finished::Stored));
        assert_eq!(finish(&one, &first, 1, by, octets).await, Some(Finished::AlreadyDone));
        let replay = decide(&other, &retry).await;
        assert_eq!(replay.answer(), Ok(Some(answer)), "octet for octet");

        let of_another_order = asked(3, "acme", 2, &key);
        assert_eq!(state(&one, &of_another_order).await, Some(ClaimState::Conflict));
        let of_another_tenant = asked(4, "umbrella", 1, &key);
        assert_eq!(state(&one, &of_another_tenant).await, CLAIMED);
    }
}

#[tokio::test]
async fn what_is_given_back_runs_again_and_a_look_claims_nothing() {
    let redis = Redis::start().await;
    let gateway = start(settings(&format!("--redis-url {} {CALM}", redis.url()))).await;
    let mut look = asked(1, "acme", 1, "k");
    look.claim.as_mut().expect("a claim").look = true;
    assert_eq!(state(&gateway, &look).await, Some(ClaimState::Absent));
    let first = asked(2, "acme", 1, "k");
    assert_eq!(state(&gateway, &first).await, CLAIMED);
    let extend = FinishBy::Extend { lock_ms: 600_000, life_s: 86_400 };
    assert_eq!(finish(&gateway, &first, 1, extend, Vec::new()).await, Some(Finished::Extended));
    let abandon = FinishBy::Abandon { life_s: 60 };
    assert_eq!(finish(&gateway, &first, 0, abandon, Vec::new()).await, Some(Finished::Freed));
    assert_eq!(state(&gateway, &first).await, Some(ClaimState::Spent));
    let retry = state(&gateway, &asked(3, "acme", 1, "k")).await;
    assert_eq!(retry, claimed(2));
}

/// Nothing is claimed by a request that its limits deny.
#[tokio::test]
async fn a_denied_request_claims_nothing() {
    let redis = Redis::start().await;
    let gateway = start(settings(&format!("--redis-url {} {CALM}", redis.url()))).await;
    let mut both = asked(1, "acme", 1, "k");
    both.limits = question("203.0.113.9").limits;
    both.limits[0].cost = 5;
    let admitted = decide(&gateway, &both).await;
    assert_eq!((admitted.verdict, admitted.claim), (Verdict::Allow, CLAIMED));
    let mut denied = asked(2, "acme", 1, "other");
    denied.limits = both.limits.clone();
    let reply = decide(&gateway, &denied).await;
    assert_eq!((reply.verdict, reply.claim), (Verdict::Deny, None));
    assert_eq!(state(&gateway, &asked(3, "acme", 1, "other")).await, CLAIMED);
}

/// Records belong to their store: regions with stores of their own are apart. And a store that
/// forgets claims only for those who said that it will do.
#[tokio::test]
async fn regions_with_stores_of_their_own_are_apart() {
    let here = start(settings(&format!("{CALM} --region here"))).await;
    let there = start(settings(&format!("{CALM} --region there"))).await;
    let strict = asked(1, "acme", 1, "k");
    assert_eq!(state(&here, &strict).await, Some(ClaimState::Forgets));
    let mut lax = strict;
    lax.claim.as_mut().expect("a claim").ephemeral = true;
    for gateway in [&here, &there] {
        assert_eq!(state(gateway, &lax).await, CLAIMED);
    }

    let redis = Redis::start().await;
    let flags = format!("--redis-url {} {CALM} --region", redis.url());
    let here = start(settings(&format!("{flags} here"))).await;
    let there = start(settings(&format!("{flags} there"))).await;
    assert_eq!(state(&here, &asked(1, "acme", 1, "k")).await, CLAIMED);
    let shared = state(&there, &asked(2, "acme", 1, "k")).await;
    assert!(matches!(shared, Some(ClaimState::InFlight { .. })), "they share it: {shared:?}");
}

#[tokio::test]
async fn keys_of_an_older_system_are_never_run_again() {
    let redis = Redis::start().await;
    let gateway = start(settings(&format!("--redis-url {} {CALM}", redis.url()))).await;
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let set =
        redis::cmd("SET").arg("idempotency:old-1").arg("{}").exec_async(&mut connection).await;
    set.expect("set");
    for (key, older_keys, expected) in [
        ("old-1", true, Some(ClaimState::Unknown)),
        ("new-1", true, CLAIMED),
        ("old-1", false, CLAIMED),
    ] {
        let mut asked = asked(1, "acme", 1, key);
        asked.claim.as_mut().expect("a claim").older_keys = older_keys;
        assert_eq!(state(&gateway, &asked).await, expected, "{key} {older_keys}");
    }
}

#[tokio::test]
async fn a_message_with_too_much_behind_it_is_refused() {
    let gateway = start(settings(CALM)).await;
    for len in [OCTETS_MAX + 1, 4 * OCTETS_MAX] {
        let body = encode_framed(&1, &vec![7; len]);
        let sent = request(gateway.data_addr, Method::POST, SETTLE_PATH, Some(TOKEN), body);
        let answer = Caller::new(Speaks::Http1).send(sent).await;
        assert!(matches!(answer.status.as_u16(), 400 | 413), "{len}: {}", answer.status);
        assert_eq!(answer.reason(), "bad-message");
    }
}
