//! The simulator from outside: plugins written as text, scenarios, and what they report.

mod abi;
mod bodies;
mod callouts;
mod foreign;
mod grpc;
mod hostile;
mod process;
mod readme;
mod replies;
mod scenarios;
mod streams;
mod support;
mod wasi;
