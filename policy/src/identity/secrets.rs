//! Owns the keys that identities need and what is done with them: signed ids are checked, subjects
//! are hidden. Knows neither where a key comes from nor what a value means.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::subject::{SubjectKind, SubjectName};
use crate::config::Config;

type HmacSha256 = Hmac<Sha256>;

/// The shortest key that is taken, in bytes.
const KEY_LEN_MIN: usize = 32;
/// What is signed begins so, that a signature made for another purpose names nobody.
const SIGNED: &[u8] = b"tidegate-id-v1:";
/// What is hidden begins so, that no signature is ever the name of a subject.
const HIDDEN: &[u8] = b"tidegate-subject-v1:";

/// The keys of one configuration, ready for use; cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Rc<Keys>);

#[derive(Default)]
struct Keys {
    /// By the name of the environment variable.
    signing: BTreeMap<String, HmacSha256>,
    /// Hides subjects.
    subjects: Option<HmacSha256>,
}

// === impl Secrets ===

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Takes the keys that a configuration names out of `environment`. The error says what is
    /// wrong with which, and what to do.
    pub fn new(
        config: &Config,
        environment: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, String> {
        let key = |field: &str, name: &str| -> Result<HmacSha256, String> {
            let value = environment(name).ok_or_else(|| {
                format!("{field}: the environment variable {name} is not set; pass it by vm_config.environment_variables")
            })?;
            if value.len() < KEY_LEN_MIN {
                let len = value.len();
                return Err(format!(
                    "{field}: the environment variable {name} holds {len} bytes, too few for a key; write at least {KEY_LEN_MIN} random ones (openssl rand -hex 32)"
                ));
            }
            HmacSha256::new_from_slice(&value).map_err(|bad| format!("{field}: {name}: {bad}"))
        };
        let mut keys = Keys::default();
        if let Some(name) = &config.hash_subjects {
            keys.subjects = Some(key("hash_subjects", name)?);
        }
        for (name, field) in &config.signing_keys {
            keys.signing.insert(name.clone(), key(field, name)?);
        }
        Ok(Self(Rc::new(keys)))
    }

    /// The id of a signed value, `ID.MAC`: MAC is HMAC-SHA256 over `tidegate-id-v1:ID` in 64
    /// hexadecimal digits, by any of the named keys. Compared in constant time.
    pub(super) fn verified<'v>(&self, names: &[String], signed: &'v [u8]) -> Option<&'v [u8]> {
        let dot = signed.iter().rposition(|&b| b == b'.')?;
        let (id, mac) = (signed.get(..dot)?, signed.get(dot.saturating_add(1)..)?);
        let mac = unhex(mac).filter(|_| !id.is_empty())?;
        let good = |name: &String| {
            let key = self.0.signing.get(name)?.clone();
            key.chain_update(SIGNED).chain_update(id).verify_slice(&mac).ok()
        };
        names.iter().find_map(good).map(|()| id)
    }

    /// How a value is spelled: in clear, or by its HMAC if subjects are hidden.
    pub(super) fn spell(&self, kind: SubjectKind, value: &[u8]) -> SubjectName {
        match &self.0.subjects {
            None => SubjectName::from_bytes(value),
            Some(key) => {
                let key = key.clone().chain_update(HIDDEN).chain_update(kind.as_str());
                let mac = key.chain_update(b":").chain_update(value).finalize();
                SubjectName::from_digest(&mac.into_bytes())
            }
        }
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: usize = 64;
    if digits.len() != DIGITS {
        return None;
    }
    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let mut bytes = Vec::with_capacity(DIGITS / 2);
    let mut rest = digits;
    while let [high, low, after @ ..] = rest {
        bytes.push((nibble(*high)? << 4) | nibble(*low)?);
        rest = after;
    }
    Some(bytes)
}
