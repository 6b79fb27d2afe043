//! Owns the circuit breaker's machine, by its layers: what a worker knows, what a process shares, what a
//! region shares, and the three as one where nobody shares anything. Knows neither what is called nor a
//! clock; time and entropy come in as values.
//!
//! Source: product rows B1 to B3.

pub mod alone;
pub mod by;
pub mod kept;
pub mod mesh;
pub mod outcome;
pub mod places;
pub mod process;
pub mod worker;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What was called works.
    Success,
    /// It does not.
    Failure,
    /// It says nothing about what was called.
    Ignored,
}
