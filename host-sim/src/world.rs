//! One run: VMs, clients and the network in virtual time. It must not parse files or judge results.

pub(crate) mod clients;
mod crew;
pub(crate) mod exchange;
pub(crate) mod options;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod timeline;
mod turns;
pub(crate) mod upstream;
