//! The real parts that the tests, the demo and the benchmarks stand on: Envoy, Redis, the gateway,
//! an upstream, clients, and the one fault fixture. Nothing here decides; a missing part is a
//! failure that says what to install, never a skipped test.

pub mod bench;
pub mod certificates;
pub mod chaos;
pub mod client;
pub mod conformance;
pub mod demo;
pub mod envoy;
pub mod envoy_process;
pub mod eventually;
pub mod faults;
pub mod gateway;
pub mod http1;
pub mod http2;
pub mod http3;
pub mod lab;
pub mod lease_report;
pub mod orders;
pub mod outage;
pub mod parts;
pub mod process;
pub mod puppet;
pub mod random;
pub mod redis;
pub mod scripted;
pub mod upstream;

pub use eventually::eventually;
