//! Puts every import of one ABI version together. It must not know what any of them does.

use wasmtime::{Engine, Linker};

use super::codes::AbiVersion;
use super::{
    buffers, callouts, extras, foreign, grpc, headers, legacy, logging, metrics, properties,
    queues, shared_data, streams, wasi, wasi_stubs,
};
use crate::host::vm_state::VmState;

/// Registers a function of module `env`: the arguments as the guest passes them, the status as the answer.
macro_rules! host_fn {
    ($linker:expr, $name:literal, $function:path, ($($arg:ident: $ty:ty),*)) => {
        $linker.func_wrap(
            "env",
            $name,
            |mut caller: wasmtime::Caller<'_, crate::host::vm_state::VmState>, $($arg: $ty),*| -> wasmtime::Result<i32> {
                crate::abi::guest::host_call(&mut caller, $name, |guest| $function(guest, $($arg),*))
            },
        )?
    };
}
pub(crate) use host_fn;

/// The imports a module of this version may have; those of another version are absent, as in Envoy.
pub(crate) fn linker(engine: &Engine, version: AbiVersion) -> wasmtime::Result<Linker<VmState>> {
    let mut linker = Linker::new(engine);
    logging::register(&mut linker, version)?;
    headers::register(&mut linker, version)?;
    buffers::register(&mut linker)?;
    properties::register(&mut linker)?;
    shared_data::register(&mut linker)?;
    queues::register(&mut linker)?;
    metrics::register(&mut linker)?;
    callouts::register(&mut linker)?;
    grpc::register(&mut linker)?;
    foreign::register(&mut linker)?;
    extras::register(&mut linker)?;
    streams::register(&mut linker)?;
    match version {
        AbiVersion::V0_1_0 => legacy::register(&mut linker)?,
        AbiVersion::V0_2_0 | AbiVersion::V0_2_1 => streams::register_since_0_2_0(&mut linker)?,
    }
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        wasi::register(&mut linker, module)?;
        wasi_stubs::register(&mut linker, module)?;
    }
    Ok(linker)
}
