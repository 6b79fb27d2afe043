//! The callbacks a module exports, looked up and type-checked once. It must not know when they are called.

use wasmtime::{AsContextMut, Instance, Store, TypedFunc, WasmParams, WasmResults};

use super::codes::AbiVersion;
use crate::host::load::StartError;
use crate::host::vm_state::VmState;

/// A callback of a context and one number.
pub(crate) type Notify = TypedFunc<(u32, u32), ()>;

/// A callback of a root, a token and one number.
pub(crate) type Received = TypedFunc<(u32, u32, u32), ()>;

/// Root, token, headers, body size, trailers.
pub(crate) type Answered = TypedFunc<(u32, u32, u32, u32, u32), ()>;

/// A headers callback: context, number of headers, and, since ABI 0.2.0, whether the stream ends with them.
#[derive(Clone)]
pub(crate) enum OnHeaders {
    WithoutEnd(TypedFunc<(u32, u32), u32>),
    WithEnd(TypedFunc<(u32, u32, u32), u32>),
}

/// What can be called with these arguments, whatever its exact type in the module.
pub(crate) trait Callback<P, R> {
    fn run(&self, store: &mut Store<VmState>, params: P) -> wasmtime::Result<R>;
}

/// Every callback this host calls; all are optional.
#[derive(Clone)]
pub(crate) struct Exports {
    pub(crate) context_create: Option<Notify>,
    pub(crate) vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) configure: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) tick: Option<TypedFunc<u32, ()>>,
    pub(crate) queue_ready: Option<Notify>,
    pub(crate) request_headers: Option<OnHeaders>,
    pub(crate) request_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) request_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) response_headers: Option<OnHeaders>,
    pub(crate) response_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) response_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) http_call_response: Option<Answered>,
    pub(crate) grpc_initial: Option<Received>,
    pub(crate) grpc_receive: Option<Received>,
    pub(crate) grpc_trailing: Option<Received>,
    pub(crate) grpc_close: Option<Received>,
    pub(crate) resolve_dns: Option<Received>,
    pub(crate) done: Option<TypedFunc<u32, u32>>,
    pub(crate) log: Option<TypedFunc<u32, ()>>,
    pub(crate) delete: Option<TypedFunc<u32, ()>>,
}

impl Exports {
    pub(crate) fn find(
        store: &mut Store<VmState>,
        instance: &Instance,
        version: AbiVersion,
    ) -> Result<Self, StartError> {
        let mut finder = Finder { store, instance };
        finder.check_uncalled(version)?;
        Ok(Self {
            context_create: finder.callback("proxy_on_context_create")?,
            vm_start: finder.callback("proxy_on_vm_start")?,
            configure: finder.callback("proxy_on_configure")?,
            tick: finder.callback("proxy_on_tick")?,
            queue_ready: finder.callback("proxy_on_queue_ready")?,
            request_headers: finder.on_headers("proxy_on_request_headers", version)?,
            request_body: finder.callback("proxy_on_request_body")?,
            request_trailers: finder.callback("proxy_on_request_trailers")?,
            response_headers: finder.on_headers("proxy_on_response_headers", version)?,
            response_body: finder.callback("proxy_on_response_body")?,
            response_trailers: finder.callback("proxy_on_response_trailers")?,
            http_call_response: finder.callback("proxy_on_http_call_response")?,
            grpc_initial: finder.callback("proxy_on_grpc_receive_initial_metadata")?,
            grpc_receive: finder.callback("proxy_on_grpc_receive")?,
            grpc_trailing: finder.callback("proxy_on_grpc_receive_trailing_metadata")?,
            grpc_close: finder.callback("proxy_on_grpc_close")?,
            resolve_dns: finder.callback("envoy_on_resolve_dns")?,
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
) -> Result<TypedFunc<u32, u32>, StartError> {
    let mut finder = Finder { store, instance };
    if let Some(malloc) = finder.find("malloc")? {
        return Ok(malloc);
    }
    finder.find("proxy_on_memory_allocate")?.ok_or(StartError::NoAllocator)
}

/// An exported function that starts the module, if there is one of this name.
pub(crate) fn find_start<P: WasmParams, R: WasmResults>(
    store: &mut Store<VmState>,
    instance: &Instance,
    name: &'static str,
) -> Result<Option<TypedFunc<P, R>>, StartError> {
    Finder { store, instance }.find(name)
}

struct Finder<'a> {
    store: &'a mut Store<VmState>,
    instance: &'a Instance,
}

// === impl Finder ===

impl Finder<'_> {
    /// Callbacks that no host of an HTTP filter calls must still have the ABI's type, or Envoy refuses the module.
    fn check_uncalled(&mut self, version: AbiVersion) -> Result<(), StartError> {
        self.callback::<u32, u32>("proxy_on_new_connection")?;
        self.callback::<(u32, u32, u32), u32>("proxy_on_downstream_data")?;
        self.callback::<(u32, u32, u32), u32>("proxy_on_upstream_data")?;
        self.callback::<(u32, u32), ()>("proxy_on_downstream_connection_close")?;
        self.callback::<(u32, u32), ()>("proxy_on_upstream_connection_close")?;
        self.callback::<(u32, u32), u32>("proxy_on_request_metadata")?;
        self.callback::<(u32, u32), u32>("proxy_on_response_metadata")?;
        self.callback::<(u32, u32), u32>("proxy_validate_configuration")?;
        self.callback::<(u32, u32), ()>("envoy_on_stats_update")?;
        if version != AbiVersion::V0_1_0 {
            self.callback::<(u32, u32, u32), ()>("proxy_on_foreign_function")?;
        }
        Ok(())
    }

    fn on_headers(
        &mut self,
        name: &'static str,
        version: AbiVersion,
    ) -> Result<Option<OnHeaders>, StartError> {
        Ok(match version {
            AbiVersion::V0_1_0 => self.callback(name)?.map(OnHeaders::WithoutEnd),
            AbiVersion::V0_2_0 | AbiVersion::V0_2_1 => self.callback(name)?.map(OnHeaders::WithEnd),
        })
    }

    /// A callback that the plugin may not have for lack of the capability is as good as absent, whatever its type.
    fn callback<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<TypedFunc<P, R>>, StartError> {
        if !name.starts_with("envoy_") && !self.store.data().base.allows(name) {
            return Ok(None);
        }
        self.find(name)
    }

    fn find<P: WasmParams, R: WasmResults>(
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

// === impl Callback ===

impl<P: WasmParams, R: WasmResults> Callback<P, R> for TypedFunc<P, R> {
    fn run(&self, store: &mut Store<VmState>, params: P) -> wasmtime::Result<R> {
        self.call(store.as_context_mut(), params)
    }
}

impl Callback<(u32, u32, u32), u32> for OnHeaders {
    fn run(
        &self,
        store: &mut Store<VmState>,
        (context, count, end): (u32, u32, u32),
    ) -> wasmtime::Result<u32> {
        match self {
            Self::WithoutEnd(function) => function.call(store, (context, count)),
            Self::WithEnd(function) => function.call(store, (context, count, end)),
        }
    }
}
