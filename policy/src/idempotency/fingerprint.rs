//! Owns the request hash: what has to be equal for two requests to be one and the same. Knows neither
//! keys nor stores.
//!
//! SHA-256 over pieces that each say how long they are, so that no two requests run together: host, method,
//! path with its real ids, query, content type, and the body as it streams by. Nothing is removed; only
//! host and percent-encodings are brought into one spelling, and the query's pairs are sorted by name
//! (pairs of one name keep their order, which means something to many servers).
//!
//! What differs from one attempt to the next (dates, trace ids, user agents) is no part of it: with
//! such fields no retry would ever be recognised.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::canonical;
use crate::identity::hex;
use crate::matching::canonical_host;

/// Of another purpose, or of another format, no hash is ever equal to one of these. The first has no host.
const PURPOSE: &[u8] = b"tidegate-idempotency-v1\0";
const PURPOSE_WITH_HOST: &[u8] = b"tidegate-idempotency-v2\0";
/// The last byte: the whole body was hashed.
const WHOLE: u8 = b'W';
/// The last byte: the beginning of the body and its length.
const BEGINNING: u8 = b'B';
/// The last byte: the beginning of a body that does not say how long it is.
const BEGINNING_ALONE: u8 = b'S';

/// The hash of one request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestHash([u8; 32]);

/// What of a request is hashed before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// `:authority`, if there is one.
    pub authority: Option<&'a [u8]>,
    /// The method.
    pub method: &'a [u8],
    /// The request target: path and query.
    pub target: &'a [u8],
    /// `content-type`, if there is one.
    pub content_type: Option<&'a [u8]>,
}

/// What becomes of a body that is longer than the most that is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongBody {
    /// The request is refused (413).
    #[default]
    Refuse,
    /// Its beginning is hashed, and the length that the request's head says. Two bodies that differ only
    /// behind the beginning count as one: for uploads whose beginning names them, and nothing else.
    Beginning,
}

/// What of requests is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRule {
    /// Whether requests to two hosts are two. Without it a key finds its record under another name of the service.
    pub host: bool,
    /// The most bytes of a body.
    pub len_max: u32,
    /// What becomes of a longer one.
    pub long: LongBody,
}

/// A hash that is being made, piece by piece.
#[derive(Debug, Clone)]
pub struct RequestHasher {
    hasher: Sha256,
    len: u64,
    announced: Option<u64>,
    rule: HashRule,
}

/// The body is longer than the most that is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyTooLong {
    /// The most, in bytes.
    pub len_max: u64,
}

// === impl RequestHash ===

impl RequestHash {
    /// From its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0, 32))
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<RequestHash> for String {
    fn from(fingerprint: RequestHash) -> Self {
        hex(&fingerprint.0, 32)
    }
}

impl TryFrom<String> for RequestHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const EXPECTED: &str = "a request hash is 64 lower-case hexadecimal digits";
        let (pairs, []) = text.as_bytes().as_chunks() else {
            return Err(EXPECTED);
        };
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let bytes: Option<Vec<u8>> = pairs.iter().map(|pair| canonical::octet(*pair)).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).filter(|_| lower);
        bytes.map(Self).ok_or(EXPECTED)
    }
}

// === impl RequestHasher ===

impl RequestHasher {
    /// Begins with the head. `announced` is how many bytes of body it promises, if it says so: a host of
    /// HTTP holds the request to it. Refuses by it before a byte of the body is held.
    pub fn new(
        head: &Head<'_>,
        announced: Option<u64>,
        rule: HashRule,
    ) -> Result<Self, BodyTooLong> {
        let mut hasher = Sha256::new();
        if rule.host {
            hasher.update(PURPOSE_WITH_HOST);
            piece(&mut hasher, &canonical_host(head.authority.unwrap_or_default()));
        } else {
            hasher.update(PURPOSE);
        }
        let (path, query) = match head.target.iter().position(|&byte| byte == b'?') {
            Some(at) => {
                let (path, query) = head.target.split_at(at);
                (path, query.get(1..))
            }
            None => (head.target, None),
        };
        piece(&mut hasher, head.method);
        piece(&mut hasher, &canonical::spell(path));
        let pairs = query.map(sorted_pairs).unwrap_or_default();
        hasher.update(length(pairs.len()));
        for pair in pairs {
            piece(&mut hasher, &pair);
        }
        match head.content_type {
            // No content type is another thing than an empty one.
            None => hasher.update([0]),
            Some(content_type) => {
                hasher.update([1]);
                piece(&mut hasher, content_type);
            }
        }
        let begun = Self { hasher, len: 0, announced, rule };
        begun.takes(announced.unwrap_or(0)).map(|()| begun)
    }

    /// Takes in the next piece of the body. How a body is cut makes no difference.
    pub fn update(&mut self, body: &[u8]) -> Result<(), BodyTooLong> {
        let before = self.len;
        self.len = self.len.saturating_add(u64::try_from(body.len()).unwrap_or(u64::MAX));
        self.takes(self.len)?;
        let room = u64::from(self.rule.len_max).saturating_sub(before);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        self.hasher.update(body.get(..room).unwrap_or(body));
        Ok(())
    }

    /// Whether nothing that follows changes the hash.
    pub fn is_settled(&self) -> bool {
        self.len > self.rule.len_max.into()
    }

    /// The hash of what has been taken in. The body stands last and is followed by its length and by
    /// whether all of it was hashed: 9 bytes, so that head, body and end cannot run together.
    pub fn finish(mut self) -> RequestHash {
        let (len, end) = match self.announced {
            _ if !self.is_settled() => (self.len, WHOLE),
            Some(announced) => (announced, BEGINNING),
            None => (0, BEGINNING_ALONE),
        };
        self.hasher.update(len.to_be_bytes());
        self.hasher.update([end]);
        RequestHash(self.hasher.finalize().into())
    }

    fn takes(&self, len: u64) -> Result<(), BodyTooLong> {
        let len_max = self.rule.len_max.into();
        match self.rule.long {
            LongBody::Refuse if len > len_max => Err(BodyTooLong { len_max }),
            LongBody::Refuse | LongBody::Beginning => Ok(()),
        }
    }
}

// === impl HashRule ===

impl Default for HashRule {
    fn default() -> Self {
        Self { host: true, len_max: 256 * 1_024, long: LongBody::Refuse }
    }
}

// === impl BodyTooLong ===

impl fmt::Display for BodyTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body is longer than {} bytes, the most that is hashed", self.len_max)
    }
}

impl core::error::Error for BodyTooLong {}

fn sorted_pairs(query: &[u8]) -> Vec<Vec<u8>> {
    let mut pairs: Vec<Vec<u8>> = query.split(|&byte| byte == b'&').map(canonical::spell).collect();
    // Stable: pairs of one name keep their order.
    pairs.sort_by(|one, other| name(one).cmp(name(other)));
    pairs
}

fn name(pair: &[u8]) -> &[u8] {
    pair.split(|&byte| byte == b'=').next().unwrap_or_default()
}

fn piece(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update(length(bytes.len()));
    hasher.update(bytes);
}

fn length(len: usize) -> [u8; 8] {
    u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec;

    const RULE: HashRule = HashRule { host: false, len_max: 1_024, long: LongBody::Refuse };
    const JSON: Option<&[u8]> = Some(b"application/json");

    fn head<'a>(method: &'a str, target: &'a str, content_type: Option<&'a [u8]>) -> Head<'a> {
        let (method, target) = (method.as_bytes(), target.as_bytes());
        Head { authority: Some(b"shop.example"), method, target, content_type }
    }

    fn begun(head: &Head<'_>, announced: Option<u64>, rule: HashRule) -> RequestHasher {
        RequestHasher::new(head, announced, rule).expect("not too long")
    }

    fn hash(head: &Head<'_>, pieces: &[&[u8]]) -> RequestHash {
        let mut making = begun(head, None, RULE);
        for piece in pieces {
            making.update(piece).expect("short");
        }
        making.finish()
    }

    fn of(method: &str, target: &str, content_type: Option<&[u8]>, body: &str) -> RequestHash {
        hash(&head(method, target, content_type), &[body.as_bytes()])
    }

    /// Frozen: records of a running system are compared with it after an update.
    #[test]
    fn the_format_stays() {
        let made = of("POST", "/orders/1/refund?b=2&a=1", JSON, "{}");
        assert_eq!(
            made.to_string(),
            "07d585c4f6b17ca7bb92533327d8873530596a6929bf44008e6471343a0a8e47"
        );
    }

    #[test]
    fn two_orders_are_two_requests() {
        let base = of("POST", "/orders/1/refund?a=1&b=2", JSON, "{}");
        let others = [
            of("POST", "/orders/2/refund?a=1&b=2", JSON, "{}"),
            of("PATCH", "/orders/1/refund?a=1&b=2", JSON, "{}"),
            of("POST", "/orders/1/refund", JSON, "{}"),
            of("POST", "/orders/1/refund?a=1&b=3", JSON, "{}"),
            of("POST", "/orders/1/refund?a=1&b=2&b=2", JSON, "{}"),
            of("POST", "/orders/1/refund?a=1&b=2", None, "{}"),
            of("POST", "/orders/1/refund?a=1&b=2", Some(b""), "{}"),
            of("POST", "/orders/1/refund?a=1&b=2", JSON, "{} "),
            of("POST", "/orders/1/refund;v=2?a=1&b=2", JSON, "{}"),
            of("POST", "/orders/1/refund/?a=1&b=2", JSON, "{}"),
            of("POST", "/orders/1/x/../refund?a=1&b=2", JSON, "{}"),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(*other, base, "{index}");
        }
    }

    #[test]
    fn one_request_has_one_hash() {
        let base = of("POST", "/caf%C3%A9?a=1&a=2&b=%7E", JSON, "{}");
        let others = [
            of("POST", "/c%61f%c3%a9?a=1&a=2&b=~", JSON, "{}"),
            of("POST", "/caf%C3%A9?b=%7e&a=1&a=2", JSON, "{}"),
            of("POST", "/caf%C3%A9?a=1&b=%7e&a=2", JSON, "{}"),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_eq!(*other, base, "{index}");
        }
        assert_ne!(of("POST", "/caf%C3%A9?a=2&a=1&b=~", JSON, "{}"), base, "one name's order");
    }

    #[test]
    fn two_hosts_are_two_and_one_has_one_spelling() {
        let with_host = HashRule { host: true, ..RULE };
        let at = |authority: Option<&'static str>, rule| {
            let authority = authority.map(str::as_bytes);
            begun(&Head { authority, ..head("POST", "/", None) }, None, rule).finish()
        };
        let base = at(Some("shop.example"), with_host);
        assert_eq!(
            base.to_string(),
            "c5874d5d10f18a14f1f1a957a52ae5ffb5c84f6990c19c78efa36a322c9d1864",
            "frozen like the format without a host"
        );
        for same in ["Shop.Example", "shop.example:8443", "shop.example."] {
            assert_eq!(at(Some(same), with_host), base, "{same}");
        }
        for other in [Some("pay.example"), Some(""), None] {
            assert_ne!(at(other, with_host), base, "{other:?}");
            assert_eq!(at(other, RULE), at(Some("shop.example"), RULE), "{other:?}");
        }
        assert_ne!(at(None, with_host), at(None, RULE));
    }

    #[test]
    fn a_long_body_is_refused() {
        let head = head("POST", "/", None);
        let rule = HashRule { len_max: 4, ..RULE };
        let announced = |len| RequestHasher::new(&head, Some(len), rule).map(|_| ());
        assert_eq!(announced(4), Ok(()));
        assert_eq!(announced(5), Err(BodyTooLong { len_max: 4 }));
        let mut pieces = begun(&head, None, rule);
        assert_eq!(pieces.update(b"abc"), Ok(()));
        assert_eq!(pieces.update(b"de"), Err(BodyTooLong { len_max: 4 }));
    }

    #[test]
    fn of_a_long_body_the_beginning_counts_and_the_length_that_its_head_says() {
        let head = head("POST", "/", None);
        let rule = HashRule { len_max: 4, long: LongBody::Beginning, ..RULE };
        let of = |announced, body: &[u8]| {
            let mut making = begun(&head, announced, rule);
            for (index, byte) in body.iter().enumerate() {
                assert_eq!(making.is_settled(), index > 4, "{index}");
                making.update(&[*byte]).expect("taken");
            }
            making.finish()
        };
        let six = of(Some(6), b"abcdef");
        assert_eq!(six, of(Some(6), b"abcdxy"));
        assert_eq!(six, of(Some(6), b"abcde"), "asked before the rest has come");
        assert_ne!(six, of(Some(7), b"abcdefg"), "the length counts");
        assert_ne!(six, of(None, b"abcdef"), "no length is another thing than any");
        assert_eq!(of(None, b"abcdef"), of(None, b"abcdefg"));
        assert_eq!(of(Some(4), b"abcd"), hash(&head, &[b"abcd"]));
        assert_ne!(of(None, b"abcd"), of(None, b"abcde"));
        for (announced, len) in [(Some(6), 6u64), (None, 0)] {
            let mut forged = b"abcd".to_vec();
            forged.extend(len.to_be_bytes());
            assert_ne!(of(announced, b"abcdef"), hash(&head, &[&forged]), "not even by hand");
        }
    }

    #[test]
    fn it_is_read_back_from_its_digits_and_from_nothing_else() {
        let made = of("POST", "/", None, "");
        assert_eq!(RequestHash::try_from(made.to_string()), Ok(made));
        let text = made.to_string();
        for bad in
            ["", &text[1..], &text[2..], &text.to_uppercase(), &text.replacen(&text[..2], "zz", 1)]
        {
            assert!(RequestHash::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn how_a_body_is_cut_makes_no_difference(
            body in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(0usize..300, 0..5)
        ) {
            let head = head("POST", "/x", JSON);
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = vec![];
            let mut from = 0;
            for cut in cuts {
                let cut = cut.min(body.len());
                pieces.push(&body[from..cut]);
                from = cut;
            }
            pieces.push(&body[from..]);
            prop_assert_eq!(hash(&head, &pieces), hash(&head, &[&body]));
        }

        /// Few letters, so that near misses come up often.
        #[test]
        fn different_requests_never_run_together(
            one in ("[ab]{1,2}", "/[ab?&=]{0,3}", proptest::option::of("[ab]{0,2}"), "[ab\\x00]{0,3}"),
            other in ("[ab]{1,2}", "/[ab?&=]{0,3}", proptest::option::of("[ab]{0,2}"), "[ab\\x00]{0,3}"),
        ) {
            let hash = |(method, target, content_type, body): &(String, String, Option<String>, String)| {
                of(method, target, content_type.as_deref().map(str::as_bytes), body)
            };
            let sorted = |target: &str| match target.split_once('?') {
                None => (String::from(target), None),
                Some((path, query)) => (String::from(path), Some(sorted_pairs(query.as_bytes()))),
            };
            let same = (&one.0, sorted(&one.1), &one.2, &one.3) == (&other.0, sorted(&other.1), &other.2, &other.3);
            prop_assert_eq!(hash(&one) == hash(&other), same, "{:?} {:?}", one, other);
        }
    }
}
