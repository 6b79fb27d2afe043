//! The clusters a plugin can call and the upstream behind the route; every call is kept. It must not know what a service does.

use std::collections::BTreeSet;

use super::headers::HeaderMap;
use super::service::{Answer, Reply, Service, ServiceRequest};

/// Services by cluster.
pub struct Network {
    known: Option<BTreeSet<String>>,
    services: Vec<(Option<String>, Box<dyn Service + Send>)>,
    upstream: Option<Box<dyn Service + Send>>,
    pub(crate) calls: Vec<ServiceCall>,
}

/// A request that reached the network.
#[derive(Debug, Clone)]
pub struct ServiceCall {
    /// When it was sent, since the run began.
    pub at_ns: u64,
    /// Whether it is the client's request on its way up, and no callout.
    pub is_upstream: bool,
    /// The request, or as much of it as was sent.
    pub request: ServiceRequest,
    /// When all of it had been sent.
    pub ended_at_ns: Option<u64>,
    /// It was cut, itself or its answer, before both had ended.
    pub is_reset: bool,
    /// When it was cut.
    pub reset_at_ns: Option<u64>,
    /// When its answer has ended; a caller that is gone before resets it.
    pub(crate) answered_at_ns: Option<u64>,
}

impl ServiceCall {
    /// Its caller gives up.
    pub(crate) fn reset(&mut self, at_ns: u64) {
        self.is_reset = true;
        self.reset_at_ns = Some(at_ns);
    }
}

impl Network {
    /// Only these clusters exist; none means that every name does.
    pub(crate) fn new(known: Option<BTreeSet<String>>) -> Self {
        Self { known, services: Vec::new(), upstream: None, calls: Vec::new() }
    }

    /// Puts a service behind one cluster, or behind every cluster that has none; the first that fits is called.
    pub(crate) fn bind(&mut self, cluster: Option<String>, service: Box<dyn Service + Send>) {
        self.services.push((cluster, service));
    }

    pub(crate) fn bind_upstream(&mut self, service: Box<dyn Service + Send>) {
        self.upstream = Some(service);
    }

    pub(crate) fn knows(&self, cluster: &str) -> bool {
        self.known.as_ref().is_none_or(|known| known.contains(cluster))
    }

    pub(crate) fn call(&mut self, now_ns: u64, now_unix_ns: u64, request: ServiceRequest) -> Reply {
        let fits =
            |bound: &Option<String>| bound.as_ref().is_none_or(|name| *name == request.cluster);
        let reply = match self.services.iter_mut().find(|(bound, _)| fits(bound)) {
            Some((_, service)) => service.call(now_unix_ns, &request),
            None => Reply::now(Answer::new(404, "no service is bound to this cluster")),
        };
        self.calls.push(ServiceCall {
            at_ns: now_ns,
            is_upstream: false,
            request,
            ended_at_ns: Some(now_ns),
            is_reset: false,
            reset_at_ns: None,
            answered_at_ns: None,
        });
        reply
    }

    /// A request's headers reach the upstream; its number, and the answer of an upstream that waits for no more.
    pub(crate) fn open_upstream(
        &mut self,
        now_ns: u64,
        now_unix_ns: u64,
        headers: HeaderMap,
    ) -> (usize, Option<Reply>) {
        let request = ServiceRequest { headers, ..ServiceRequest::default() };
        let early = self.upstream.as_mut().and_then(|up| up.call_early(now_unix_ns, &request));
        self.calls.push(ServiceCall {
            at_ns: now_ns,
            is_upstream: true,
            request,
            ended_at_ns: None,
            is_reset: false,
            reset_at_ns: None,
            answered_at_ns: None,
        });
        (self.calls.len() - 1, early)
    }

    /// All of a request has reached the upstream.
    pub(crate) fn end_upstream(&mut self, call: usize, now_unix_ns: u64) -> Reply {
        match (&mut self.upstream, self.calls.get(call)) {
            (Some(service), Some(call)) => service.call(now_unix_ns, &call.request),
            _ => Reply::now(Answer::new(200, "ok")),
        }
    }
}
