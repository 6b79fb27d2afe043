//! Every decision of Tidegate, pure: configuration, matching, identities, limits, modes, audit
//! records, the per-request exchange, and the messages between filter and gateway.
//!
//! Nothing here knows proxy-wasm, HTTP servers, Redis, clocks, randomness or logs: time and entropy
//! come in as values, verdicts go out as values. `no_std` makes that a matter of compiling rather
//! than of discipline.
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::as_conversions
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod answers;
pub mod audit;
pub mod breaker;
pub mod canonical;
pub mod check;
pub mod config;
pub mod cost;
mod digits;
pub mod exchange;
pub mod fields;
pub mod fnv;
pub mod gcra;
pub mod homes;
pub mod idempotency;
pub mod identity;
pub mod lease;
pub mod limit;
pub mod local_share;
pub mod matching;
pub mod mode;
pub mod needs;
mod octets;
pub mod opt_out;
mod property;
pub mod reason;
pub mod render;
pub mod router;
pub mod scope;
pub mod stages;
pub mod template;
pub mod window;
pub mod wire;
