//! Owns conditions on Envoy's route: its name and its metadata.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::field::Want;
use crate::property::text_or_truth;

/// The property that holds the name of a request's route.
pub const ROUTE_NAME: &str = "xds\0route_name";

/// What the route must be. All of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteMatch {
    /// Conditions on properties of the route, each property once.
    conditions: Vec<(String, Want)>,
}

// === impl RouteMatch ===

impl RouteMatch {
    /// Adds a condition on the route's name.
    pub fn name(&mut self, want: Want) {
        self.conditions.push((String::from(ROUTE_NAME), want));
    }

    /// Adds a condition on a value of `filter_metadata`: text, a whole number, `true` or `false`.
    pub fn metadata(&mut self, namespace: &str, key: &str, want: Want) {
        let property = format!("xds\0route_metadata\0filter_metadata\0{namespace}\0{key}");
        self.conditions.push((property, want));
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether it has every condition that `other` has.
    pub fn asks_all_of(&self, other: &Self) -> bool {
        other.conditions.iter().all(|condition| self.conditions.contains(condition))
    }

    /// The host's properties that it asks for.
    pub fn properties<'m>(&'m self, into: &mut BTreeSet<&'m str>) {
        into.extend(self.conditions.iter().map(|(property, _)| property.as_str()));
    }

    /// Whether the route fits; `value` gives a property that was read.
    pub fn matches<'v>(&self, value: impl Fn(&str) -> Option<&'v [u8]>) -> bool {
        self.conditions.iter().all(|(property, want)| {
            // A route without a name has an empty one.
            let text = value(property).filter(|bytes| !bytes.is_empty()).and_then(text_or_truth);
            want.fits(text.as_deref().into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_route_fits_by_name_and_metadata() {
        let text = |text: &str| Want::Equals(text.to_string());
        let five = 5f64.to_le_bytes();
        let rows: [(Want, Option<&[u8]>, bool); 11] = [
            (text("a"), Some(b"a"), true),
            (text("a"), Some(b"b"), false),
            (text("a"), None, false),
            (text("5"), Some(&five), true),
            (text("true"), Some(&[1]), true),
            (text("false"), Some(&[0]), true),
            (Want::Present, Some(b""), false),
            (Want::Present, Some(&[1, 0, 0, 0, 9]), false),
            (Want::Absent, Some(b""), true),
            (Want::Absent, None, true),
            (Want::Absent, Some(b"a"), false),
        ];
        for (want, value, fits) in rows {
            let mut route = RouteMatch::default();
            route.metadata("ns.a", "k", want.clone());
            let seen = |path: &str| {
                assert_eq!(path, "xds\0route_metadata\0filter_metadata\0ns.a\0k");
                value
            };
            assert_eq!(route.matches(seen), fits, "{want:?} {value:?}");
        }
        let mut both = RouteMatch::default();
        both.name(text("orders"));
        both.metadata("ns", "k", Want::Present);
        let seen = |path: &str| (path == ROUTE_NAME).then_some(&b"orders"[..]);
        assert!(!both.matches(seen), "all of it must hold");
        assert!(both.matches(|path| Some(if path == ROUTE_NAME { b"orders" } else { &b"x"[..] })));
        assert!(RouteMatch::default().is_empty() && RouteMatch::default().matches(|_| None));
    }
}
