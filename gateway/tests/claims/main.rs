//! Claims and stored answers, on a real Redis and in memory.

mod differential;
mod races;
#[path = "../redis_store/mod.rs"]
mod redis_store;
mod replicas;
mod sealing;
mod store;
mod support;
