//! A proxy-wasm host on wasmtime, in virtual time: it runs any plugin's `.wasm` without Envoy, with Envoy's rules.
//!
//! A [`Scenario`] says what clients send and when, what services answer, and what must come of it; a run gives a
//! [`Report`]. Nothing in a run reads a clock, sleeps or draws real randomness: the same scenario and plugin give the
//! same report to the byte.
//!
//! Four rooms, each of which knows only those before it: `abi` (numbers, encodings, imports and exports), `host`
//! (contexts, streams, callouts), `world` (VMs, clients, time), `scenario` (files and expectations).
//!
//! ```
//! use tidegate_host_sim::{Runner, Scenario, Services};
//!
//! let scenario = Scenario::parse(r#"
//! name: a filter that does nothing lets requests pass
//! plugin: {}
//! timeline:
//!   - { at: 0ms, client: a, send: { path: /hello } }
//! expect:
//!   - { client: a, status: 200, body: ok }
//!   - { upstream: requests, equals: 1 }
//! "#)?;
//! let wasm = wat::parse_str(r#"
//!   (module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
//!     (func (export "malloc") (param i32) (result i32) (i32.const 1024)))
//! "#)?;
//! let report = Runner::with_cache(None)?.run_bytes(&scenario, &wasm, Services::default())?;
//! assert!(report.passed(), "{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// The README's examples compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod abi;
mod check;
mod explore;
mod host;
mod report;
mod runner;
mod scenario;
mod world;

pub use abi::codes::LogLevel;
pub use abi::{pairs, path};
pub use check::{CHECK_EXPORT, CheckError};
pub use host::compile::CacheError;
pub use host::headers::HeaderMap;
pub use host::lints::{HOST_CALLS_MAX, Lint, LintName, METRIC_NAMES_MAX, SHARED_KEYS_MAX};
pub use host::load::StartError;
pub use host::network::ServiceCall;
pub use host::service::{Answer, Fault, Outcome, Reply, Service, ServiceRequest};
pub use host::stream::Usage;
pub use host::trace::{LogLine, TraceKind, TraceLine};
pub use report::Report;
pub use runner::{CACHE_DIRECTORY, RunError, Runner, Services, run};
pub use scenario::check::CheckResult;
pub use scenario::load::ScenarioError;
pub use scenario::plan::Scenario;
pub use scenario::schema::scenario_schema;
pub use scenario::view::{ClientView, UpdateView};
pub use world::exchange::Exchange;
pub use world::timeline::ClientAct;
