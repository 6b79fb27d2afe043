//! The numbers of the ABI and their names. It must not know what a host does with them.

/// The status a host function answers with (`proxy_status_t`).
///
/// Of the ABI's other numbers no host function here answers 5 (bad expression) or 9 (result mismatch), as none of Envoy's
/// does; 11 (broken connection) is no answer, only a code that `proxy_get_status` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "Ok",
            Self::NotFound => "NotFound",
            Self::BadArgument => "BadArgument",
            Self::SerializationFailure => "SerializationFailure",
            Self::ParseFailure => "ParseFailure",
            Self::InvalidMemoryAccess => "InvalidMemoryAccess",
            Self::Empty => "Empty",
            Self::CasMismatch => "CasMismatch",
            Self::InternalFailure => "InternalFailure",
            Self::Unimplemented => "Unimplemented",
        }
    }
}

/// The header maps a plugin can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapType {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    GrpcInitialMetadata,
    GrpcTrailingMetadata,
    CalloutHeaders,
    CalloutTrailers,
}

impl MapType {
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::RequestHeaders,
            1 => Self::RequestTrailers,
            2 => Self::ResponseHeaders,
            3 => Self::ResponseTrailers,
            4 => Self::GrpcInitialMetadata,
            5 => Self::GrpcTrailingMetadata,
            6 => Self::CalloutHeaders,
            7 => Self::CalloutTrailers,
            _ => return None,
        })
    }
}

/// The buffers a plugin can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BufferType {
    RequestBody,
    ResponseBody,
    /// TCP: a known number, always empty in an HTTP filter.
    DownstreamData,
    /// As [`BufferType::DownstreamData`].
    UpstreamData,
    CalloutBody,
    GrpcMessage,
    VmConfig,
    PluginConfig,
    /// What a callback that is no HTTP callback brings: the addresses of a resolved name.
    CallData,
}

impl BufferType {
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::RequestBody,
            1 => Self::ResponseBody,
            2 => Self::DownstreamData,
            3 => Self::UpstreamData,
            4 => Self::CalloutBody,
            5 => Self::GrpcMessage,
            6 => Self::VmConfig,
            7 => Self::PluginConfig,
            8 => Self::CallData,
            _ => return None,
        })
    }
}

/// What a headers callback asked for, after the host's conversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadersAction {
    Continue,
    /// Headers wait, the body still reaches the filter.
    StopIteration,
    /// Everything waits until the filter resumes.
    StopAll,
}

impl HeadersAction {
    /// `2` (continue and end the stream) is plain Continue in Envoy; without the host flag a pause in headers holds everything.
    pub(crate) fn from_code(code: u32, allow_stop_iteration: bool) -> Self {
        match code {
            0 | 2 => Self::Continue,
            1 if allow_stop_iteration => Self::StopIteration,
            _ => Self::StopAll,
        }
    }
}

/// What a body callback asked for, after the host's conversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataAction {
    Continue,
    /// Hold the bytes and show them again with the next chunk.
    Buffer,
    /// Hold the bytes, show only the next chunk.
    Watermark,
    /// Drop this chunk.
    NoBuffer,
}

impl DataAction {
    pub(crate) fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Continue,
            1 => Self::Buffer,
            2 => Self::Watermark,
            _ => Self::NoBuffer,
        }
    }
}

/// Levels of `proxy_log`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For developers.
    Debug,
    /// Normal events.
    Info,
    /// Something degraded.
    Warn,
    /// Something failed; also what WASI stderr becomes.
    Error,
    /// The plugin cannot go on.
    Critical,
}

impl LogLevel {
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Trace,
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            5 => Self::Critical,
            _ => return None,
        })
    }

    /// The level's name as scenario files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// The ABI version a module's marker export names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AbiVersion {
    V0_1_0,
    V0_2_0,
    V0_2_1,
}

impl AbiVersion {
    /// The version that a function exported under this name claims.
    pub(crate) fn from_marker(name: &str) -> Option<Self> {
        Some(match name {
            "proxy_abi_version_0_1_0" => Self::V0_1_0,
            "proxy_abi_version_0_2_0" => Self::V0_2_0,
            "proxy_abi_version_0_2_1" => Self::V0_2_1,
            _ => return None,
        })
    }

    /// The version as people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        }
    }
}
