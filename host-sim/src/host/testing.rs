//! One VM without a world, for tests of what no scenario can ask for yet. It must not be part of the library.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clock::VmId;
use super::compile::Compiler;
use super::load::{StartError, load};
use super::network::Network;
use super::settings::{FailPolicy, PluginSettings};
use super::shared::{Shared, SharedCell};
use super::vm::Vm;
use super::vm_state::VmState;
use crate::abi::codes::LogLevel;

/// A traced VM of this module, loaded but without a root; everything is allowed unless a list says what is.
pub(crate) fn vm(text: &str, capabilities: Option<&[&str]>) -> Result<Vm, StartError> {
    let plugin = PluginSettings {
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
        fuel_per_callback: 1_000_000,
        memory_bytes_max: 1 << 20,
        seed: 1,
        clock_steps: Vec::new(),
        contended: Vec::new(),
        properties: BTreeMap::new(),
        capabilities: capabilities
            .map(|list| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>()),
    };
    let shared = SharedCell::new(Shared::new(0, Network::new(None)));
    let compiler = Compiler::new(None).expect("no cache, no error");
    let compiled = compiler.compile(&wat::parse_str(text).expect("a module"))?;
    load(
        compiler.engine(),
        &compiled,
        VmState::new(VmId { seat: 0, index: 0 }, "w0", Arc::new(plugin), shared, true),
    )
}

/// Names and statuses of everything that was traced.
pub(crate) fn traced(vm: &Vm) -> Vec<(String, String)> {
    let shared = vm.state().shared.borrow();
    shared.trace.iter().map(|line| (line.name.clone(), line.status.clone())).collect()
}
