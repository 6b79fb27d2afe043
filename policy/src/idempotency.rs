//! Owns idempotency as values: one run for one key, and the same answer for everyone who asks again.
//! Knows neither HTTP servers nor stores; the scripts in `lua/` are the authority for what is shared,
//! [`record`] is their twin.
//!
//! The parts, in the order in which a request meets them: the key that the client sent ([`key`]), the
//! endpoint it is for ([`endpoint`]), what exactly was asked ([`fingerprint`]), where that is recorded
//! ([`name`]), what the record says ([`record`]), what becomes of the claim once the upstream has
//! answered or not ([`finalise`]), and what of an answer is kept ([`stored`]). What a policy says of all
//! this is [`terms`].

pub mod endpoint;
pub mod finalise;
pub mod fingerprint;
pub mod key;
pub mod name;
pub mod record;
pub mod stored;
pub mod terms;
