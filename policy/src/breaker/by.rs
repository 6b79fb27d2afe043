//! Owns whose breaker a request falls under, where a breaker is one for each of many.

use alloc::rc::Rc;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::identity::{Facts, Identity, SubjectName};
use crate::matching::ROUTE_NAME;

/// The property that holds the name of the cluster that a request's route leads to.
pub const CLUSTER_NAME: &str = "xds\0cluster_name";
/// Longer spellings are replaced by a digest, so that a breaker's name has room for its configured one.
const VALUE_LEN_MAX: usize = 136;

/// Whom there is one for each of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The clusters that Envoy's routes lead to.
    Cluster,
    /// Envoy's routes, by their names.
    Route,
    /// What requests say of their sender.
    Identity(Identity),
}

// === impl By ===

impl By {
    /// Whose breaker these facts lead to, spelled as subjects are; `None` if they name nobody.
    pub fn value(&self, facts: &Facts<'_>) -> Option<Rc<str>> {
        let name = match self {
            Self::Cluster => named(facts, CLUSTER_NAME)?,
            Self::Route => named(facts, ROUTE_NAME)?,
            Self::Identity(identity) => identity.subject(facts)?.name,
        };
        let text = name.as_str();
        if text.len() <= VALUE_LEN_MAX {
            return Some(Rc::from(text));
        }
        let digest = SubjectName::from_digest(&Sha256::digest(text.as_bytes()));
        Some(Rc::from(digest.as_str()))
    }

    /// The host's properties that have to be read for it.
    pub fn properties(&self, into: &mut Vec<String>) {
        match self {
            Self::Cluster => into.push(CLUSTER_NAME.to_string()),
            Self::Route => into.push(ROUTE_NAME.to_string()),
            Self::Identity(identity) => identity.properties(into),
        }
    }

    /// Whether header fields have to be read for it.
    pub fn reads_headers(&self) -> bool {
        match self {
            Self::Cluster | Self::Route => false,
            Self::Identity(identity) => {
                identity.sources().any(|source| source.place.reads_headers())
            }
        }
    }

    /// Whether no client can choose at will which breaker it falls under.
    pub fn is_trusted(&self) -> bool {
        match self {
            Self::Cluster | Self::Route => true,
            Self::Identity(identity) => identity.is_trusted(),
        }
    }
}

fn named(facts: &Facts<'_>, property: &str) -> Option<SubjectName> {
    let value = facts.properties.get(property).filter(|value| !value.is_empty())?;
    Some(SubjectName::from_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Place, Source};
    use alloc::format;

    fn header(name: &str) -> Source {
        Source { place: Place::Header(name.into()), trusted: true, is_tenant: false }
    }

    #[test]
    fn a_value_is_spelled_as_subjects_are_and_never_too_long_for_a_name() {
        let mut facts = Facts::default();
        assert_eq!(By::Cluster.value(&facts), None);
        facts.properties.insert(CLUSTER_NAME, b"outbound|443||pay.svc".to_vec());
        facts.properties.insert(ROUTE_NAME, Vec::new());
        assert_eq!(By::Cluster.value(&facts).as_deref(), Some("outbound%7C443%7C%7Cpay.svc"));
        assert_eq!(By::Route.value(&facts), None, "a route without a name");
        let by = By::Identity(Identity::single(header("x-a")));
        assert_eq!(by.value(&facts), None);
        let long = "a".repeat(90);
        facts.headers = [(&b"x-a"[..], long.as_bytes()), (b"x-b", long.as_bytes())].into();
        assert_eq!(by.value(&facts).as_deref(), Some(long.as_str()));
        let mut both = Identity::single(header("x-a"));
        both.parts.extend(Identity::single(header("x-b")).parts);
        let digest = By::Identity(both).value(&facts).expect("a value");
        assert!(digest.starts_with('~') && digest.len() == 33, "{digest}");
        let name = format!("{}:{long}", "n".repeat(63));
        assert!(crate::wire::breaker::BreakerName::new(&name).is_some());
    }
}
