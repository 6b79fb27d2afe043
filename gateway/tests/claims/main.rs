//! Claims and stored answers, on a real Redis and in memory.

mod differential;
mod races;
mod replicas;
mod store;
mod support;
