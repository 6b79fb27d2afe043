//! One run: VMs, clients and the network in virtual time. It must not parse files or judge results.

pub(crate) mod clients;
pub(crate) mod exchange;
pub(crate) mod options;
pub(crate) mod run;
pub(crate) mod timeline;
pub(crate) mod upstream;
