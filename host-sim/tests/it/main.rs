//! The simulator from outside: plugins written as text, scenarios, and what they report.

mod callouts;
mod support;
