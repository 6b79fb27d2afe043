//! The proxy-wasm ABI: numbers, encodings, guest memory, imports and exports. It must not know HTTP's rules or scenarios.

pub(crate) mod buffers;
pub(crate) mod callouts;
pub(crate) mod capabilities;
pub(crate) mod codes;
pub(crate) mod exports;
pub(crate) mod extras;
pub(crate) mod foreign;
pub(crate) mod grpc;
pub(crate) mod guest;
pub(crate) mod headers;
pub(crate) mod legacy;
pub(crate) mod link;
pub(crate) mod logging;
pub(crate) mod metrics;
pub mod pairs;
pub mod path;
pub(crate) mod properties;
pub(crate) mod protobuf;
pub(crate) mod queues;
pub(crate) mod shared_data;
pub(crate) mod streams;
pub(crate) mod values;
pub(crate) mod wasi;
pub(crate) mod wasi_stubs;
