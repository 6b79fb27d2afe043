//! Owns the reading of facts: as few host calls as the policies need, in the order in which they
//! may turn out not to be needed. Decides nothing.

use tidegate_policy::config::Config;
use tidegate_policy::identity::{Facts, Fields};
use tidegate_policy::router::Matched;

use crate::codec;
use crate::host::{self, Map, Status};

/// The answer to headers that the host gave in no known encoding.
const UNREADABLE: Status = Status(u32::MAX);

/// A request as far as it had to be read.
pub(crate) struct Request {
    /// The policies that take it in, as far as path, host and method decide.
    pub(crate) matched: Matched,
    /// `:path`.
    pub(crate) target: Option<Vec<u8>>,
    /// All request headers in the host's encoding; empty if nothing matched.
    headers: Vec<u8>,
}

/// Reads what decides. One host call if no path matches, three otherwise at most, and then all
/// headers in one: dearer than one value, cheaper than three.
pub(crate) fn request(config: &Config) -> Result<Request, Status> {
    let target = host::header(Map::Request, ":path")?;
    let candidates = config.on_path(target.as_deref());
    let authority = match candidates.asks_host(config) {
        true => host::header(Map::Request, ":authority")?,
        false => None,
    };
    let mut matched = candidates.on_host(config, authority.as_deref());
    if matched.asks_method(config) {
        let method = host::header(Map::Request, ":method")?;
        matched = matched.on_method(config, method.as_deref());
    }
    let headers = match matched.is_empty() {
        true => Vec::new(),
        false => host::header_pairs(Map::Request)?,
    };
    Ok(Request { matched, target, headers })
}

impl Request {
    /// Its headers, borrowed: a request has dozens.
    pub(crate) fn headers(&self) -> Result<Fields<'_>, Status> {
        codec::decode(&self.headers).ok_or(UNREADABLE)
    }
}

/// What policies need to know of the sender.
pub(crate) fn sender<'h>(
    config: &Config,
    matched: &Matched,
    headers: Fields<'h>,
) -> Result<Facts<'h>, Status> {
    let source_address =
        if matched.asks_address(config) { host::property("source\0address")? } else { None };
    Ok(Facts { source_address, headers })
}
