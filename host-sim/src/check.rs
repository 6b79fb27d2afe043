//! Asks a plugin what it has to say about a configuration, through an export that it may have. It must not know what a
//! configuration holds, and it runs no callback.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::TypedFunc;

use crate::abi::codes::LogLevel;
use crate::host::clock::VmId;
use crate::host::compile::{Compiled, Compiler};
use crate::host::load::{StartError, load_with};
use crate::host::network::Network;
use crate::host::settings::{FailPolicy, PluginSettings};
use crate::host::shared::{Shared, SharedCell};
use crate::host::vm::describe_trap;
use crate::host::vm_state::VmState;

/// The export: addresses and sizes of the configuration and of the facts in, address and size of the answer out.
pub const CHECK_EXPORT: &str = "plugin_check_config";

/// An answer that is longer is taken for a mistake.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A check looks at a document as a whole, which takes more than a callback may.
const FUEL: u64 = 10_000_000_000;
/// As Envoy's own limit.
const MEMORY_BYTES_MAX: usize = 1 << 30;

/// A plugin cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It failed while it checked.
    #[error("{CHECK_EXPORT} failed: {0}")]
    Trap(String),
    /// It gave an address outside its memory, or far too much.
    #[error(
        "{CHECK_EXPORT} answered with {size} bytes at address {address}, which cannot be its answer"
    )]
    Answer {
        /// The address.
        address: u32,
        /// The size.
        size: u32,
    },
}

type Check = TypedFunc<(u32, u32, u32, u32), u64>;

/// The plugin's answer; `None` if it has no such export.
pub(crate) fn check(
    compiler: &Compiler,
    compiled: &Compiled,
    config: &[u8],
    facts: &[u8],
) -> Result<Option<Vec<u8>>, CheckError> {
    if compiled.module.get_export(CHECK_EXPORT).is_none() {
        return Ok(None);
    }
    let shared = SharedCell::new(Shared::new(0, Network::new(None)));
    let vm = VmId { seat: 0, index: 0 };
    let state = VmState::new(vm, "check", Arc::new(settings()), shared, false);
    let (mut vm, instance) = load_with(compiler.engine(), compiled, state)?;
    let check: Check =
        instance.get_typed_func(&mut vm.store, CHECK_EXPORT).map_err(|_mismatch| {
            StartError::ExportType {
                name: CHECK_EXPORT,
                problem: "takes four addresses and sizes and gives one i64".to_owned(),
            }
        })?;
    let trap = |error: &wasmtime::Error| CheckError::Trap(describe_trap(error, FUEL));
    vm.store.set_fuel(FUEL).map_err(|error| trap(&error))?;
    let (config, config_size) = vm.place(config).map_err(|error| trap(&error))?;
    let (facts, facts_size) = vm.place(facts).map_err(|error| trap(&error))?;
    let answer = check
        .call(&mut vm.store, (config, config_size, facts, facts_size))
        .map_err(|error| trap(&error))?;
    let address = u32::try_from(answer >> 32).unwrap_or_default();
    let size = u32::try_from(answer & u64::from(u32::MAX)).unwrap_or_default();
    let wrong = CheckError::Answer { address, size };
    let start = usize::try_from(address).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
    let bytes = vm.memory().and_then(|bytes| bytes.get(start..end));
    match bytes {
        Some(bytes) if bytes.len() <= ANSWER_BYTES_MAX => Ok(Some(bytes.to_vec())),
        _ => Err(wrong),
    }
}

fn settings() -> PluginSettings {
    PluginSettings {
        name: String::new(),
        root_id: String::new(),
        vm_id: String::new(),
        config: Vec::new(),
        vm_config: Vec::new(),
        env: BTreeMap::new(),
        log_level: LogLevel::Info,
        allow_on_headers_stop_iteration: false,
        fail_policy: FailPolicy::Closed,
        reload_base_interval_ns: 0,
        is_disabled: false,
        capabilities: None,
        fuel_per_callback: FUEL,
        memory_bytes_max: MEMORY_BYTES_MAX,
        seed: 1,
        clock_steps: Vec::new(),
        contended: Vec::new(),
        properties: BTreeMap::new(),
    }
}
