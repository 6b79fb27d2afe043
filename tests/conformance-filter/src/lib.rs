//! A filter that does what its configuration lists, host call by host call, and logs every callback
//! and every answer. Two hosts that run the same list and log the same lines behave the same.
//!
//! The configuration is a JSON object. `tag` is put into each line; every other key is a callback
//! (`request_headers`, `http_call_response`, `tick`, ...; `vm_start` is read from the VM's
//! configuration) with a list of rules, of which the first that fits is carried out:
//!
//! ```json
//! {"tag": "a", "request_headers": [
//!   {"path": "/x", "nth": 1, "eos": true, "do": [["get", "request_headers", "x-a"], ["return", 1]]}
//! ]}
//! ```
//!
//! `names` gives clusters and VMs other names than the lists use, so that many configurations can share
//! one host. A list of calls may stand in place of the rules. A rule's conditions are `path` (the stream's),
//! `nth` (that callback of that context), `eos`, `token`. The calls are in `ops.rs`, each an array
//! of its name and arguments in the ABI's order; how arguments are written is in `args.rs`.
//!
//! It has no SDK, so that nothing stands between the list and the host, and never panics by itself:
//! a trap is something a list asks for.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod abi;
mod args;
mod imports;
mod memory;
mod ops;
mod text;
mod vm;
