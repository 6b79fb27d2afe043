//! End to end on real parts: a real Envoy, a real Redis, the shipped filter. These prove the
//! wiring; what a rule decides is tested where the rule lies.

mod answers;
mod audit;
mod audit_sync;
mod callout_faults;
mod circuits;
mod circuits_beside;
mod circuits_held;
mod circuits_lost;
mod circuits_told;
mod configuration;
mod crashes;
mod exactness;
mod failover;
mod homes;
mod hostile_input;
mod http3;
mod idempotency;
mod idempotency_kinds;
mod idempotency_retries;
mod identities;
mod ladder;
mod leases;
mod regions;
mod replicas;
mod sealing;
mod stack;
mod tls;
