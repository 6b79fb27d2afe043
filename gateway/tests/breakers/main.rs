//! Breakers that gateways share, on a real Redis and in memory.

mod differential;
mod races;
