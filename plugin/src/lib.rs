//! The Envoy filter. A callback reads facts, hands them to the exchange and carries out what it
//! says; every rule lies in `policy`, every host call in [`host`].
//!
//! It cannot be killed by input: headers are bytes, every host call may fail, and nothing here
//! unwraps, indexes or panics (a trap takes the VM away from every request of its worker).
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod abi;
mod callout;
mod check;
mod circuits;
mod codec;
mod counters;
mod facts;
mod host;
mod ids;
mod lease_home;
mod leases;
mod memory;
mod notice;
mod numbered;
mod path;
mod property;
mod render;
mod root;
mod shares;
#[cfg(feature = "trap-on-header")]
mod trap;
mod vm;
