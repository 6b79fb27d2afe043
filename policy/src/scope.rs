//! Owns the scope that every fact, message, store call and key carries: region, environment,
//! tenant and key format. Knows neither how keys are spelled nor where a region comes from.
//!
//! Each part has a checked constructor, so that a value that exists is a value that can stand in a
//! key. Source: product row A1 (regions), C2 (tenants), H5 (isolation).

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DEFAULT_ENVIRONMENT: &str = "default";

/// The most bytes that a region, an environment or a tenant may have.
pub const PART_LEN_MAX: usize = 64;

/// Why a text cannot be a part of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPart {
    what: &'static str,
    text: String,
}

// === impl BadPart ===

impl fmt::Display for BadPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no {}: write 1 to {PART_LEN_MAX} of the characters a-z A-Z 0-9 . _ -",
            self.text, self.what
        )
    }
}

impl core::error::Error for BadPart {}

fn checked(what: &'static str, text: &str) -> Result<String, BadPart> {
    let sound = !text.is_empty()
        && text.len() <= PART_LEN_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if sound {
        Ok(text.to_owned())
    } else {
        Err(BadPart { what, text: text.chars().take(PART_LEN_MAX).collect() })
    }
}

macro_rules! part {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Accepts 1 to [`PART_LEN_MAX`] of `a-z A-Z 0-9 . _ -`.
            pub fn new(text: &str) -> Result<Self, BadPart> {
                checked($what, text).map(Self)
            }

            /// The text, as it stands in keys and messages.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

part!(
    /// A region: limits used up in one leave the others whole (product row A1).
    Region,
    "region"
);
part!(
    /// An environment (`production`, `staging`): two of them never share a key.
    Environment,
    "environment"
);
part!(
    /// A tenant's name, validated; made only where a trusted source named it.
    TenantId,
    "tenant"
);

// === impl Region ===

impl Region {
    /// The region of a gateway that was told none.
    pub fn fallback() -> Self {
        Self("default".to_owned())
    }
}

// === impl Environment ===

impl Default for Environment {
    fn default() -> Self {
        Self(DEFAULT_ENVIRONMENT.to_owned())
    }
}

impl Environment {
    /// Whether it is the one where none is named.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT_ENVIRONMENT
    }
}

/// Whose request it is. Limits and breakers accept `None`; idempotency never does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(untagged)]
pub enum Tenant {
    /// A trusted source named the tenant.
    Named(TenantId),
    /// No tenant takes part in this decision, and that is meant.
    #[default]
    None,
}

// === impl Tenant ===

impl<'de> Deserialize<'de> for Tenant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Not as an option, which takes a field that is missing for none.
        from.deserialize_any(TenantOrNull)
    }
}

/// Tries no variant after the other: each message has a tenant.
struct TenantOrNull;

impl serde::de::Visitor<'_> for TenantOrNull {
    type Value = Tenant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tenant or null")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Tenant, E> {
        TenantId::new(text).map(Tenant::Named).map_err(E::custom)
    }

    fn visit_unit<E>(self) -> Result<Tenant, E> {
        Ok(Tenant::None)
    }
}

impl Tenant {
    /// Whether none takes part.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// The version of the key format, so that a later format can live beside an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum KeyFormat {
    /// The first format.
    #[default]
    V1,
}

// === impl KeyFormat ===

impl TryFrom<u8> for KeyFormat {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::V1),
            _ => Err("unknown key format: this build knows 1"),
        }
    }
}

impl From<KeyFormat> for u8 {
    fn from(format: KeyFormat) -> Self {
        match format {
            KeyFormat::V1 => 1,
        }
    }
}

/// What the filter says of its own place. Its region is only compared, never used for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerScope {
    /// The Envoy node's locality, where it has one.
    pub region: Option<Region>,
    /// The environment that the filter was deployed for.
    pub environment: Environment,
    /// The tenant of this request.
    pub tenant: Tenant,
    /// The key format that the filter expects.
    pub key_format: KeyFormat,
}

/// What every store call carries: the names that its keys are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The gateway's region.
    pub region: Region,
    /// The environment.
    pub environment: Environment,
    /// The tenant.
    pub tenant: Tenant,
    /// The key format.
    pub key_format: KeyFormat,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn parts_refuse_what_could_forge_a_key() {
        for text in ["", "a:b", "a|b", "{a}", "a b", "ä", "a\0", &"x".repeat(65)] {
            let error = Region::new(text).expect_err(text);
            assert!(error.to_string().contains("is no region"), "{error}");
        }
        assert_eq!(Region::new("us-central1").map(|r| r.to_string()), Ok("us-central1".into()));
    }

    #[test]
    fn an_absent_tenant_is_written_as_null() {
        assert_eq!(serde_json::to_string(&Tenant::None).ok().as_deref(), Some("null"));
        let named = Tenant::Named(TenantId::new("acme").expect("a sound name"));
        assert_eq!(serde_json::to_string(&named).ok().as_deref(), Some("\"acme\""));
        assert_eq!(serde_json::from_str::<Tenant>("\"acme\"").ok(), Some(named));
        assert_eq!(serde_json::from_str::<Tenant>("null").ok(), Some(Tenant::None));
        assert!(serde_json::from_str::<Tenant>("\"a:b\"").is_err());
    }
}
