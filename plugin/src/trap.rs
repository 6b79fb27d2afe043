//! Owns the trap that tests ask for: the VM is gone in the middle of a request. Only with the feature
//! `trap-on-header`, which no shipped filter has.

use crate::host::{self, Map};

/// The upstream's word for it.
const HEADER: &str = "x-tidegate-trap";

/// Traps if the answer that has just arrived says so.
pub(crate) fn if_told() {
    if matches!(host::header(Map::Response, HEADER), Ok(Some(_))) {
        core::arch::wasm32::unreachable();
    }
}
