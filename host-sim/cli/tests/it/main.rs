//! The command from outside: what it prints and how it exits.

mod bench;
mod check;
mod in_process;
mod reports;
mod run;
mod schema;
mod support;
mod trace;
