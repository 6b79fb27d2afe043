//! The callbacks a module exports, looked up and type-checked once. It must not know when they are called.

use wasmtime::{Instance, Store, TypedFunc, WasmParams, WasmResults};

use crate::host::load::StartError;
use crate::host::vm_state::VmState;

/// A callback of a context and one number.
pub(crate) type Notify = TypedFunc<(u32, u32), ()>;

/// Root, token, headers, body size, trailers.
pub(crate) type Answered = TypedFunc<(u32, u32, u32, u32, u32), ()>;

/// Every callback this host calls; all are optional.
#[derive(Clone)]
pub(crate) struct Exports {
    pub(crate) context_create: Option<Notify>,
    pub(crate) vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) configure: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) tick: Option<TypedFunc<u32, ()>>,
    pub(crate) queue_ready: Option<Notify>,
    pub(crate) request_headers: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) request_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) request_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) response_headers: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) response_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) response_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) http_call_response: Option<Answered>,
    pub(crate) done: Option<TypedFunc<u32, u32>>,
    pub(crate) log: Option<TypedFunc<u32, ()>>,
    pub(crate) delete: Option<TypedFunc<u32, ()>>,
}

impl Exports {
    pub(crate) fn find(
        store: &mut Store<VmState>,
        instance: &Instance,
    ) -> Result<Self, StartError> {
        let mut finder = Finder { store, instance };
        Ok(Self {
            context_create: finder.callback("proxy_on_context_create")?,
            vm_start: finder.callback("proxy_on_vm_start")?,
            configure: finder.callback("proxy_on_configure")?,
            tick: finder.callback("proxy_on_tick")?,
            queue_ready: finder.callback("proxy_on_queue_ready")?,
            request_headers: finder.callback("proxy_on_request_headers")?,
            request_body: finder.callback("proxy_on_request_body")?,
            request_trailers: finder.callback("proxy_on_request_trailers")?,
            response_headers: finder.callback("proxy_on_response_headers")?,
            response_body: finder.callback("proxy_on_response_body")?,
            response_trailers: finder.callback("proxy_on_response_trailers")?,
            http_call_response: finder.callback("proxy_on_http_call_response")?,
            done: finder.callback("proxy_on_done")?,
            log: finder.callback("proxy_on_log")?,
            delete: finder.callback("proxy_on_delete")?,
        })
    }
}

/// `malloc` wins over `proxy_on_memory_allocate`: the reverse of the specification, and what Envoy does.
pub(crate) fn find_allocator(
    store: &mut Store<VmState>,
    instance: &Instance,
) -> Result<Option<TypedFunc<u32, u32>>, StartError> {
    let mut finder = Finder { store, instance };
    if let Some(malloc) = finder.callback("malloc")? {
        return Ok(Some(malloc));
    }
    finder.callback("proxy_on_memory_allocate")
}

/// An exported function without arguments, if there is one of this name.
pub(crate) fn find_plain<R: WasmResults>(
    store: &mut Store<VmState>,
    instance: &Instance,
    name: &'static str,
) -> Result<Option<TypedFunc<(), R>>, StartError> {
    Finder { store, instance }.callback(name)
}

struct Finder<'a> {
    store: &'a mut Store<VmState>,
    instance: &'a Instance,
}

impl Finder<'_> {
    fn callback<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<TypedFunc<P, R>>, StartError> {
        let Some(export) = self.instance.get_export(&mut *self.store, name) else {
            return Ok(None);
        };
        let function = export
            .into_func()
            .ok_or_else(|| StartError::ExportType { name, problem: "is no function".to_owned() })?;
        let found = function.ty(&*self.store);
        match function.typed::<P, R>(&*self.store) {
            Ok(typed) => Ok(Some(typed)),
            Err(_mismatch) => {
                Err(StartError::ExportType { name, problem: format!("has the type {found}") })
            }
        }
    }
}
