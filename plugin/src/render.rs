//! Owns how what the policy rendered is handed to the host: nothing is left to choose here.

use tidegate_policy::config::{Config, Fallback};
use tidegate_policy::exchange::{Denial, Note, Replay, Response, SOFT_HEADER};
use tidegate_policy::render;

use crate::codec;
use crate::host::{self, Map, Status};
use crate::property::Property;

/// The property of a stream that names the headers of its request that instances of the filter wrote: what one
/// ahead of this one says is no client's word.
const WRITTEN: &str = "tidegate_headers";

/// By these a caller has Envoy send a request again, whatever its route says. Envoy itself takes them from those outside.
const AGAIN: [&str; 3] =
    ["x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-hedge-on-per-try-timeout"];

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

/// Takes out the type that the host says of what has none.
pub(crate) fn untype() -> Result<(), Status> {
    host::remove_header(Map::Response, "content-type")
}

/// Writes down why, for the access log: `%FILTER_STATE(wasm.tidegate:PLAIN)%`.
pub(crate) fn note(note: &Note) -> Result<(), Status> {
    host::set_property("tidegate", &note.line())
}

/// Tells the upstream which soft limits are used up, beside what an instance ahead of this one told it.
pub(crate) fn annotate(soft: &str) -> Result<(), Status> {
    let told =
        host::header(Map::Request, SOFT_HEADER)?.and_then(|told| String::from_utf8(told).ok());
    match told {
        Some(told) => host::replace_header(Map::Request, SOFT_HEADER, &format!("{told}, {soft}")),
        None => write(SOFT_HEADER, soft),
    }
}

/// Leads a request to another cluster: the host looks for its route anew when a header changes.
pub(crate) fn reroute(config: &Config, breaker: usize) -> Result<(), Status> {
    match config.circuit_breakers.get(breaker).and_then(|breaker| breaker.fallback.as_ref()) {
        Some(Fallback::Header { name, value }) => write(name, value),
        Some(Fallback::Answer { .. }) | None => Ok(()),
    }
}

/// Takes out what only the filter may say.
pub(crate) fn strip(config: &Config) -> Result<(), Status> {
    if config.has_soft_limits() {
        strip_one(SOFT_HEADER)?;
    }
    for breaker in &config.circuit_breakers {
        if let Some(Fallback::Header { name, .. }) = &breaker.fallback {
            strip_one(name)?;
        }
    }
    Ok(())
}

/// Takes out what would have the host send the request more than once.
pub(crate) fn send_once() -> Result<(), Status> {
    for name in AGAIN {
        // The host looks for a route anew where one is taken out.
        if host::header(Map::Request, name)?.is_some() {
            host::remove_header(Map::Request, name)?;
        }
    }
    Ok(())
}

/// Nearly no request has one, and only of one that has is asked who wrote it.
fn strip_one(name: &str) -> Result<(), Status> {
    let is_there = host::header(Map::Request, name)?.is_some();
    if !is_there || written()?.split(',').any(|written| written == name) {
        return Ok(());
    }
    host::remove_header(Map::Request, name)
}

/// Writes a header of the request that only the filter may write.
fn write(name: &str, value: &str) -> Result<(), Status> {
    host::replace_header(Map::Request, name, value)?;
    let written = written()?;
    let separator = if written.is_empty() { "" } else { "," };
    host::set_property(WRITTEN, &format!("{written}{separator}{name}"))
}

fn written() -> Result<String, Status> {
    Ok(match host::property(WRITTEN)? {
        Property::Bytes(bytes) => String::from_utf8(bytes).unwrap_or_default(),
        Property::Absent | Property::Nameless => String::new(),
    })
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
