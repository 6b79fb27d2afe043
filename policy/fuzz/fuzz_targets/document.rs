//! Any octets as a configuration: they are read, or refused with a reason, in bounded time and memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_policy::config::{Config, Severity};

fuzz_target!(|octets: &[u8]| {
    let Ok(document) = core::str::from_utf8(octets) else { return };
    let reading = Config::read(document);
    let refused = reading.diagnostics.iter().any(|one| one.severity == Severity::Error);
    assert_eq!(reading.config.is_none(), refused);
});
