//! Envoy's semantics for one HTTP filter: contexts, streams, bodies, replies, callouts. It must not know scenarios.

pub(crate) mod access;
pub(crate) mod callouts;
pub(crate) mod clock;
pub(crate) mod compile;
pub(crate) mod flow;
pub(crate) mod foreign;
pub(crate) mod grpc;
pub(crate) mod grpc_answer;
pub mod headers;
pub(crate) mod lifecycle;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod properties;
pub(crate) mod random;
pub(crate) mod reply;
pub(crate) mod root_news;
pub(crate) mod roots;
pub mod service;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod trace;
pub(crate) mod vm;
pub(crate) mod vm_state;
