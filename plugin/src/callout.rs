//! Owns the reading of a callout's answer, and what becomes of one that nobody waits for.

use tidegate_policy::exchange::{Answer, settlement_failure};
use tidegate_policy::wire::{self, DecisionId};

use crate::codec;
use crate::host::{self, Buffer, Map};
use crate::root::Root;

/// A callout's answer, read whole.
pub(crate) struct Response {
    /// Whether it carries the gateway's mark.
    pub marked: bool,
    /// `:status`.
    pub status: Vec<u8>,
    /// The body; empty without the mark.
    pub body: Vec<u8>,
}

/// The callout's answer; `None` if it cannot be read whole.
pub(crate) fn response(body_size: usize) -> Option<Response> {
    let pairs = host::header_pairs(Map::CallResponse).ok()?;
    let headers = codec::decode(&pairs)?;
    let value = |name: &str| {
        headers.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| *value)
    };
    let marked = value(wire::MARK_HEADER) == Some(wire::MARK_VALUE.as_bytes());
    let body = if marked && body_size > 0 {
        let size_max = body_size.min(wire::FRAMED_BYTES_MAX.saturating_add(1));
        host::buffer(Buffer::CallResponseBody, size_max).ok()?.unwrap_or_default()
    } else {
        Vec::new()
    };
    Some(Response { marked, status: value(":status").unwrap_or_default().to_vec(), body })
}

/// Counts what became of a settlement: nobody waits for it.
pub(crate) fn settled(root: &Root, id: DecisionId, answer: &Answer<'_>) {
    let failed = settlement_failure(id, answer);
    root.counters.borrow_mut().settled(&root.config, failed);
}
