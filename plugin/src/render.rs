//! Owns how what the policy rendered is handed to the host: nothing is left to choose here.

use tidegate_policy::answers::Answers;
use tidegate_policy::exchange::{Denial, Response};
use tidegate_policy::render;

use crate::codec;
use crate::host::{self, Map, Status};

/// Answers in the upstream's place.
pub(crate) fn deny(answers: &Answers, denial: &Denial) -> Result<(), Status> {
    let reply = render::reply(answers, denial);
    let headers: Vec<(&str, &str)> =
        reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    host::send_local_response(
        reply.status.into(),
        &reply.details,
        &reply.body,
        &codec::encode(&headers),
        reply.grpc_status.into(),
    )
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
