//! Owns the places of a request that can name somebody, and what is read there.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::address::{client_ip, plain_v4, spell_ip};
use super::facts::Facts;
use super::fingerprint::Fingerprint;
use super::subject::SubjectKind;
use crate::property::text;

/// The property that holds the client's address as Envoy trusts it.
pub const SOURCE_ADDRESS: &str = "source\0address";

/// One place that names somebody, and how far it may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where to look.
    pub place: Place,
    /// Whether a client cannot choose at will what stands there: by nature, or because the author
    /// vouches for it.
    pub trusted: bool,
    /// Whether it names the tenant.
    pub is_tenant: bool,
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The client's address as Envoy trusts it; IPv6 cut to a prefix.
    Ip {
        /// Leading bits of an IPv6 address that count, 1 to 128.
        v6_prefix: u8,
    },
    /// A request header, by its name in lower case.
    Header(String),
    /// A cookie, by its name to the letter.
    Cookie(String),
    /// A query parameter, by its decoded name.
    Query(String),
    /// A part of the template of the policy's match.
    Path(PathPart),
    /// A claim that Envoy's `jwt_authn` verified.
    Jwt {
        /// The property that holds it.
        property: String,
    },
    /// What the client's certificate says.
    Mtls {
        /// The property that holds it.
        property: String,
    },
    /// What another filter noted.
    FilterState {
        /// The property that holds it.
        property: String,
    },
    /// An id with a signature.
    Signed {
        /// Where both stand.
        carrier: Carrier,
        /// The environment variables of the keys, any of which may have signed.
        keys: Vec<String>,
    },
    /// Device, user agent and TLS together.
    Fingerprint(Box<Fingerprint>),
}

/// What carries a signed id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// A cookie.
    Cookie(String),
    /// A header.
    Header(String),
}

/// A part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPart {
    /// The name in the template, `id` of `{id}`.
    pub name: String,
    /// Which segment of the path that is, from 0; known once the policy's match is.
    pub segment: usize,
}

// === impl Source ===

impl Source {
    /// What its subjects are called.
    pub fn kind(&self) -> SubjectKind {
        if self.is_tenant {
            return SubjectKind::Tenant;
        }
        match &self.place {
            Place::Ip { .. } => SubjectKind::Ip,
            Place::Header(_) => SubjectKind::Header,
            Place::Cookie(_) => SubjectKind::Cookie,
            Place::Query(_) => SubjectKind::Query,
            Place::Path(_) => SubjectKind::Path,
            Place::Jwt { .. } => SubjectKind::Jwt,
            Place::Mtls { .. } => SubjectKind::Mtls,
            Place::FilterState { .. } => SubjectKind::FilterState,
            Place::Signed { .. } => SubjectKind::Signed,
            Place::Fingerprint(_) => SubjectKind::Fingerprint,
        }
    }
}

// === impl Place ===

impl Place {
    /// What stands there, if it names somebody.
    pub(super) fn value<'f>(&self, facts: &'f Facts<'_>) -> Option<Cow<'f, [u8]>> {
        match self {
            Self::Ip { v6_prefix } => {
                let address = facts.source_address.as_deref()?;
                if let Some(v4) = plain_v4(address) {
                    return Some(Cow::Borrowed(v4));
                }
                let address = client_ip(address)?;
                Some(spell_ip(address, *v6_prefix).into_bytes().into())
            }
            Self::Header(name) => facts.header(name).map(Cow::Borrowed),
            Self::Cookie(name) => facts.cookie(name).map(Cow::Borrowed),
            Self::Query(name) => facts.parameter(name).map(Cow::Owned),
            Self::Path(part) => facts.segment(part.segment).map(Cow::Owned),
            Self::Jwt { property } => text(facts.property(property)?),
            Self::Mtls { property } => facts.property(property).map(Cow::Borrowed),
            Self::FilterState { property } => {
                // Envoy's format strings write `-` for what is not there.
                facts.property(property).filter(|value| *value != b"-").map(Cow::Borrowed)
            }
            Self::Signed { carrier, keys } => {
                let signed = match carrier {
                    Carrier::Cookie(name) => facts.cookie(name)?,
                    Carrier::Header(name) => facts.header(name)?,
                };
                facts.secrets.verified(keys, signed).map(Cow::Borrowed)
            }
            Self::Fingerprint(fingerprint) => fingerprint.value(facts).map(Cow::Owned),
        }
    }

    /// Whether it looks at a header field.
    pub(crate) fn reads_headers(&self) -> bool {
        match self {
            Self::Header(_) | Self::Cookie(_) | Self::Signed { .. } | Self::Fingerprint(_) => true,
            Self::Ip { .. }
            | Self::Query(_)
            | Self::Path(_)
            | Self::Jwt { .. }
            | Self::Mtls { .. }
            | Self::FilterState { .. } => false,
        }
    }

    /// The host's properties that have to be read for it.
    pub(crate) fn properties(&self, into: &mut Vec<String>) {
        match self {
            Self::Ip { .. } => into.push(SOURCE_ADDRESS.to_owned()),
            Self::Jwt { property } | Self::Mtls { property } | Self::FilterState { property } => {
                into.push(property.clone());
            }
            Self::Fingerprint(fingerprint) => {
                fingerprint.device.properties(into);
                if let Some(tls) = &fingerprint.tls {
                    tls.properties(into);
                }
            }
            Self::Header(_)
            | Self::Cookie(_)
            | Self::Query(_)
            | Self::Path(_)
            | Self::Signed { .. } => {}
        }
    }
}
