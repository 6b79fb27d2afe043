//! The simulator from outside: plugins written as text, scenarios, and what they report.

mod abi;
mod bodies;
mod callouts;
mod chains;
mod foreign;
mod fuzz;
mod grpc;
mod hostile;
mod interleavings;
mod lints;
mod process;
mod readme;
mod replies;
mod scenarios;
mod schema;
mod streams;
mod support;
mod wasi;
