//! Owns how these tests start a gateway and talk to it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tidegate_gateway::store::{
    Adjustment, Call, Charge, Checked, Standing, Store, StoreFailure, Stores, Temperature,
};
use tidegate_gateway::{Cores, Environment, Gateway, Running, Settings, World};
use tidegate_policy::gcra::{Reading, Retry};
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::scope::{CallerScope, KeyFormat, Scope, Tenant};
use tidegate_policy::wire::{
    DECIDE_PATH, DecideReply, DecideRequest, DecisionId, LimitCall, MARK_HEADER, MARK_VALUE,
    Refusal, SettleRequest, VERSION, encode,
};
use tidegate_tests::eventually;
use tokio::sync::watch;

pub const TOKEN: &str = "the-filters-token";
pub const ADMIN: &str = "the-admins-token";
pub const VIEWER: &str = "the-viewers-token";

/// Deadlines that a busy machine keeps.
pub const CALM: &str = "--deadline 2s --pool-wait 1s --redis-response-timeout 2s";
/// The same; a breaker that opens for long would hide when the store is back.
pub const CALM_SOON_BACK: &str =
    "--deadline 2s --pool-wait 1s --redis-response-timeout 2s --store-breaker-open 200ms";

/// What a gateway has to wait with if nothing else is said. By default it gives a Redis up after 250 ms and sheds
/// decisions once its own threads are late by 4 ms, which a busy machine does to a gateway that is well.
const PATIENT: [[&str; 2]; 3] =
    [["--deadline", "20s"], ["--pool-wait", "19s"], ["--redis-response-timeout", "2s"]];

/// Which protocol a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

pub const BOTH: [Speaks; 2] = [Speaks::Http1, Speaks::Http2];

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn marked(&self) -> bool {
        self.headers.get(MARK_HEADER).is_some_and(|value| value == MARK_VALUE)
    }

    pub fn verdict(&self) -> DecideReply {
        DecideReply::decode(&self.body, DecisionId::new(9))
            .unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn reason(&self) -> String {
        Refusal::decode(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}")).reason
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A caller with connections of its own.
#[derive(Clone)]
pub struct Caller(Client<HttpConnector, Full<Bytes>>);

impl Caller {
    pub fn new(speaks: Speaks) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        Self(builder.http2_only(speaks == Speaks::Http2).build_http())
    }

    pub async fn try_send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let answer = self.0.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    pub async fn decide(&self, to: SocketAddr, question: &DecideRequest) -> Answer {
        self.send(decide(to, question)).await
    }

    pub async fn get(&self, to: SocketAddr, path: &str, token: Option<&str>) -> Answer {
        self.send(request(to, Method::GET, path, token, Bytes::new())).await
    }
}

pub fn request(
    to: SocketAddr,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.into()));
    *request.method_mut() = method;
    *request.uri_mut() = format!("http://{to}{path}").parse().expect("a URI");
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    request
}

/// What a decision charged is adjusted by `by`.
pub fn settlement(asked: &DecideRequest, by: i64) -> SettleRequest {
    let limit = asked.limits[0].clone();
    SettleRequest {
        finish: None,
        octets: Vec::new(),
        v: VERSION,
        id: asked.id,
        scope: asked.scope.clone(),
        timeout_ms: 5_000,
        age_us: 0,
        traceparent: None,
        request_id: None,
        adjustments: vec![tidegate_policy::wire::Adjustment {
            id: limit.id,
            subject: limit.subject,
            limit: limit.limit,
            period_us: limit.period_us,
            burst: limit.burst,
            algorithm: limit.algorithm,
            by,
            receipt: None,
        }],
    }
}

pub fn decide(to: SocketAddr, question: &DecideRequest) -> Request<Full<Bytes>> {
    request(to, Method::POST, DECIDE_PATH, Some(TOKEN), encode(question))
}

/// One limit of five per minute for `client`.
pub fn question(client: &str) -> DecideRequest {
    let subject =
        Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(client.as_bytes()) };
    DecideRequest {
        claim: None,
        leases: Vec::new(),
        v: VERSION,
        id: DecisionId::new(9),
        scope: CallerScope {
            region: None,
            environment: tidegate_policy::scope::Environment::default(),
            tenant: Tenant::None,
            key_format: KeyFormat::V1,
        },
        timeout_ms: 60_000,
        traceparent: None,
        request_id: None,
        limits: vec![LimitCall {
            id: "p.one".to_owned(),
            subject,
            limit: 5,
            period_us: 60_000_000,
            burst: 5,
            algorithm: tidegate_policy::limit::Algorithm::Gcra,
            cost: 1,
            shadow: false,
        }],
    }
}

/// Settings with both tokens set.
///
/// Without a guard against cold starts, unless the flags name one: these tests count whole limits.
pub fn settings(flags: &str) -> Settings {
    let environment = Environment::from([
        ("TIDEGATE_TOKEN", TOKEN),
        ("TIDEGATE_ADMIN_TOKENS", "ann:viewer:the-viewers-token;bo:admin:the-admins-token"),
        // Tests that are not about it do not wait ten seconds for the breaker of the store.
        ("TIDEGATE_STORE_BREAKER_OPEN", "200ms"),
    ]);
    let unguarded = if flags.contains("--cold-start") { "" } else { " --cold-start off" };
    settings_with(&format!("{flags}{unguarded}"), &environment)
}

/// On ports of the system's choice, with more patience than a machine that is busy elsewhere needs: each one that the
/// flags do not name. Whoever names a shorter deadline names a wait for a place as well, which is what the gateway takes
/// for its own processor too.
pub fn settings_with(flags: &str, environment: &Environment) -> Settings {
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let patient = PATIENT.into_iter().filter(|[flag, _]| !flags.contains(flag)).flatten();
    let arguments = ["tidegate-gateway", "serve"].into_iter().chain(ports);
    let flags = flags.split_whitespace().chain(patient);
    Settings::parse(arguments.chain(flags), environment).expect("sound settings")
}

pub async fn start(settings: Settings) -> Running {
    let world = World::from_settings(&settings, Cores::here()).expect("a world");
    Gateway::start(settings, world).await.expect("a gateway")
}

pub async fn start_around(settings: Settings, store: Arc<dyn Store>) -> Running {
    let world = World::from_settings(&settings, Cores::here()).expect("a world");
    Gateway::start(settings, world.with_stores(Stores::single(store))).await.expect("a gateway")
}

/// A store whose calls wait for a gate, or panic.
pub struct GatedStore {
    pub gate: watch::Sender<bool>,
    pub calls: AtomicUsize,
    pub panics: bool,
}

impl GatedStore {
    pub fn new(panics: bool) -> Arc<Self> {
        Arc::new(Self { gate: watch::channel(false).0, calls: AtomicUsize::new(0), panics })
    }
}

impl Store for GatedStore {
    fn kind(&self) -> &'static str {
        "gated"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn guards(&self) -> bool {
        true
    }

    fn rate_check(&self, _scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let reading = Reading { remaining: 1, next_us: 0, reset_us: 0, retry: Retry::Fits };
        let checked = Checked {
            allowed: true,
            limits: vec![
                Standing { reading, reduced: None, unread: false, charged_us: None };
                charges.len()
            ],
        };
        let (mut gate, panics) = (self.gate.subscribe(), self.panics);
        let call: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            assert!(!panics, "the store was told to panic");
            match gate.wait_for(|open| *open).await {
                Ok(_open) => Ok(checked),
                Err(_gone) => Err(StoreFailure::Timeout),
            }
        });
        call
    }

    fn settle(
        &self,
        _scope: &Scope,
        _id: DecisionId,
        _adjustments: &[Adjustment<'_>],
    ) -> Call<Vec<Standing>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn reset(&self, _scope: &Scope, _limits: &[Charge<'_>]) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn grant(&self, _: &Scope, _: &Charge<'_>, _: u32, _: Duration) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn set_region(&self, _scope: &Scope, _temperature: Temperature) -> Call<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (mut gate, panics) = (self.gate.subscribe(), self.panics);
        Box::pin(async move {
            assert!(!panics, "the store was told to panic");
            gate.wait_for(|open| *open).await.map(drop).map_err(|_gone| StoreFailure::Timeout)
        })
    }

    fn probe(&self) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A verdict, once there is one.
pub async fn decides(gateway: &Running, question: &DecideRequest) -> DecideReply {
    let caller = Caller::new(Speaks::Http2);
    eventually(Duration::from_secs(60), "a verdict", async || {
        let answer = caller.decide(gateway.data_addr, question).await;
        if answer.status == 200 { Ok(answer.verdict()) } else { Err(answer.text()) }
    })
    .await
}

/// Declares its region warm. An order to all masters of a Cluster waits for no connection that is just being opened.
pub async fn warm(gateway: &Running) {
    eventually(Duration::from_secs(60), "the region is warm", async || {
        let body = r#"{"temperature": "warm"}"#;
        let call = request(gateway.admin_addr, Method::POST, "/v1/region", Some(ADMIN), body);
        let answer = Caller::new(Speaks::Http1).send(call).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

/// The value of a metric without labels.
pub async fn metric(gateway: &Running, name: &str) -> f64 {
    let caller = Caller::new(Speaks::Http1);
    let text = caller.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}
