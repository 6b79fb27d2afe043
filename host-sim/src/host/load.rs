//! Instantiates a compiled plugin, and names what is wrong with one that cannot start. It must not create contexts.

use wasmtime::{Engine, ExternType, Instance, Linker, Store, Trap};

use super::compile::Compiled;
use super::vm::{Vm, describe_trap};
use super::vm_state::{Stage, VmState};
use crate::abi::capabilities::restrict;
use crate::abi::exports::{Exports, find_allocator, find_start};
use crate::abi::link::linker;

/// Why a plugin does not start. Every variant names what its author must change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The file is something else.
    #[error("not a WebAssembly binary: the first bytes are not \\0asm")]
    NotWasm,
    /// The binary is cut or broken.
    #[error("not a valid WebAssembly module: {0}")]
    Invalid(String),
    /// Nothing says that this is a proxy-wasm plugin.
    #[error(
        "no proxy-wasm plugin: it exports no function proxy_abi_version_0_2_1, proxy_abi_version_0_2_0 or proxy_abi_version_0_1_0"
    )]
    NoAbi,
    /// Without memory nothing can be handed over.
    #[error("the plugin exports no memory")]
    NoMemory,
    /// Without an allocator the host cannot hand anything over; Envoy refuses such a plugin, too.
    #[error(
        "the plugin exports neither malloc nor proxy_on_memory_allocate, so the host could hand nothing over"
    )]
    NoAllocator,
    /// An import nobody provides.
    #[error(
        "unknown import {module}.{name}: a host of ABI {version}, which the plugin's marker names, has no such function"
    )]
    UnknownImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
        /// The ABI version that the module's marker names.
        version: &'static str,
    },
    /// An import with other arguments than the ABI's.
    #[error("the import {module}.{name} has the wrong type: {problem}")]
    ImportType {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
        /// Both types.
        problem: String,
    },
    /// An export with other arguments than the ABI's.
    #[error("the export {name} {problem}, which is not the ABI's")]
    ExportType {
        /// The export's name.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The module cannot be instantiated.
    #[error("the plugin cannot be instantiated: {0}")]
    Instantiate(String),
    /// A trap before or in a start callback.
    #[error("{callback} failed: {why}")]
    Trap {
        /// The function that trapped.
        callback: String,
        /// The trap.
        why: String,
    },
    /// The plugin itself said no.
    #[error("{callback} returned false: the plugin refuses its configuration")]
    Refused {
        /// The callback that returned false.
        callback: &'static str,
    },
}

/// Instantiates, initialises and looks up the callbacks.
pub(crate) fn load(engine: &Engine, compiled: &Compiled, state: VmState) -> Result<Vm, StartError> {
    load_with(engine, compiled, state).map(|(vm, _)| vm)
}

/// The same, and the instance, for exports that are no callbacks.
pub(crate) fn load_with(
    engine: &Engine,
    compiled: &Compiled,
    state: VmState,
) -> Result<(Vm, Instance), StartError> {
    let broken = |error: wasmtime::Error| StartError::Instantiate(error.to_string());
    let mut linker = linker(engine, compiled.version).map_err(broken)?;
    let fuel = state.base.fuel_per_callback;
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limits);
    check_imports(&linker, &mut store, compiled)?;
    restrict(&mut linker, &mut store).map_err(broken)?;
    store.set_fuel(fuel).map_err(broken)?;
    let instance = linker
        .instantiate(&mut store, &compiled.module)
        .map_err(|error| instantiation(&error, fuel))?;
    let exports = Exports::find(&mut store, &instance, compiled.version)?;
    let allocate = find_allocator(&mut store, &instance)?;
    let memory = instance.get_memory(&mut store, "memory").ok_or(StartError::NoMemory)?;
    store.data_mut().guest.memory = Some(memory);
    store.data_mut().guest.allocate = Some(allocate);
    store.set_fuel(fuel).map_err(broken)?;
    store.data_mut().stage = Stage::Initializing;
    initialize(&mut store, &instance, fuel)?;
    store.data_mut().stage = Stage::Running;
    Ok((Vm { store, exports, dead: None }, instance))
}

/// What runs while a module is instantiated is its start section; data outside memory fails there, too.
fn instantiation(error: &wasmtime::Error, fuel: u64) -> StartError {
    let why = describe_trap(error, fuel);
    if error.is::<Trap>() || why.contains("start section") {
        StartError::Trap {
            callback: "the module's start section (its start function or its data)".to_owned(),
            why,
        }
    } else {
        StartError::Instantiate(why)
    }
}

/// A reactor's `_initialize` and then its main, or a command's `_start`.
fn initialize(
    store: &mut Store<VmState>,
    instance: &Instance,
    fuel: u64,
) -> Result<(), StartError> {
    let trap = |callback: &str, error: &wasmtime::Error| StartError::Trap {
        callback: callback.to_owned(),
        why: describe_trap(error, fuel),
    };
    if let Some(function) = find_start::<(), ()>(store, instance, "_initialize")? {
        function.call(&mut *store, ()).map_err(|error| trap("_initialize", &error))?;
        if let Some(main) = find_start::<(u32, u32), u32>(store, instance, "main")? {
            main.call(&mut *store, (0, 0)).map_err(|error| trap("main", &error))?;
        } else if let Some(main) = find_start::<(), u32>(store, instance, "__main_void")? {
            main.call(&mut *store, ()).map_err(|error| trap("__main_void", &error))?;
        }
    } else if let Some(function) = find_start::<(), ()>(store, instance, "_start")? {
        function.call(&mut *store, ()).map_err(|error| trap("_start", &error))?;
    }
    Ok(())
}

fn check_imports(
    linker: &Linker<VmState>,
    store: &mut Store<VmState>,
    compiled: &Compiled,
) -> Result<(), StartError> {
    for import in compiled.module.imports() {
        let (module, name) = (import.module().to_owned(), import.name().to_owned());
        let Ok(provided) = linker.get(&mut *store, &module, &name) else {
            let version = compiled.version.name();
            return Err(StartError::UnknownImport { module, name, version });
        };
        let provided = provided.ty(&*store);
        if let (ExternType::Func(wanted), ExternType::Func(provided)) = (import.ty(), provided) {
            if !provided.matches(&wanted) {
                let problem = format!("the plugin wants {wanted}, the ABI has {provided}");
                return Err(StartError::ImportType { module, name, problem });
            }
        } else {
            return Err(StartError::ImportType {
                module,
                name,
                problem: "the host provides a function".to_owned(),
            });
        }
    }
    Ok(())
}
