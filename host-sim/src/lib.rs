//! A proxy-wasm host on wasmtime, in virtual time.
mod abi;
mod host;
mod world;
