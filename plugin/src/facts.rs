//! Owns the reading of facts: as few host calls as the policies need, in the order in which they
//! may turn out not to be needed. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_policy::config::Config;
use tidegate_policy::cost::ResponseSource;
use tidegate_policy::exchange::Envoys;
use tidegate_policy::identity::{Facts, Fields, Peek, SOURCE_ADDRESS, Secrets};
use tidegate_policy::opt_out::{self, OptOut};
use tidegate_policy::router::{Candidates, Matched};

use crate::codec;
use crate::host::{self, Map, Status};
use crate::property::Property;

/// The answer to headers that the host gave in no known encoding.
pub(crate) const UNREADABLE: Status = Status(u32::MAX);

const AUTHORITY: &str = ":authority";
const METHOD: &str = ":method";

/// A request as far as it had to be read.
pub(crate) struct Request {
    /// The policies that its path leads to.
    candidates: Candidates,
    /// `:path`.
    target: Option<Vec<u8>>,
    read: Read,
}

/// What was read of a request beside its path.
enum Read {
    /// What decides which policies apply: none of them looks at any other header.
    Few { authority: Option<Vec<u8>>, method: Option<Vec<u8>> },
    /// All headers, in the host's encoding.
    All(Vec<u8>),
}

/// Reads what decides: the path, and only if that leads anywhere, what the policies there look at.
/// All headers at once are cheaper than two single ones.
pub(crate) fn request(config: &Config) -> Result<Request, Status> {
    let target = host::header(Map::Request, ":path")?;
    let candidates = config.on_path(target.as_deref());
    let needs = candidates.needs(config);
    let read = if needs.headers || (needs.host && needs.method) {
        Read::All(host::header_pairs(Map::Request)?)
    } else {
        let single = |is_needed, name| match is_needed {
            true => host::header(Map::Request, name),
            false => Ok(None),
        };
        let (authority, method) = (AUTHORITY, METHOD);
        Read::Few {
            authority: single(needs.host, authority)?,
            method: single(needs.method, method)?,
        }
    };
    Ok(Request { candidates, target, read })
}

impl Request {
    /// The policies that take it in by what it says itself, with its headers, borrowed: a request has
    /// dozens.
    pub(crate) fn matched(&self, config: &Config) -> Result<(Matched, Fields<'_>), Status> {
        let headers = match &self.read {
            Read::Few { .. } => Fields::new(),
            Read::All(pairs) => codec::decode(pairs).ok_or(UNREADABLE)?,
        };
        let first = |name: &str| {
            headers.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| *value)
        };
        let (authority, method) = match &self.read {
            Read::Few { authority, method } => (authority.as_deref(), method.as_deref()),
            Read::All(_) => (first(AUTHORITY), first(METHOD)),
        };
        let matched = self
            .candidates
            .on_host(config, authority)
            .on_method(config, method)
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
        has_body: bool,
    ) -> Result<Facts<'r>, Status> {
        let source_address = match matched.reads_address(config) {
            true => host::property(SOURCE_ADDRESS)?.bytes(),
            false => None,
        };
        let read = match matched.has_properties(config) {
            true => properties_of(matched.properties(config))?,
            false => BTreeMap::new(),
        };
        Ok(Facts {
            source_address,
            headers,
            target: self.target.as_deref(),
            has_body,
            properties: read,
            secrets: secrets.clone(),
            peek: match &self.read {
                Read::Few { .. } => Peek(Some(&peek)),
                Read::All(_) => Peek::default(),
            },
        })
    }
}

/// A header that only messages and denials show. One that cannot be read is not shown.
fn peek(name: &str) -> Option<Vec<u8>> {
    host::header(Map::Request, name).ok().flatten()
}

/// The policies that are left once Envoy's route is known, if any of them asks for it.
pub(crate) fn on_route(config: &Config, matched: Matched) -> Result<Matched, Status> {
    let asked = matched.route_properties(config);
    if asked.is_empty() {
        return Ok(matched);
    }
    let read = properties_of(asked)?;
    Ok(matched.on_route(config, |path| read.get(path).map(Vec::as_slice)))
}

/// What the route says of itself; nothing if it does not have to be asked.
pub(crate) fn opt_out(config: &Config) -> Result<OptOut, Status> {
    let mut said = OptOut::default();
    if !config.route_opt_out {
        return Ok(said);
    }
    let bytes = match host::property(opt_out::PROPERTY)? {
        Property::Absent => return Ok(said),
        Property::Nameless => None,
        Property::Bytes(bytes) => Some(bytes),
    };
    let Some(fields) = bytes.as_deref().and_then(codec::decode) else {
        said.strange = true;
        return Ok(said);
    };
    for (name, value) in fields {
        match name {
            opt_out::ALL => said.read_all(value),
            // A list is a map whose values are empty.
            opt_out::SOME => match codec::decode(value) {
                Some(items) if items.iter().all(|(_, value)| value.is_empty()) => {
                    said.policies = items.iter().map(|(item, _)| item.to_vec()).collect();
                }
                Some(_) | None => said.strange = true,
            },
            _ => said.strange = true,
        }
    }
    Ok(said)
}

fn properties_of(paths: BTreeSet<&str>) -> Result<BTreeMap<&str, Vec<u8>>, Status> {
    let mut read = BTreeMap::new();
    for path in paths {
        // A claim may be null, which a client of a careless issuer must not turn into our failure.
        if let Some(value) = host::property(path)?.bytes() {
            read.insert(path, value);
        }
    }
    Ok(read)
}

/// What Envoy says of an answer. What it does not say counts as if something may have been sent.
pub(crate) fn envoys() -> Envoys {
    let read = |path| host::property(path).ok().and_then(Property::bytes);
    let number = |path| Some(u64::from_le_bytes(*read(path)?.first_chunk()?));
    let attempts = number("upstream\0request_attempt_count");
    let details = read("response\0code_details");
    if details.as_deref() == Some(b"via_upstream") {
        return Envoys { from_upstream: true, attempts, ..Envoys::default() };
    }
    Envoys {
        from_upstream: false,
        flags: number("response\0flags").unwrap_or(u64::MAX),
        attempts,
        from_route: details.as_deref() == Some(b"direct_response"),
    }
}

/// What a response says of the cost of its request; what cannot be read says nothing.
pub(crate) fn cost(source: &ResponseSource) -> Option<Vec<u8>> {
    let read = match source {
        ResponseSource::Header(name) => host::header(Map::Response, name),
        ResponseSource::Trailer(name) => host::header(Map::ResponseTrailer, name),
        ResponseSource::Metadata(path) => host::property(path).map(Property::bytes),
    };
    read.ok().flatten()
}
