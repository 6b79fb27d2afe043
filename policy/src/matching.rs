//! Owns which requests a policy takes in: hosts, paths, methods, headers and query parameters.
//! Knows paths in the one spelling that [`crate::canonical`] gives them, and not what a policy
//! then does. Finding the policies of a request among many is [`crate::router`]'s work.

use alloc::string::String;
use alloc::vec::Vec;

mod field;
mod host;
mod path;
mod regex;
mod route;

pub use field::{FieldMatch, Want};
pub(crate) use field::{decode, parameters};
pub use host::{BadHost, HostPattern, canonical_host};
pub use path::{BadPattern, PathPattern, Segment};
pub use regex::{BadRegex, Regex};
pub use route::{ROUTE_NAME, RouteMatch};

/// What a policy's `match` says. All of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// The hosts that fall under the policy; `None` is every host.
    pub hosts: Option<Vec<HostPattern>>,
    /// The paths that do.
    pub path: PathPattern,
    /// The methods that do; `None` is every method.
    pub methods: Option<Vec<String>>,
    /// What the headers must say.
    pub headers: Vec<FieldMatch>,
    /// What the query's parameters must say.
    pub query: Vec<FieldMatch>,
    /// What Envoy's route must be.
    pub route: RouteMatch,
}

// === impl Matcher ===

impl Matcher {
    /// Whether the method falls under the policy; `None` is a request without one, which only a
    /// policy over every method takes in.
    pub fn matches_method(&self, method: Option<&[u8]>) -> bool {
        match (&self.methods, method) {
            (None, _) => true,
            (Some(methods), Some(method)) => methods.iter().any(|m| m.as_bytes() == method),
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_compared_to_the_letter() {
        let some = Matcher {
            hosts: None,
            path: PathPattern::Any,
            methods: Some([String::from("POST")].into()),
            headers: Vec::new(),
            query: Vec::new(),
            route: RouteMatch::default(),
        };
        assert!(some.matches_method(Some(b"POST")));
        assert!(!some.matches_method(Some(b"post")));
        assert!(!some.matches_method(Some(b"\xff")));
        assert!(!some.matches_method(None));
    }
}
