//! The simulator from outside: plugins written as text, scenarios, and what they report.

mod abi;
mod bodies;
mod callouts;
mod chains;
mod foreign;
mod grpc;
mod hostile;
mod interleavings;
mod process;
mod readme;
mod replies;
mod scenarios;
mod streams;
mod support;
mod wasi;
