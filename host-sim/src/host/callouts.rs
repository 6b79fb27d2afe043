//! HTTP callouts of one VM: what is refused at once, what comes back and when. It must not know what a service does.

use super::clock::{Event, VmId};
use super::failures::failure_of;
use super::headers::HeaderMap;
use super::retries::Retries;
use super::service::{Answer, Fault, Outcome, Reply, ServiceRequest};
use super::shared::Shared;
use super::wire::{answer_headers, request_on_the_wire};
use crate::abi::codes::Status;

/// A callout as the plugin asks for it.
pub(crate) struct Dispatch {
    pub(crate) cluster: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    /// Zero waits for ever.
    pub(crate) timeout_ms: u32,
}

/// What the plugin's callback gets to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CalloutAnswer {
    /// An answer, real or made by Envoy of a fault.
    Answered { headers: HeaderMap, body: Vec<u8>, trailers: HeaderMap },
    /// The stream was reset after its headers: nothing at all.
    Reset,
}

/// A callout under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) vm: VmId,
    root: u32,
    token: u32,
    request: ServiceRequest,
    retries: Retries,
    /// None waits for ever.
    deadline_ns: Option<u64>,
}

/// Callout state of a VM.
#[derive(Default)]
pub(crate) struct Callouts {
    tokens: u32,
    /// Code and message of `proxy_get_status`.
    pub(crate) last_status: (u32, String),
    /// The answer of the running callback.
    pub(crate) current: Option<CalloutAnswer>,
}

/// `BrokenConnection`, which only `proxy_get_status` shows.
const BROKEN_CONNECTION: u32 = 11;
const NS_PER_MS: u64 = 1_000_000;

impl Dispatch {
    pub(crate) fn summary(&self) -> String {
        let text = |key| self.headers.text(key).unwrap_or_default();
        let (method, path) = (text(":method"), text(":path"));
        format!(
            "{} {method} {path} {} bytes, {} ms",
            self.cluster,
            self.body.len(),
            self.timeout_ms
        )
    }

    fn has_pseudo_headers(&self) -> bool {
        [":path", ":method", ":authority"]
            .iter()
            .all(|key| self.headers.first(key.as_bytes()).is_some())
    }

    /// The request as the service gets it, with what Envoy adds.
    fn into_request(self) -> (ServiceRequest, Retries) {
        let mut headers = self.headers;
        let retries = Retries::take(&mut headers);
        if !self.body.is_empty() {
            headers.replace(b"content-length", self.body.len().to_string());
        }
        headers.replace(b"x-envoy-internal", "true");
        request_on_the_wire(&mut headers, self.body.is_empty() && self.trailers.count() == 0);
        let Self { cluster, body, trailers, .. } = self;
        (ServiceRequest { cluster, headers, body, trailers }, retries)
    }
}

impl Callouts {
    /// Sends a callout; the token is used up even when the cluster refuses at once.
    pub(crate) fn dispatch(
        &mut self,
        shared: &mut Shared,
        vm: VmId,
        root: u32,
        dispatch: Dispatch,
        is_canary: bool,
    ) -> Result<u32, Status> {
        if !shared.network.knows(&dispatch.cluster) || !dispatch.has_pseudo_headers() {
            return Err(Status::BadArgument);
        }
        const TOKEN_STEP: u32 = 4;
        self.tokens = self.tokens.wrapping_add(TOKEN_STEP);
        let token = self.tokens;
        // The canary is gone before a connection opens.
        if is_canary {
            return Ok(token);
        }
        let timeout_ns = u64::from(dispatch.timeout_ms) * NS_PER_MS;
        let deadline_ns = (timeout_ns > 0).then(|| shared.now_ns.saturating_add(timeout_ns));
        let (request, retries) = dispatch.into_request();
        let call = Call { vm, root, token, request, retries, deadline_ns };
        match call.send(shared) {
            Outcome::Fault(Fault::NoHosts | Fault::Overflow) => Err(Status::InternalFailure),
            _ => Ok(token),
        }
    }

    /// Takes an answer up for the callback: header count, body size, trailer count.
    pub(crate) fn begin(&mut self, answer: CalloutAnswer) -> (u32, u32, u32) {
        let counts = match &answer {
            CalloutAnswer::Answered { headers, body, trailers } => {
                (headers.count(), u32::try_from(body.len()).unwrap_or(u32::MAX), trailers.count())
            }
            CalloutAnswer::Reset => {
                self.last_status = (BROKEN_CONNECTION, "reset".to_owned());
                (0, 0, 0)
            }
        };
        self.current = Some(answer);
        counts
    }

    /// Only the message goes; the code stays, as in Envoy.
    pub(crate) fn end(&mut self) {
        self.current = None;
        self.last_status.1.clear();
    }
}

impl Call {
    /// Sends the request, for the first time or again; what comes of it is scheduled.
    pub(crate) fn send(mut self, shared: &mut Shared) -> Outcome {
        let (now_ns, now_unix_ns) = (shared.now_ns, shared.now_unix_ns());
        let left_ns = self.deadline_ns.map(|deadline_ns| deadline_ns.saturating_sub(now_ns));
        if let Some(left_ns) = left_ns {
            let left_ms = (left_ns / NS_PER_MS).to_string();
            self.request.headers.replace(b"x-envoy-expected-rq-timeout-ms", left_ms);
        }
        let reply = shared.network.call(now_ns, now_unix_ns, self.request.clone());
        let outcome = reply.outcome.clone();
        let is_refused = matches!(outcome, Outcome::Fault(Fault::NoHosts | Fault::Overflow));
        if is_refused && !self.retries.have_begun() {
            return outcome;
        }
        let comes_after_ns = (!never_comes(&reply)).then(|| reply.lasts_ns());
        let is_in_time = |after_ns: u64| left_ns.is_none_or(|left_ns| after_ns < left_ns);
        match (comes_after_ns.filter(|after_ns| is_in_time(*after_ns)), left_ns) {
            (Some(after_ns), _) if self.retries.tries_again_after(&reply) => {
                shared.after(after_ns, Event::Retry(Box::new(self)));
            }
            (Some(after_ns), _) => self.answer(shared, after_ns, seen_by_caller(reply)),
            (None, Some(left_ns)) => {
                if let Some(call) = shared.network.calls.last_mut() {
                    call.reset(now_ns.saturating_add(left_ns));
                }
                self.answer(shared, left_ns, made_by_envoy(504, "upstream request timeout"));
            }
            (None, None) => {}
        }
        outcome
    }

    fn answer(self, shared: &mut Shared, after_ns: u64, answer: CalloutAnswer) {
        let Self { vm, root, token, .. } = self;
        shared.after(after_ns, Event::Callout { vm, root, token, answer });
    }
}

/// A callout's answer is told when all of it is there.
fn seen_by_caller(reply: Reply) -> CalloutAnswer {
    let after_ns = reply.lasts_ns();
    match reply.outcome {
        Outcome::Answer(answer) => real(answer, after_ns),
        Outcome::Fault(fault) => broken(fault),
    }
}

fn never_comes(reply: &Reply) -> bool {
    reply.outcome == Outcome::Fault(Fault::Timeout)
}

fn real(answer: Answer, after_ns: u64) -> CalloutAnswer {
    let headers = answer_headers(&answer, Some(after_ns));
    let mut body = answer.body;
    body.extend(answer.chunks.into_iter().flat_map(|chunk| chunk.data));
    CalloutAnswer::Answered { headers, body, trailers: answer.trailers.unwrap_or_default() }
}

fn broken(fault: Fault) -> CalloutAnswer {
    match failure_of(fault) {
        Some(failure) => made_by_envoy(failure.status, failure.text),
        None => CalloutAnswer::Reset,
    }
}

fn made_by_envoy(status: u32, text: &str) -> CalloutAnswer {
    let mut headers = HeaderMap::default();
    headers.add(b":status", status.to_string());
    headers.add(b"content-length", text.len().to_string());
    headers.add(b"content-type", "text/plain");
    CalloutAnswer::Answered {
        headers,
        body: text.as_bytes().to_vec(),
        trailers: HeaderMap::default(),
    }
}
