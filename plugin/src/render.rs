//! Owns how what the policy rendered is handed to the host: nothing is left to choose here.

use tidegate_policy::config::{Config, Fallback};
use tidegate_policy::exchange::{Denial, Note, Replay, Response, SOFT_HEADER};
use tidegate_policy::render;

use crate::codec;
use crate::host::{self, Map, Status};

/// Answers in the upstream's place.
pub(crate) fn deny(config: Option<&Config>, denial: &Denial) -> Result<(), Status> {
    let reply = render::reply(config, denial);
    let headers = reply.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    host::send_local_response(
        reply.status.into(),
        &reply.details,
        &reply.body,
        &codec::encode_bytes(headers),
        reply.grpc_status.into(),
    )
}

/// Gives the first answer again.
pub(crate) fn replay(config: &Config, replay: &Replay) -> Result<(), Status> {
    const NO_GRPC_STATUS: i32 = -1;
    let reply = render::replay(config, replay);
    let headers = reply.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let headers = codec::encode_bytes(headers);
    let status = u32::from(reply.status);
    host::send_local_response(status, &reply.details, &reply.body, &headers, NO_GRPC_STATUS)
}

/// Writes down why, for the access log: `%FILTER_STATE(wasm.tidegate:PLAIN)%`.
pub(crate) fn note(note: &Note) -> Result<(), Status> {
    host::set_property("tidegate", &note.line())
}

/// Tells the upstream which soft limits are used up.
pub(crate) fn annotate(soft: &str) -> Result<(), Status> {
    host::replace_header(Map::Request, SOFT_HEADER, soft)
}

/// Leads a request to another cluster: the host looks for its route anew when a header changes.
pub(crate) fn reroute(config: &Config, breaker: usize) -> Result<(), Status> {
    match config.circuit_breakers.get(breaker).and_then(|breaker| breaker.fallback.as_ref()) {
        Some(Fallback::Header { name, value }) => host::replace_header(Map::Request, name, value),
        Some(Fallback::Answer { .. }) | None => Ok(()),
    }
}

/// Takes out what only the filter may say.
pub(crate) fn strip(config: &Config) -> Result<(), Status> {
    if config.has_soft_limits() {
        host::remove_header(Map::Request, SOFT_HEADER)?;
    }
    for breaker in &config.circuit_breakers {
        if let Some(Fallback::Header { name, .. }) = &breaker.fallback {
            host::remove_header(Map::Request, name)?;
        }
    }
    Ok(())
}

/// Writes into an upstream's response what its client is told.
pub(crate) fn tell(response: &Response) -> Result<(), Status> {
    let upstream = match response.yields_to {
        None => None,
        Some(name) => host::header(Map::Response, name)?,
    };
    let (fields, replaces) = response.writes(upstream.as_deref());
    for (name, value) in fields {
        match replaces {
            true => host::replace_header(Map::Response, name, value)?,
            false => host::add_header(Map::Response, name, value)?,
        }
    }
    Ok(())
}
