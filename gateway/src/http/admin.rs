//! Owns the operators' listener: health for probes, metrics, status and commands for those who have
//! a token. Answers from what is cached; only commands reach a store.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Body;
use serde::Serialize;
use tidegate_policy::audit::{Action, Thinning};
use tidegate_policy::reason::Reason;
use tidegate_policy::wire::MESSAGE_BYTES_MAX;
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::commands::Commands;
use super::connection::Handler;
use super::operate::Command;
use super::{bearer, body};
use crate::access::{AdminTokens, Role};
use crate::audit::{Auditor, Happening};
use crate::health::{Health, Phase};
use crate::metrics::{HttpLabel, SharedMetrics};
use crate::secret::{Parsed, Watched};
use crate::service::{Service, ServiceSettings};
use crate::store::Stores;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
/// Who has no token that counts.
const NOBODY: &str = "unknown";
/// Who acts where `--dev` leaves the door open.
const DEV_ACTOR: &str = "dev";

/// Who may come in.
pub enum Door {
    /// Those who have a token.
    Tokens(Arc<Watched<Parsed<AdminTokens>>>),
    /// Everybody, because of `--dev`.
    Open,
    /// Nobody: no token is configured.
    Shut,
}

/// Where operators and probes ask.
pub struct AdminListener {
    door: Door,
    health: Arc<Health>,
    settings: ServiceSettings,
    stores: Stores,
    auditor: Arc<Auditor>,
    metrics: SharedMetrics,
    commands: Arc<Commands>,
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    phase: &'static str,
    degraded: bool,
    region: String,
    region_configured: bool,
    environment: String,
    stores: Vec<StoreStatus>,
    pool: PoolStatus,
}

#[derive(Serialize)]
struct StoreStatus {
    role: &'static str,
    kind: &'static str,
    state: &'static str,
    since_unix_ms: u64,
    detail: String,
}

#[derive(Serialize)]
struct PoolStatus {
    in_flight: i64,
    waiting: i64,
    max_in_flight: usize,
    pool_wait_ms: u128,
    deadline_ms: u128,
    acquire_timeouts: u64,
    outlived_calls: u64,
    reconnects: u64,
    script_loads: u64,
}

// === impl AdminListener ===

impl AdminListener {
    /// Puts the listener's handler together.
    pub fn new(
        door: Door,
        health: Arc<Health>,
        settings: ServiceSettings,
        stores: Stores,
        auditor: Arc<Auditor>,
        metrics: SharedMetrics,
        service: &Service,
    ) -> Self {
        let commands = Arc::new(Commands {
            settings: settings.clone(),
            stores: stores.clone(),
            auditor: Arc::clone(&auditor),
            metrics: Arc::clone(&metrics),
            observed: Arc::clone(service.observed()),
            seen: Arc::clone(service.seen()),
            under_way: watch::Sender::new(0),
        });
        Self { door, health, settings, stores, auditor, metrics, commands }
    }

    /// What carries commands out.
    pub fn commands(&self) -> &Arc<Commands> {
        &self.commands
    }

    async fn route<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        match request.uri().path() {
            "/livez" | "/readyz" if !reads(request.method()) => answer::wrong_method("GET, HEAD"),
            "/livez" => answer::plain(StatusCode::OK, JSON, r#"{"status":"ok"}"#),
            "/readyz" => self.ready(),
            path => match Command::at(path) {
                Some(command) => self.command(command, request).await,
                None => match self.actor(request.headers(), Role::Viewer) {
                    Ok(actor) => self.show(&actor, request.method(), path),
                    Err(refusal) => *refusal,
                },
            },
        }
    }

    fn show(&self, actor: &str, method: &Method, path: &str) -> Answer {
        // Paths are not free text here: what is unknown is not repeated.
        let known = matches!(path, "/metrics" | "/v1/status");
        let detail = if known { format!("{method} {path}") } else { "an unknown path".to_owned() };
        // Scrapes come every few seconds: the chain takes the first of a minute, and their number.
        let thinning = Thinning::First;
        self.auditor.record(Happening { thinning, ..event(actor.to_owned(), "ok", detail) });
        match path {
            "/metrics" | "/v1/status" if !reads(method) => answer::wrong_method("GET, HEAD"),
            "/metrics" => self.metrics(),
            "/v1/status" => answer::plain(StatusCode::OK, JSON, self.status()),
            _ => answer::problem(StatusCode::NOT_FOUND, Reason::NotFound, "no such path", None),
        }
    }

    async fn command<B>(&self, command: Command, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let (head, body) = request.into_parts();
        let actor = match self.actor(&head.headers, command.role()) {
            Ok(actor) => actor,
            Err(refusal) => return *refusal,
        };
        // Only who may ask at all is told how.
        let method = command.method();
        if head.method != method {
            return answer::wrong_method(if method == Method::POST { "POST" } else { "GET" });
        }
        let body = match body::read(&head.headers, body, MESSAGE_BYTES_MAX).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        self.commands.carry_out(actor, command, body).await
    }

    fn ready(&self) -> Answer {
        let now = self.health.snapshot();
        let (status, body) = match now.phase {
            Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"starting"}"#),
            Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"draining"}"#),
            Phase::Serving if now.degraded() => (StatusCode::OK, r#"{"status":"degraded"}"#),
            Phase::Serving => (StatusCode::OK, r#"{"status":"ok"}"#),
        };
        answer::plain(status, JSON, body)
    }

    /// Who asks, if the token's role reaches.
    fn actor(&self, headers: &HeaderMap, required: Role) -> Result<String, Box<Answer>> {
        let refuse = |actor: &str, status, detail: &str| {
            let own = Happening::own(Action::RefuseCaller, format!("admin listener: {detail}"));
            let (actor, outcome) = (actor.to_owned(), Reason::Unauthorized.as_str());
            self.auditor.record(Happening { actor, outcome, thinning: Thinning::First, ..own });
            Err(Box::new(answer::problem(status, Reason::Unauthorized, detail, None)))
        };
        let tokens = match &self.door {
            Door::Open => return Ok(DEV_ACTOR.to_owned()),
            Door::Shut => {
                return refuse(
                    NOBODY,
                    StatusCode::UNAUTHORIZED,
                    "no administrator is configured: set --admin-tokens-file (TIDEGATE_ADMIN_TOKENS_FILE) or TIDEGATE_ADMIN_TOKENS to actor:role:token",
                );
            }
            Door::Tokens(tokens) => tokens.current(),
        };
        let found = bearer::token(headers).and_then(|token| tokens.find(token));
        match found {
            None => refuse(
                NOBODY,
                StatusCode::UNAUTHORIZED,
                "send an administrator's token as Authorization: Bearer",
            ),
            Some((actor, role)) if role < required => refuse(
                actor,
                StatusCode::FORBIDDEN,
                &format!("the token's role is {role}, this asks for {required}"),
            ),
            Some((actor, _)) => Ok(actor.to_owned()),
        }
    }

    fn metrics(&self) -> Answer {
        self.commands.seen.sweep();
        match self.metrics.render() {
            Ok(text) => answer::plain(StatusCode::OK, OPEN_METRICS, text),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                answer::panicked()
            }
        }
    }

    fn status(&self) -> Vec<u8> {
        let now = self.health.snapshot();
        let stores = now.stores.iter().map(|state| StoreStatus {
            role: state.role.as_str(),
            kind: state.kind,
            state: if state.down.is_some() { "down" } else { "up" },
            since_unix_ms: state.since_unix_us / 1_000,
            detail: match &state.down {
                Some(failure) => failure.to_string(),
                None => self.stores.of(state.role).describe(),
            },
        });
        let (own, metrics) = (&self.settings, &self.metrics);
        tidegate_policy::wire::encode(&Status {
            version: env!("CARGO_PKG_VERSION"),
            phase: now.phase.as_str(),
            degraded: now.degraded(),
            region: own.region.to_string(),
            region_configured: own.region_configured,
            environment: own.environment.to_string(),
            stores: stores.collect(),
            pool: PoolStatus {
                in_flight: metrics.in_flight.get(),
                waiting: metrics.waiting.get(),
                max_in_flight: own.admission.max_in_flight,
                pool_wait_ms: own.admission.pool_wait.as_millis(),
                deadline_ms: own.admission.deadline.as_millis(),
                acquire_timeouts: metrics.acquire_timeouts.get(),
                outlived_calls: metrics.outlived.get(),
                reconnects: metrics.store.reconnects.get(),
                script_loads: metrics.store.script_loads.get(),
            },
        })
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn event(actor: String, outcome: &'static str, detail: String) -> Happening {
    Happening { actor, outcome, ..Happening::own(Action::Admin, detail) }
}

impl Handler for AdminListener {
    fn is_open(path: &str) -> bool {
        matches!(path, "/livez" | "/readyz")
    }

    async fn handle<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let answer = self.route(request).await;
        let label = HttpLabel { listener: "admin", status: answer.status().as_u16() };
        self.metrics.http_requests.get_or_create(&label).inc();
        answer
    }
}
