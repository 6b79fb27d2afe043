//! What clients do and when. It must not know what becomes of it.

use std::collections::BTreeMap;

use crate::host::headers::HeaderMap;

/// A client's request, as announced before the run.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) client: String,
    /// 1 for the client's first request.
    pub(crate) nth: usize,
    pub(crate) worker: usize,
    /// Dotted path to bytes.
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
}

/// One thing a client does.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) at_ns: u64,
    pub(crate) exchange: usize,
    pub(crate) action: Action,
}

/// What a client can do.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Headers { headers: HeaderMap, end: bool },
    Data { bytes: Vec<u8>, end: bool },
    Trailers(HeaderMap),
    Disconnect,
}

/// All requests and all steps, the steps in order of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    pub(crate) announced: Vec<Announced>,
    pub(crate) steps: Vec<Step>,
}
