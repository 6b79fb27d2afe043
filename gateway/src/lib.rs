//! The gateway: decisions on shared state for the filter, over HTTP, with Redis or memory behind.
//!
//! Three rooms, one direction: [`http`] parses, routes and renders; [`service`] checks the caller,
//! admits and keeps the deadlines; [`store`] charges limits. No room looks back. Nothing here knows
//! proxy-wasm or how a request is matched to a policy.
//!
//! A gateway is a value: [`Gateway::start`] takes its settings and its [`World`] (stores, clock,
//! audit sink, metrics) as arguments and binds port 0 if asked to. Below the http room time comes
//! from the [`clock::Clock`] only. The process environment is read by the binary alone.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod access;
pub mod audit;
pub mod clock;
pub mod cores;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
mod own_thread;
pub mod secret;
pub mod server;
pub mod service;
pub mod settings;
pub mod store;
pub mod throttle;
pub mod tls;
pub mod world;

pub use cores::Cores;
pub use server::{Gateway, Running};
pub use settings::{Environment, Settings};
pub use world::{StartError, World};
