//! What happens from outside and when: clients, new configurations. It must not know what becomes of it.

use crate::host::properties::Properties;

use crate::host::headers::HeaderMap;

/// A client's request, as announced before the run.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) client: String,
    /// 1 for the client's first request.
    pub(crate) nth: usize,
    pub(crate) worker: usize,
    /// Dotted path to bytes.
    pub(crate) properties: Properties,
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) at_ns: u64,
    pub(crate) action: Action,
}

/// What can happen.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// A client does something with its exchange.
    Client { exchange: usize, act: ClientAct },
    /// The listener is updated with another configuration of a plugin.
    Update { plugin: usize, config: Vec<u8> },
}

/// What a client can do.
#[derive(Debug, Clone)]
pub enum ClientAct {
    /// Sends the request's headers.
    Headers {
        /// The headers with pseudo-headers.
        headers: HeaderMap,
        /// Whether nothing follows.
        end: bool,
    },
    /// Sends a piece of the body.
    Data {
        /// The piece; empty where only the end is told.
        bytes: Vec<u8>,
        /// Whether nothing follows.
        end: bool,
    },
    /// Ends the request with trailers.
    Trailers(HeaderMap),
    /// Closes the connection.
    Disconnect,
}

/// All requests and all steps, the steps in order of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    pub(crate) announced: Vec<Announced>,
    pub(crate) steps: Vec<Step>,
}
