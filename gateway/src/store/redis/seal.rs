//! Owns how stored answers are sealed and opened: AES-256-GCM by ring, a fresh key for each answer. Knows
//! neither records' octets nor where keys come from. No key ever shows in a message.
//!
//! ```text
//! headers  one, named `:sealed`: version (4, big-endian), salt (32), the headers sealed
//! body     the body sealed, if the answer has one
//! ```
//!
//! The key of an answer is made of the version's key and the salt by HKDF-SHA-256, so that no nonce is
//! ever used twice with one. What is sealed is bound to the record's name, to the status and to whether
//! there is a body: sealed octets that were moved to another record, or to another status, do not open.
//! No answer of an upstream has such a header: a name that begins with a colon is never kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::stored::{StoredAnswer, StoredHeaders};
use zeroize::Zeroizing;

const SEALED: &[u8] = b":sealed";
const PURPOSE: &[u8] = b"tidegate stored answer 1";
const SALT_LEN: usize = 32;

/// Which of the keys: `v1`, `v2`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealVersion(pub u32);

/// The keys, and which of them seals. Every one opens.
pub struct SealKeys {
    keys: BTreeMap<SealVersion, Zeroizing<[u8; 32]>>,
    /// `None` where others are to learn the keys before anything is sealed.
    seals: Option<SealVersion>,
    /// Whether answers that are not sealed are read as well.
    reads_plain: bool,
}

/// Why an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Sealed by a key that is not given.
    #[error("it is sealed by key {0}, which is not given")]
    UnknownKey(SealVersion),
    /// It was changed, moved from another record, or sealed by another key of this version.
    #[error("it does not open: changed, moved, or sealed by another key {0}")]
    Broken(SealVersion),
    /// Not sealed. Whoever writes into the store could have made it.
    #[error("it is not sealed; TIDEGATE_SEAL_READ_PLAIN=1 reads it, for a beginning")]
    Plain,
    /// Named as sealed, and of no known form.
    #[error("it is of no known form")]
    Malformed,
}

/// What of an answer is sealed. Each part has a nonce of its own.
#[derive(Debug, Clone, Copy)]
enum Part {
    Headers = 0,
    Body = 1,
}

// === impl SealVersion ===

impl fmt::Display for SealVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

// === impl SealKeys ===

impl SealKeys {
    /// `None` if the one that is to seal is not among them. Where none is to seal, what is not sealed is read.
    pub fn new(
        keys: BTreeMap<SealVersion, Zeroizing<[u8; 32]>>,
        seals: Option<SealVersion>,
        reads_plain: bool,
    ) -> Option<Self> {
        let is_known = seals.is_none_or(|seals| keys.contains_key(&seals));
        let reads_plain = reads_plain || seals.is_none();
        is_known.then_some(Self { keys, seals, reads_plain })
    }

    /// The answer as it is stored. `None` if the system gives no randomness.
    pub fn seal<'a>(
        &self,
        name: &RecordName,
        answer: &'a StoredAnswer,
    ) -> Option<Cow<'a, StoredAnswer>> {
        let Some(version) = self.seals else { return Some(Cow::Borrowed(answer)) };
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).ok()?;
        let key = key(self.keys.get(&version)?, &salt)?;
        let sealed = |part, octets: Vec<u8>| {
            let mut octets = octets;
            let aad = Aad::from(bound(name, answer.status, answer.body.is_some(), part));
            key.seal_in_place_append_tag(nonce(part), aad, &mut octets).ok()?;
            Some(octets)
        };
        let mut value = version.0.to_be_bytes().to_vec();
        value.extend(salt);
        value.extend(sealed(Part::Headers, answer.headers.to_bytes())?);
        let body = match &answer.body {
            Some(body) => Some(sealed(Part::Body, body.clone())?),
            None => None,
        };
        let headers = StoredHeaders::sealed(SEALED, value);
        Some(Cow::Owned(StoredAnswer { status: answer.status, headers, body }))
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.keys()).finish()
    }
}

/// The answer as it was. One that is not sealed is read only where nothing seals, or where it is said
/// that it may be.
pub fn opened(
    keys: Option<&SealKeys>,
    name: &RecordName,
    answer: StoredAnswer,
) -> Result<StoredAnswer, Unreadable> {
    let Some((_, value)) = answer.headers.iter().find(|(name, _)| *name == SEALED) else {
        return match keys {
            Some(keys) if !keys.reads_plain => Err(Unreadable::Plain),
            _ => Ok(answer),
        };
    };
    let (version, rest) = value.split_first_chunk().ok_or(Unreadable::Malformed)?;
    let (salt, headers) = rest.split_first_chunk::<SALT_LEN>().ok_or(Unreadable::Malformed)?;
    let version = SealVersion(u32::from_be_bytes(*version));
    let secret = keys.and_then(|keys| keys.keys.get(&version));
    let secret = secret.ok_or(Unreadable::UnknownKey(version))?;
    let key = key(secret, salt).ok_or(Unreadable::Broken(version))?;
    let open = |part, octets: &[u8]| {
        let mut octets = octets.to_vec();
        let aad = Aad::from(bound(name, answer.status, answer.body.is_some(), part));
        let plain_len = key.open_in_place(nonce(part), aad, &mut octets).ok()?.len();
        octets.truncate(plain_len);
        Some(octets)
    };
    let headers = open(Part::Headers, headers).ok_or(Unreadable::Broken(version))?;
    let headers = StoredHeaders::from_bytes(&headers).ok_or(Unreadable::Malformed)?;
    let body = match &answer.body {
        Some(body) => Some(open(Part::Body, body).ok_or(Unreadable::Broken(version))?),
        None => None,
    };
    Ok(StoredAnswer { status: answer.status, headers, body })
}

fn key(secret: &[u8; 32], salt: &[u8; SALT_LEN]) -> Option<LessSafeKey> {
    let secret = Salt::new(HKDF_SHA256, salt).extract(secret);
    let okm = secret.expand(&[PURPOSE], &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(okm)))
}

fn nonce(part: Part) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 1] = part as u8;
    Nonce::assume_unique_for_key(nonce)
}

fn bound(name: &RecordName, status: u16, has_body: bool, part: Part) -> Vec<u8> {
    let mut bound = PURPOSE.to_vec();
    bound.extend([part as u8, u8::from(has_body)]);
    bound.extend(status.to_be_bytes());
    bound.extend_from_slice(name.as_str().as_bytes());
    bound
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_policy::idempotency::endpoint::Endpoint;
    use tidegate_policy::idempotency::key::IdempotencyKey;
    use tidegate_policy::idempotency::stored::{HEADERS_LEN_MAX, HeaderRule};
    use tidegate_policy::scope::{Environment, TenantId};

    use super::*;

    fn name(key: &str) -> RecordName {
        RecordName::of(
            &Environment::default(),
            &TenantId::new("acme").expect("a tenant"),
            &Endpoint::of(b"POST", b"/pay", None).expect("an endpoint"),
            &IdempotencyKey::new(key).expect("a key"),
        )
    }

    fn keys(versions: &[u32], seals: u32) -> SealKeys {
        let secret = |version: &u32| Zeroizing::new([u8::try_from(*version).expect("small"); 32]);
        let keys = versions.iter().map(|version| (SealVersion(*version), secret(version)));
        SealKeys::new(keys.collect(), Some(SealVersion(seals)), false).expect("among them")
    }

    fn answer(body: Option<&[u8]>) -> StoredAnswer {
        let headers: [(&[u8], &[u8]); 1] = [(b"location", b"/orders/17")];
        let headers = HeaderRule::default().kept(headers).expect("few");
        StoredAnswer { status: 201, headers, body: body.map(<[u8]>::to_vec) }
    }

    #[test]
    fn what_is_sealed_opens_and_shows_nothing() {
        let keys = keys(&[1], 1);
        for body in [Some(b"card 4242".as_slice()), Some(b""), None] {
            let answer = answer(body);
            let sealed = keys.seal(&name("k"), &answer).expect("sealed").into_owned();
            let octets = [sealed.headers.to_bytes(), sealed.body.clone().unwrap_or_default()];
            let octets = String::from_utf8_lossy(&octets.concat()).into_owned();
            assert!(
                !octets.contains("4242") && !octets.contains("orders") && !octets.contains("loc")
            );
            assert_ne!(
                keys.seal(&name("k"), &answer).as_deref(),
                Some(&sealed),
                "a salt of its own"
            );
            assert_eq!(opened(Some(&keys), &name("k"), sealed), Ok(answer));
        }
        let plain = answer(Some(b"x"));
        assert_eq!(opened(Some(&keys), &name("k"), plain.clone()), Err(Unreadable::Plain));
        let both = SealKeys { reads_plain: true, ..self::keys(&[1], 1) };
        assert_eq!(opened(Some(&both), &name("k"), plain.clone()), Ok(plain.clone()));
        assert_eq!(opened(None, &name("k"), plain.clone()), Ok(plain));
        assert!(!format!("{keys:?}").contains("1, 1"));
    }

    #[test]
    fn the_longest_headers_are_read_back_from_a_record() {
        let long = vec![b'x'; HEADERS_LEN_MAX - 8];
        let headers = HeaderRule::default().kept([(b"etag".as_slice(), long.as_slice())]);
        let answer = StoredAnswer { headers: headers.expect("they fit"), ..answer(None) };
        let keys = keys(&[1], 1);
        let sealed = keys.seal(&name("k"), &answer).expect("sealed").into_owned();
        let headers = StoredHeaders::from_bytes(&sealed.headers.to_bytes());
        let read = StoredAnswer { headers: headers.expect("of a record"), ..sealed };
        assert_eq!(opened(Some(&keys), &name("k"), read), Ok(answer));
    }

    #[test]
    fn a_rotation_reads_what_was_and_what_is_and_nothing_else() {
        let answer = answer(Some(b"x"));
        let old = keys(&[1], 1).seal(&name("k"), &answer).expect("sealed").into_owned();
        let new = keys(&[1, 2], 2).seal(&name("k"), &answer).expect("sealed").into_owned();
        for sealed in [&old, &new] {
            for both in [keys(&[1, 2], 1), keys(&[1, 2], 2)] {
                assert_eq!(opened(Some(&both), &name("k"), sealed.clone()), Ok(answer.clone()));
            }
        }
        let unknown = Err(Unreadable::UnknownKey(SealVersion(1)));
        assert_eq!(opened(Some(&keys(&[2], 2)), &name("k"), old.clone()), unknown);
        assert_eq!(opened(None, &name("k"), old), unknown);
    }

    proptest! {
        /// Whatever an attacker with the store at hand changes or moves: it never opens.
        #[test]
        fn what_was_changed_or_moved_does_not_open(place: usize, bit in 0u8..8, which in 0usize..4) {
            let keys = keys(&[1], 1);
            let sealed = keys.seal(&name("k"), &answer(Some(b"a body"))).expect("sealed").into_owned();
            let mut headers = sealed.headers.to_bytes();
            let mut changed = sealed.clone();
            let mut at = name("k");
            match which {
                0 => {
                    // Behind the lengths. Another name is one that is not sealed.
                    let index = 4 + place % (headers.len() - 4);
                    headers[index] ^= 1 << bit;
                    changed.headers = StoredHeaders::from_bytes(&headers).expect("as long");
                }
                1 => {
                    let body = changed.body.as_mut().expect("a body");
                    let index = place % body.len();
                    body[index] ^= 1 << bit;
                }
                2 => changed.status ^= 1 << bit,
                _ => at = name("other"),
            }
            prop_assert!(opened(Some(&keys), &at, changed.clone()).is_err());
            let cut = StoredAnswer { body: None, ..sealed };
            prop_assert!(opened(Some(&keys), &name("k"), cut).is_err());
        }
    }
}
