//! Owns the reading of facts: as few host calls as the policies need, in the order in which they
//! may turn out not to be needed. Decides nothing.

use tidegate_policy::config::Config;
use tidegate_policy::identity::Facts;
use tidegate_policy::router::Matched;

use crate::codec;
use crate::host::{self, Map, Status};

/// The policies that take the request in. One host call if no path matches, two otherwise at most.
pub(crate) fn matched(config: &Config) -> Result<Matched, Status> {
    let path = host::header(Map::RequestHeaders, ":path")?;
    let matched = config.on_path(path.as_deref());
    if !matched.asks_method(config) {
        return Ok(matched);
    }
    let method = host::header(Map::RequestHeaders, ":method")?;
    Ok(matched.on_method(config, method.as_deref()))
}

/// All request headers in the host's encoding, in one call: dearer than one value, cheaper than
/// three. [`sender`] borrows from it.
pub(crate) fn headers() -> Result<Vec<u8>, Status> {
    host::header_pairs(Map::RequestHeaders)
}

/// What those policies need to know of the sender.
pub(crate) fn sender<'h>(
    config: &Config,
    matched: &Matched,
    headers: &'h [u8],
) -> Result<Facts<'h>, Status> {
    const UNREADABLE: Status = Status(u32::MAX);
    let source_address =
        if matched.asks_address(config) { host::property("source\0address")? } else { None };
    let headers = codec::decode(headers).ok_or(UNREADABLE)?;
    Ok(Facts { source_address, headers })
}
