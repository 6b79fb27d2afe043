//! Owns leases: units of a limit that a holder (an Envoy process) has taken out of the shared bucket
//! ahead of its requests, so that it admits them by itself. Both sides live here: what the store does
//! ([`step`], the specification of `lua/rl_lease.lua`) and what the holder does ([`holder`]).
//!
//! Why the limit is never exceeded, with B the units free in the bucket, u what a holder really has
//! left and U what the bucket believes it may have left:
//!
//! 1. u <= U. U rises before a grant leaves and falls only by a report that is newer than all before,
//!    or when a whole generation has passed since the grant; by then the holder has dropped what is
//!    left, because it counts a shorter time from an earlier moment, the sending of its message. The
//!    report counts what its workers have ([`out`]): until they spent it, or it must have ended.
//! 2. B + U <= burst. Between two steps U stands still and B grows; the floor of
//!    [`bucket::Leases::floored`] is exactly that cap, and it is applied with the **old** U before a
//!    report is heard, and at each end of a generation.
//!
//! So every admission takes one unit out of B + u, which only the refill raises: in every interval of
//! length t at most `burst + t * limit / period` are admitted, whatever is lost, late, doubled or
//! restarted. Exact callers charge the same bucket under the same floor.

pub mod bucket;
mod demand;
pub mod holder;
mod out;
pub mod round;
pub mod slice;
pub mod slot;
pub mod step;
mod stored;
#[cfg(test)]
mod tests;
