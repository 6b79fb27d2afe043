//! Turns a plugin's bytes into a compiled module, with a cache on disk. It must not run anything.

use std::path::{Path, PathBuf};

use wasmtime::{Cache, CacheConfig, Config, Engine, ExternType, Module};

use super::load::StartError;
use crate::abi::codes::AbiVersion;

/// Compiles modules and remembers them on disk.
#[derive(Clone)]
pub(crate) struct Compiler {
    engine: Engine,
}

/// A module that speaks an ABI this host has.
#[derive(Clone)]
pub(crate) struct Compiled {
    pub(crate) module: Module,
    pub(crate) version: AbiVersion,
}

/// The compiler could not be set up: the machine's fault, not the plugin's.
#[derive(Debug, thiserror::Error)]
#[error("the cache of compiled modules in {} cannot be used; name another directory, or none", directory.display())]
pub struct CacheError {
    directory: PathBuf,
    source: wasmtime::Error,
}

impl Compiler {
    /// Without a directory nothing is cached.
    pub(crate) fn new(cache_directory: Option<&Path>) -> Result<Self, CacheError> {
        let mut config = Config::new();
        // The same run must be byte-identical on every machine.
        config.cranelift_nan_canonicalization(true);
        config.consume_fuel(true);
        // Addresses in guest memory are 32-bit throughout the ABI.
        config.wasm_memory64(false);
        let directory = cache_directory.unwrap_or(Path::new("")).to_path_buf();
        let failed = |source| CacheError { directory: directory.clone(), source };
        if let Some(path) = cache_directory {
            config.cache(Some(open_cache(path).map_err(failed)?));
        }
        Ok(Self { engine: Engine::new(&config).map_err(failed)? })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn compile(&self, wasm: &[u8]) -> Result<Compiled, StartError> {
        // The text format would be accepted too, but Envoy takes only binaries.
        if !wasm.starts_with(b"\0asm") {
            return Err(StartError::NotWasm);
        }
        let module = Module::from_binary(&self.engine, wasm)
            .map_err(|error| StartError::Invalid(error.root_cause().to_string()))?;
        let version = abi_version(&module)?;
        match module.get_export("memory") {
            Some(ExternType::Memory(_)) => Ok(Compiled { module, version }),
            Some(_) => {
                Err(StartError::ExportType { name: "memory", problem: "is no memory".to_owned() })
            }
            None => Err(StartError::NoMemory),
        }
    }
}

fn open_cache(path: &Path) -> wasmtime::Result<Cache> {
    let mut cache = CacheConfig::new();
    cache.with_directory(std::path::absolute(path)?);
    Cache::new(cache)
}

/// The first marker wins, in the order of the module's exports; anything but a function is none.
fn abi_version(module: &Module) -> Result<AbiVersion, StartError> {
    module
        .exports()
        .filter(|export| matches!(export.ty(), ExternType::Func(_)))
        .find_map(|export| AbiVersion::from_marker(export.name()))
        .ok_or(StartError::NoAbi)
}
