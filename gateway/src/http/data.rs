//! Owns the filter's listener: who may ask, its paths, and counting. Knows neither limits nor
//! stores.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use hyper::body::Body;
use tidegate_policy::config::ConfigHash;
use tidegate_policy::reason::Reason;
use tidegate_policy::wire::audit::AUDIT_PATH;
use tidegate_policy::wire::breaker::BREAKERS_PATH;
use tidegate_policy::wire::together::{self, DECISIONS_PATH};
use tidegate_policy::wire::{
    CONFIG_HEADER, DECIDE_PATH, FRAMED_BYTES_MAX, MESSAGE_BYTES_MAX, SETTLE_PATH, SYNC_PATH,
};

use super::answer::{self, Answer};
use super::connection::Handler;
use super::{bearer, body};
use crate::access::FilterTokens;
use crate::audit::Auditor;
use crate::metrics::{HttpLabel, SharedMetrics};
use crate::secret::{Parsed, Watched};
use crate::service::{Refused, Service};

/// Where the filter asks.
pub struct DataListener {
    service: Arc<Service>,
    /// `None` accepts everybody (`--dev`).
    tokens: Option<Arc<Watched<Parsed<FilterTokens>>>>,
    auditor: Arc<Auditor>,
    metrics: SharedMetrics,
}

// === impl DataListener ===

impl DataListener {
    /// Without `tokens` every caller is accepted.
    pub fn new(
        service: Arc<Service>,
        tokens: Option<Arc<Watched<Parsed<FilterTokens>>>>,
        auditor: Arc<Auditor>,
        metrics: SharedMetrics,
    ) -> Self {
        Self { service, tokens, auditor, metrics }
    }

    /// Answers a request whose body is at hand: the whole of the gateway without a socket.
    pub async fn answer(&self, head: &Parts, message: &[u8]) -> Answer {
        let answer = match self.refusal(head) {
            None => self.respond(head, message).await,
            Some(refusal) => refusal,
        };
        self.counted(answer)
    }

    /// Who asks and for what, before a byte of the body is read.
    fn refusal(&self, head: &Parts) -> Option<Answer> {
        if !self.known(head) {
            let detail = "send the gateway's token as Authorization: Bearer";
            self.auditor.refused_caller(
                Reason::Unauthorized.as_str(),
                "no or a wrong token on the filter's listener".to_owned(),
            );
            return Some(self.refuse(Reason::Unauthorized, detail));
        }
        const PATHS: [&str; 6] =
            [DECIDE_PATH, DECISIONS_PATH, SETTLE_PATH, SYNC_PATH, BREAKERS_PATH, AUDIT_PATH];
        if !PATHS.contains(&head.uri.path()) {
            let detail = "the gateway answers POST /v1/decide, /v1/decisions, /v1/settle, /v1/sync, /v1/breakers and /v1/audit";
            return Some(self.refuse(Reason::NotFound, detail));
        }
        if head.method != Method::POST {
            self.metrics.refused(Reason::NotFound);
            return Some(answer::wrong_method("POST"));
        }
        None
    }

    fn known(&self, head: &Parts) -> bool {
        match &self.tokens {
            Some(tokens) => {
                bearer::token(&head.headers).is_some_and(|token| tokens.current().accept(token))
            }
            None => true,
        }
    }

    async fn respond(&self, head: &Parts, message: &[u8]) -> Answer {
        let service = &self.service;
        // On the heap what is asked less often: a request's future holds the largest of these, and is
        // moved and allocated as a whole.
        let answered = match head.uri.path() {
            SETTLE_PATH => Box::pin(service.settle(message)).await.map(|r| answer::reply(&r)),
            SYNC_PATH => Box::pin(service.sync(message)).await.map(|r| answer::reply(&r)),
            BREAKERS_PATH => Box::pin(service.breakers(message)).await.map(|r| answer::reply(&r)),
            DECISIONS_PATH => Box::pin(self.decide_together(message, config(head))).await,
            AUDIT_PATH => Box::pin(service.take_events(message)).await.map(|r| answer::reply(&r)),
            _ => service.decide(message, config(head)).await.map(|reply| answer::decided(&reply)),
        };
        match answered {
            Ok(answer) => answer,
            Err(refused) => {
                self.metrics.refused(refused.reason);
                answer::refusal(&refused)
            }
        }
    }

    /// Several questions at once, each as if it came alone: one that is refused says nothing of the others.
    async fn decide_together(
        &self,
        message: &[u8],
        config: Option<ConfigHash>,
    ) -> Result<Answer, Refused> {
        let questions = together::questions(message).map_err(|error| Refused {
            reason: error.reason(),
            detail: error.to_string(),
            id: None,
        })?;
        let decided =
            join_all(questions.iter().map(|question| self.service.decide(question, config)));
        let decided = decided.await;
        for refused in decided.iter().filter_map(|decided| decided.as_ref().err()) {
            self.metrics.refused(refused.reason);
        }
        Ok(answer::together(&decided))
    }

    fn refuse(&self, reason: Reason, detail: &str) -> Answer {
        self.metrics.refused(reason);
        answer::refusal(&Refused { reason, detail: detail.to_owned(), id: None })
    }

    fn counted(&self, answer: Answer) -> Answer {
        match answer.status() {
            StatusCode::OK => self.metrics.data_ok.inc(),
            status => {
                let label = HttpLabel { listener: "data", status: status.as_u16() };
                self.metrics.http_requests.get_or_create(&label).inc()
            }
        };
        answer
    }
}

/// By which configuration a filter asks. Filters of before do not say so; what is none says nothing.
fn config(head: &Parts) -> Option<ConfigHash> {
    ConfigHash::read(head.headers.get(CONFIG_HEADER)?.to_str().ok()?)
}

impl Handler for DataListener {
    async fn handle<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let (head, body) = request.into_parts();
        if let Some(refusal) = self.refusal(&head) {
            return self.counted(refusal);
        }
        let settles = head.uri.path() == SETTLE_PATH;
        let len_max = if settles { FRAMED_BYTES_MAX } else { MESSAGE_BYTES_MAX };
        let answer = match body::read(&head.headers, body, len_max).await {
            Ok(message) => self.respond(&head, &message).await,
            Err(refusal) => {
                self.metrics.refused(Reason::BadMessage);
                refusal
            }
        };
        self.counted(answer)
    }
}
