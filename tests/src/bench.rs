//! The benchmarks: everything that is compared is measured in one run, in shuffled rounds; medians
//! with their spread, ratios instead of absolute figures, CPU time of each process beside them.
//! Nothing is asserted on a figure.

pub mod audit_rows;
pub mod breaker_rows;
pub mod callers;
pub mod claims;
pub mod cores;
pub mod envoy_rows;
pub mod far;
pub mod floor;
pub mod gateway_rows;
pub mod idem_rows;
pub mod lease_rows;
pub mod load;
mod pace;
pub mod policy_rows;
pub mod pool;
pub mod question;
pub mod redis_rows;
mod starts;
pub mod stats;
pub mod summary;
pub mod turns;
pub mod wrk;
