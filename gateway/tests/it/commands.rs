//! Operators' commands: what is on record of them, whoever hangs up, and what they say of what nobody knows.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidegate_gateway::store::Stores;
use tidegate_gateway::{Cores, Gateway, Running, Settings, World};
use tidegate_policy::audit::{About, Action, AuditEvent, AuditSink};
use tidegate_policy::identity::SubjectName;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bench::{
    ADMIN, Answer, Caller, GatedStore, Speaks, VIEWER, decides, question, request, settings, start,
};

const PATIENCE: Duration = Duration::from_secs(60);
const COLD: &str = r#"{"temperature": "cold"}"#;

/// Keeps every event.
#[derive(Default)]
pub struct Events(Mutex<Vec<AuditEvent>>);

impl AuditSink for Events {
    fn record(&self, event: AuditEvent) {
        self.0.lock().expect("no panic").push(event);
    }
}

impl Events {
    /// Those of operators: how they ended, and what the detail says.
    pub fn of(&self, action: Action) -> Vec<(String, String, String)> {
        let events = self.0.lock().expect("no panic");
        let those = events.iter().filter(|event| event.action == action);
        let parts = |e: &AuditEvent| (e.actor.clone(), e.outcome.clone(), e.detail.clone());
        those.map(parts).collect()
    }
}

pub async fn watched(settings: Settings, stores: Option<Stores>) -> (Running, Arc<Events>) {
    let events = Arc::new(Events::default());
    let world = World::from_settings(&settings, Cores::here()).expect("a world");
    let world = World { audit: events.clone(), ..world };
    let world = match stores {
        Some(stores) => world.with_stores(stores),
        None => world,
    };
    (Gateway::start(settings, world).await.expect("a gateway"), events)
}

/// A command over a connection of its own, which ends as soon as the store has been asked.
async fn ask_and_leave(to: SocketAddr, store: &GatedStore) {
    let mut stream = TcpStream::connect(to).await.expect("connected");
    let head = format!(
        "POST /v1/region HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: {}\r\n\r\n{COLD}",
        COLD.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    eventually(PATIENCE, "the command has begun", async || {
        if store.calls.load(Ordering::SeqCst) == 1 { Ok(()) } else { Err("not yet") }
    })
    .await;
}

fn on_record(actor: &str, outcome: &str, detail: &str) -> (String, String, String) {
    (actor.to_owned(), outcome.to_owned(), detail.to_owned())
}

#[tokio::test]
async fn a_command_ends_on_record_although_its_caller_has_hung_up() {
    let store = GatedStore::new(false);
    let stores = Stores::single(store.clone());
    let (gateway, events) = watched(settings("--region here"), Some(stores)).await;
    ask_and_leave(gateway.admin_addr, &store).await;
    let metrics = Caller::new(Speaks::Http1);
    eventually(PATIENCE, "the gateway saw the caller go", async || {
        let text = metrics.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
        if text.contains("callers_gone_total 1\n") { Ok(()) } else { Err(text) }
    })
    .await;
    let detail = "region here default: cold";
    let begun = on_record("bo", "begun", detail);
    let of_bo = || {
        let all = events.of(Action::Admin).into_iter();
        all.filter(|(actor, _, _)| actor == "bo").collect::<Vec<_>>()
    };
    assert_eq!(of_bo(), std::slice::from_ref(&begun));
    store.gate.send_replace(true);
    eventually(PATIENCE, "the end is on record", async || {
        let all = of_bo();
        if all == [begun.clone(), on_record("bo", "ok", detail)] { Ok(()) } else { Err(all) }
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_process_waits_for_a_command_that_has_begun() {
    let store = GatedStore::new(false);
    let stores = Stores::single(store.clone());
    let (gateway, events) = watched(settings(""), Some(stores)).await;
    let to = gateway.admin_addr;
    ask_and_leave(to, &store).await;
    let ended = tokio::spawn(gateway.shutdown());
    eventually(PATIENCE, "the listener is gone", async || match TcpStream::connect(to).await {
        Ok(_connected) => Err("accepted"),
        Err(_refused) => Ok(()),
    })
    .await;
    store.gate.send_replace(true);
    assert!(ended.await.expect("no panic"));
    let outcomes: Vec<_> = events.of(Action::Admin).into_iter().map(|(_, said, _)| said).collect();
    assert_eq!(outcomes, ["begun", "ok"]);
}

#[tokio::test]
async fn a_command_that_meets_a_fault_of_ours_ends_on_record_too() {
    let store = GatedStore::new(true);
    let (gateway, events) = watched(settings(""), Some(Stores::single(store))).await;
    let answer = send(&gateway, "/v1/region", COLD).await;
    assert_eq!((answer.status.as_u16(), answer.marked()), (500, false));
    let outcomes: Vec<_> = events.of(Action::Admin).into_iter().map(|(_, said, _)| said).collect();
    assert_eq!(outcomes, ["begun", "panicked"]);
}

pub async fn send(gateway: &Running, path: &str, body: impl Into<String>) -> Answer {
    let call = request(gateway.admin_addr, Method::POST, path, Some(ADMIN), body.into());
    Caller::new(Speaks::Http1).send(call).await
}

/// Before a command is carried out it is on record what it is; never a key, and a subject only where the chain hashes
/// it.
#[tokio::test]
async fn what_a_command_is_about_is_on_record_before_it_is_carried_out() {
    let (gateway, events) = watched(settings(""), None).await;
    decides(&gateway, &question("203.0.113.7")).await;
    let subject = r#""subject": {"kind": "ip", "name": "203.0.113.7"}"#;
    let rows = [
        (
            "/v1/limits/inspect",
            format!(r#"{{"limit": "p.one", {subject}}}"#),
            "inspect p.one of one ip".to_owned(),
        ),
        ("/v1/limits/hot", String::new(), "the hottest keys".to_owned()),
        ("/v1/breakers", String::new(), "the breakers".to_owned()),
        (
            "/v1/limits/reset",
            format!(r#"{{"limit": "p.one", {subject}}}"#),
            "reset p.one of one ip".to_owned(),
        ),
        (
            "/v1/limits/grant",
            format!(r#"{{"limit": "p.one", {subject}, "units": 2, "seconds": 9}}"#),
            "grant p.one of one ip: 2 units for 9 s".to_owned(),
        ),
        (
            "/v1/breakers/order",
            r#"{"breaker": "pay:203.0.113.7", "order": "trip"}"#.to_owned(),
            "breaker pay trip: for 0 s".to_owned(),
        ),
        (
            "/v1/idempotency/look",
            r#"{"tenant": "acme", "endpoint": "POST /orders/:int", "key": "top-secret"}"#
                .to_owned(),
            "look up a record of tenant acme at POST".to_owned(),
        ),
        (
            "/v1/idempotency/release",
            r#"{"tenant": "acme", "endpoint": "POST /orders/:int", "key": "top-secret"}"#
                .to_owned(),
            "release a record of tenant acme at POST".to_owned(),
        ),
        (
            "/v1/idempotency/delete",
            r#"{"tenant": "acme", "endpoint": "POST /orders/:int", "key": "top-secret"}"#
                .to_owned(),
            "delete a record of tenant acme at POST".to_owned(),
        ),
    ];
    for (path, body, detail) in rows {
        let before = events.of(Action::Admin).len();
        let method = if body.is_empty() { Method::GET } else { Method::POST };
        let call = request(gateway.admin_addr, method, path, Some(ADMIN), body);
        assert_eq!(Caller::new(Speaks::Http1).send(call).await.status, 200, "{path}");
        let all = events.of(Action::Admin);
        let both = [on_record("bo", "begun", &detail), on_record("bo", "ok", &detail)];
        // Who only looks changes nothing, and is on record once.
        let looks = ["/inspect", "/hot", "/breakers", "/look"].iter().any(|l| path.ends_with(l));
        let told = &both[usize::from(looks)..];
        assert_eq!(&all[before..], told, "{path}");
    }
    let events = events.0.lock().expect("no panic");
    let told = events.iter().filter(|event| event.action == Action::Admin);
    let about: Vec<_> = told.flat_map(|event| &event.about).collect();
    let each = |limit: &str, name: &str| {
        let is_it = |about: &&About| about.limit == limit && about.subject.name.as_str() == name;
        about.iter().copied().filter(is_it).count()
    };
    assert_eq!(each("p.one", "203.0.113.7"), 5, "of reset and grant, each twice: {about:?}");
    assert_eq!(each("idempotency-key", "top-secret"), 5, "of a look once: {about:?}");
    let at = SubjectName::from_bytes(b"POST /orders/:int");
    assert_eq!(each("endpoint", at.as_str()), 5, "what no configuration names: {about:?}");
    assert_eq!(about.len(), 15, "{about:?}");
}

pub async fn told(gateway: &Running, path: &str, body: impl Into<String>) -> Value {
    let answer = send(gateway, path, body).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

pub fn of_subject(kind: &str, name: &str) -> Value {
    json!({"limit": "p.one", "subject": {"kind": kind, "name": name}})
}

/// A subject of another spelling is nobody, and a command for nobody changes nothing: whoever gave it has to be told.
#[tokio::test]
async fn a_command_says_whether_anything_is_kept_of_its_subject() {
    let redis = Redis::start().await;
    for flags in [String::new(), format!("--redis-url {}", redis.url())] {
        let gateway = start(settings(&flags)).await;
        decides(&gateway, &question("203.0.113.7")).await;
        decides(&gateway, &question("2001:db8::/64")).await;
        let network = "2001%3Adb8%3A%3A%2F64";
        for (name, known, subject) in [
            ("203.0.113.7", true, "203.0.113.7"),
            ("203.0.113.8", false, "203.0.113.8"),
            (network, true, network),
            ("2001:db8::77", true, network),
            ("2001:db8::77/64", true, network),
            ("2001%3Adb8%3A%3A1", true, network),
            ("2001:db8::77/56", false, "2001%3Adb8%3A%3A%2F56"),
            ("::ffff:203.0.113.7", true, "203.0.113.7"),
        ] {
            let seen =
                told(&gateway, "/v1/limits/inspect", of_subject("ip", name).to_string()).await;
            let expected = (&json!(known), &json!(subject));
            assert_eq!((&seen["known"], &seen["subject"]), expected, "{flags} {name}");
        }
        let mut grant = of_subject("ip", "203.0.113.9");
        (grant["units"], grant["seconds"]) = (json!(3), json!(60));
        for known in [false, true] {
            let seen = told(&gateway, "/v1/limits/grant", grant.to_string()).await;
            assert_eq!((&seen["known"], &seen["remaining"]), (&json!(known), &json!(8)), "{flags}");
        }
        for known in [true, false] {
            let one = of_subject("ip", "2001:db8::5").to_string();
            let seen = told(&gateway, "/v1/limits/reset", one).await;
            assert_eq!(seen["known"], json!(known), "{flags}");
        }
        for (kind, name) in [("tenant", "acme"), ("combined", "tenant!acme+ip!192.0.2.7")] {
            for path in ["/v1/limits/inspect", "/v1/limits/reset", "/v1/limits/grant"] {
                let mut asked = of_subject(kind, name);
                let answer = send(&gateway, path, asked.to_string()).await;
                assert_eq!(answer.status, 400, "{path} {kind}");
                assert!(answer.text().contains("counts by the tenant: send its name"));
                asked["tenant"] = json!("acme");
                if path == "/v1/limits/inspect" {
                    assert_eq!(
                        told(&gateway, path, asked.to_string()).await["known"],
                        json!(false)
                    );
                }
            }
        }
        let wrong =
            send(&gateway, "/v1/limits/reset", of_subject("ip", "2001:db8::/0").to_string());
        assert_eq!(wrong.await.status, 400, "no network is that wide");
    }
}

/// An order may come before the first report, so it is taken; a slip of the pen has to show all the same.
#[tokio::test]
async fn an_order_says_whether_anybody_knows_the_breaker() {
    let redis = Redis::start().await;
    for flags in [String::new(), format!("--redis-url {}", redis.url())] {
        let gateway = start(settings(&flags)).await;
        decides(&gateway, &question("203.0.113.7")).await;
        for (breaker, order, known) in [
            ("pay", "force_open", false),
            ("pay", "reset", true),
            ("hosts", "reset", false),
            ("users:a", "trip", false),
            ("users", "disable", true),
            ("users", "trip", true),
            ("users:b", "trip", false),
        ] {
            let body = json!({"breaker": breaker, "order": order}).to_string();
            let said = told(&gateway, "/v1/breakers/order", body).await;
            assert_eq!(said["known"], json!(known), "{flags} {breaker} {order}: {said}");
            assert_eq!(said["breaker"], json!(breaker));
        }
    }
}

#[tokio::test]
async fn an_endpoint_with_ids_in_it_is_answered_with_how_it_is_recorded() {
    let gateway = start(settings("")).await;
    for (endpoint, hint) in [
        ("POST /orders/7", Some("endpoints are recorded with ids replaced: POST /orders/:int, or")),
        ("POST /orders/:int", None),
        ("POST /orders/{id}", None),
        ("POST /orders", None),
    ] {
        let body = json!({"tenant": "acme", "endpoint": endpoint, "key": "k"}).to_string();
        for path in ["look", "release", "delete"] {
            let said = told(&gateway, &format!("/v1/idempotency/{path}"), body.clone()).await;
            assert_eq!(said["state"], json!("absent"));
            let told = said["hint"].as_str();
            assert_eq!(told.is_some(), hint.is_some(), "{endpoint}: {said}");
            assert!(told.unwrap_or_default().starts_with(hint.unwrap_or_default()), "{said}");
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one_and_a_role_that_does_not_reach_has_a_name() {
    let (gateway, events) = watched(settings(""), None).await;
    let to = gateway.admin_addr;
    let caller = Caller::new(Speaks::Http1);
    for (method, path, right) in [
        (Method::PUT, "/v1/region", "POST"),
        (Method::GET, "/v1/region", "POST"),
        (Method::DELETE, "/v1/limits/hot", "GET"),
        (Method::POST, "/v1/breakers", "GET"),
        (Method::PUT, "/v1/idempotency/delete", "POST"),
        (Method::POST, "/livez", "GET, HEAD"),
    ] {
        let answer = caller.send(request(to, method, path, Some(ADMIN), "")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["allow"]),
            (405, &right.parse().expect("text")),
            "{path}"
        );
        assert!(answer.text().contains(&format!("this path takes {right} only")));
    }
    for (method, path) in [(Method::PUT, "/v1/region"), (Method::POST, "/metrics")] {
        let answer = caller.send(request(to, method, path, None, "")).await;
        assert_eq!(answer.status, 401, "{path}: only who may ask is told how");
    }
    let call = |token| request(to, Method::POST, "/v1/region", Some(token), COLD);
    assert_eq!(caller.send(call(VIEWER)).await.status, 403);
    assert_eq!(caller.send(call("wrong")).await.status, 401);
    let refused = events.of(Action::RefuseCaller);
    let role = "admin listener: the token's role is viewer, this asks for admin";
    assert_eq!(refused[2], on_record("ann", "unauthorized", role));
    assert_eq!((refused.len(), refused[3].0.as_str()), (4, "unknown"));
}
