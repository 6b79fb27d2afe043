//! Breakers that gateways share, on a real Redis and in memory.

mod differential;
mod notes;
mod races;
#[path = "../redis_store/mod.rs"]
mod redis_store;
