//! Envoy's semantics for HTTP filters: chains, contexts, streams, bodies, replies, callouts. It must not know scenarios.

pub(crate) mod access;
pub(crate) mod callouts;
mod chain;
pub(crate) mod clock;
pub(crate) mod compile;
mod exits;
mod filter_calls;
pub(crate) mod foreign;
pub(crate) mod grpc;
pub(crate) mod grpc_answer;
pub mod headers;
mod iterate;
pub(crate) mod lifecycle;
pub mod lints;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod process;
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
pub(crate) mod threads;
pub mod trace;
pub(crate) mod turnstile;
pub(crate) mod vm;
pub(crate) mod vm_state;
