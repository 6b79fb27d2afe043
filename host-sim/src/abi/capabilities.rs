//! Capability restriction: what a plugin may not use links to a stub. It must not know what any function does.

use wasmtime::{Caller, Error, Extern, FuncType, Linker, Store, Val};

use super::guest::restricted_call;
use crate::host::vm_state::VmState;

/// What Envoy provides to every module, restricted or not.
const ALWAYS: [&str; 3] = ["pthread_equal", "emscripten_notify_memory_growth", "envoy_resolve_dns"];

/// Replaces every function that the plugin's list lacks by one that answers `InternalFailure`.
pub(crate) fn restrict(
    linker: &mut Linker<VmState>,
    store: &mut Store<VmState>,
) -> wasmtime::Result<()> {
    if store.data().base.capabilities.is_none() {
        return Ok(());
    }
    let provided: Vec<(String, String, Extern)> = linker
        .iter(&mut *store)
        .map(|(module, name, provided)| (module.to_owned(), name.to_owned(), provided))
        .collect();
    linker.allow_shadowing(true);
    for (module, name, provided) in provided {
        if let Extern::Func(function) = provided
            && !ALWAYS.contains(&name.as_str())
            && !store.data().base.allows(&name)
        {
            let ty = function.ty(&*store);
            stub(linker, &module, name, ty)?;
        }
    }
    linker.allow_shadowing(false);
    Ok(())
}

fn stub(
    linker: &mut Linker<VmState>,
    module: &str,
    name: String,
    ty: FuncType,
) -> wasmtime::Result<()> {
    let shown = name.clone();
    linker.func_new(module, &name, ty, move |mut caller: Caller<'_, VmState>, _, results| {
        let status = restricted_call(&mut caller, &shown)?;
        match results {
            [] => Ok(()),
            [result] => {
                *result = Val::I32(status);
                Ok(())
            }
            _ => Err(Error::msg(format!("{shown} cannot have several results"))),
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::host::load::StartError;
    use crate::host::testing::{traced, vm};
    use crate::host::vm::Vm;

    fn start(vm: &mut Vm) -> Result<u32, StartError> {
        let settings = Arc::clone(&vm.state().base);
        vm.start_root(settings)
    }

    /// Calls a function of the host's, of WASI's and of Envoy's when it is configured; has a callback for ticks.
    const PLUGIN: &str = r#"(module
      (import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
      (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_context_create") (param i32 i32))
      (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (if (i32.eqz (call $equal (i32.const 1) (i32.const 1))) (then unreachable))
        (i32.and (i32.eq (call $time (i32.const 0)) (i32.const 10))
                 (i32.eq (call $random (i32.const 0) (i32.const 1)) (i32.const 10)))))"#;

    #[test]
    fn what_is_not_on_the_list_answers_internal_failure_and_is_not_called() {
        let mut restricted = vm(PLUGIN, Some(&["proxy_on_configure"])).unwrap();
        start(&mut restricted).unwrap();
        let expected = [
            ("proxy_on_configure", "1"),
            ("proxy_get_current_time_nanoseconds", "InternalFailure"),
            ("random_get", "InternalFailure"),
        ];
        assert_eq!(traced(&restricted), expected.map(|(n, s)| (n.to_owned(), s.to_owned())));
    }

    #[test]
    fn what_is_on_the_list_works_and_so_does_everything_without_one() {
        let all = [
            "proxy_on_configure",
            "proxy_on_context_create",
            "proxy_get_current_time_nanoseconds",
            "random_get",
        ];
        for list in [None, Some([].as_slice()), Some(all.as_slice())] {
            let mut free = vm(PLUGIN, list).unwrap();
            let refused = StartError::Refused { callback: "proxy_on_configure" };
            assert_eq!(start(&mut free), Err(refused));
            let called: Vec<_> = traced(&free).into_iter().map(|(name, _)| name).collect();
            assert_eq!(called[0], "proxy_on_context_create", "{list:?}");
        }
    }

    #[test]
    fn a_restricted_function_must_still_exist() {
        let unknown = PLUGIN.replace("random_get", "random_bet");
        let error = vm(&unknown, Some(&["proxy_log"])).err();
        assert!(matches!(error, Some(StartError::UnknownImport { .. })), "{error:?}");
    }
}
