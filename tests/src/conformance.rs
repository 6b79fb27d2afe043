//! One scenario, two runners: the simulator and a real Envoy carry out the same files
//! (`tests/conformance/`), and what plugin, client, upstream and gateway saw is compared.
//!
//! The plugin is `tests/conformance-filter`, which does what its configuration lists and logs every
//! callback and every host call with its answer. `corpus` reads the files, `simulated` and
//! `measured` run them, `transcript` compares.

mod bootstrap;
mod clients;
mod clock;
mod corpus;
mod envoy_log;
mod exceptions;
mod judged;
mod measured;
mod record;
mod services;
mod simulated;
mod suite;
mod table;
mod transcript;

pub use corpus::{Case, corpus};
pub use judged::Judged;
pub use suite::{Options, run, strayed_exceptions};
pub use table::{table, write, written};
pub use transcript::Transcript;
