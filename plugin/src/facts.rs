//! Owns the reading of facts: as few host calls as the policies need, in the order in which they
//! may turn out not to be needed. Decides nothing.

use std::collections::BTreeMap;

use tidegate_policy::config::Config;
use tidegate_policy::identity::{Facts, Fields, SOURCE_ADDRESS, Secrets};
use tidegate_policy::router::{Candidates, Matched};

use crate::codec;
use crate::host::{self, Map, Status};

/// The answer to headers that the host gave in no known encoding.
const UNREADABLE: Status = Status(u32::MAX);

/// A request as far as it had to be read.
pub(crate) struct Request {
    /// The policies that its path leads to.
    candidates: Candidates,
    /// `:path`.
    target: Option<Vec<u8>>,
    /// All request headers in the host's encoding; empty if nothing matched.
    headers: Vec<u8>,
}

/// Reads what decides: the path, and only if that leads anywhere, all headers at once, which is
/// cheaper than two single ones.
pub(crate) fn request(config: &Config) -> Result<Request, Status> {
    let target = host::header(Map::Request, ":path")?;
    let candidates = config.on_path(target.as_deref());
    let headers = match candidates.is_empty() {
        true => Vec::new(),
        false => host::header_pairs(Map::Request)?,
    };
    Ok(Request { candidates, target, headers })
}

impl Request {
    /// The policies that take it in, with its headers, borrowed: a request has dozens.
    pub(crate) fn matched(&self, config: &Config) -> Result<(Matched, Fields<'_>), Status> {
        let headers = codec::decode(&self.headers).ok_or(UNREADABLE)?;
        let first = |name: &[u8]| headers.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
        let matched = self
            .candidates
            .on_host(config, first(b":authority"))
            .on_method(config, first(b":method"))
            .on_fields(config, self.target.as_deref(), &headers);
        Ok((matched, headers))
    }

    /// What these policies need to know of the sender: each property once, and none in vain.
    pub(crate) fn sender<'r>(
        &'r self,
        config: &'r Config,
        secrets: &Secrets,
        matched: &Matched,
        headers: Fields<'r>,
    ) -> Result<Facts<'r>, Status> {
        let mut properties = matched.properties(config);
        let source_address = match properties.remove(SOURCE_ADDRESS) {
            true => host::property(SOURCE_ADDRESS)?,
            false => None,
        };
        let mut read = BTreeMap::new();
        for path in properties {
            if let Some(value) = host::property(path)? {
                read.insert(path, value);
            }
        }
        Ok(Facts {
            source_address,
            headers,
            target: self.target.as_deref(),
            properties: read,
            secrets: secrets.clone(),
        })
    }
}
