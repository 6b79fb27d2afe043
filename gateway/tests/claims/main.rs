//! Claims and stored answers, on a real Redis and in memory.

mod cluster;
mod differential;
mod memory;
mod races;
#[path = "../redis_store/mod.rs"]
mod redis_store;
mod replicas;
mod sealing;
mod store;
mod support;
