//! Owns under which name a record lies. Knows neither what it holds nor how a store is reached.
//!
//! ```text
//! idempotency:tenant:<tenant>:ep:<endpoint>:<key>          environment `default`
//! idempotency:env:<E>:tenant:<tenant>:ep:<endpoint>:<key>  another environment E
//! idempotency:tenant:<tenant>:ep:~<digest>                 where the above had over 256 bytes
//! idempotency:<key>                                        the older format, without a tenant: read only
//! ```
//!
//! Every byte of a part but `A-Z a-z 0-9 . _ -` becomes `%XX`, so a part holds neither `:` nor `~`, and
//! no two lists of parts share a name; nor can a part hold braces, which would choose the slot on a
//! Redis Cluster. The digest is the whole SHA-256 over the parts, each behind its length.
//!
//! Of a configured endpoint what varies counts by its place: `/v1/orders/{id}/refund` and `/v1/orders/{order}/refund` are
//! both `/v1/orders/{}/refund`, so that another word for it in a policy begins no new names.
//!
//! A name holds no region: it is the store that has one. Regions with stores of their own are apart;
//! regions that share a store share its records, which can only keep requests from running twice.

use alloc::borrow::ToOwned;
use alloc::string::String;

use sha2::{Digest, Sha256};

use super::endpoint::Endpoint;
use super::key::IdempotencyKey;
use crate::canonical;
use crate::identity::hex;
use crate::scope::{Environment, TenantId};

/// The most bytes of a name.
pub const NAME_LEN_MAX: usize = 256;
const PREFIX: &str = "idempotency:";

/// The name of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(String);

// === impl RecordName ===

impl RecordName {
    /// The name of the record of a key. There is none without a tenant: a default namespace would be
    /// everybody's.
    pub fn of(
        environment: &Environment,
        tenant: &TenantId,
        endpoint: &Endpoint,
        key: &IdempotencyKey,
    ) -> Self {
        Self::at(environment, tenant, &by_place(endpoint.as_str()), key)
    }

    /// The name that the record of a key had where the words for what varies counted; `None` if that is the same.
    pub fn with_words(
        environment: &Environment,
        tenant: &TenantId,
        endpoint: &Endpoint,
        key: &IdempotencyKey,
    ) -> Option<Self> {
        let is_other = by_place(endpoint.as_str()) != endpoint.as_str();
        is_other.then(|| Self::at(environment, tenant, endpoint.as_str(), key))
    }

    fn at(
        environment: &Environment,
        tenant: &TenantId,
        endpoint: &str,
        key: &IdempotencyKey,
    ) -> Self {
        let environment = (*environment != Environment::default()).then(|| environment.as_str());
        let parts = [tenant.as_str(), endpoint, key.as_str()].map(str::as_bytes);
        Self(spelled(environment.map(str::as_bytes), parts))
    }

    /// The name under which an older system without tenants recorded the key, as it was sent. `None`
    /// for a key of other characters than `A-Z a-z 0-9 . _ -`: the older format did not encode, so a
    /// key like `tenant:other:ep:…` could reach a record that is not its own.
    pub fn of_older_format(key: &IdempotencyKey) -> Option<Self> {
        let sound = key.as_str().bytes().all(plain);
        sound.then(|| Self(PREFIX.to_owned() + key.as_str()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An endpoint without the words in its braces. Only templates have braces.
fn by_place(endpoint: &str) -> String {
    let mut text = String::with_capacity(endpoint.len());
    let mut is_word = false;
    for letter in endpoint.chars() {
        is_word &= letter != '}';
        if !is_word {
            text.push(letter);
        }
        is_word |= letter == '{';
    }
    text
}

fn spelled(environment: Option<&[u8]>, [tenant, endpoint, key]: [&[u8]; 3]) -> String {
    let mut name = String::from(PREFIX);
    if let Some(environment) = environment {
        name.push_str("env:");
        push_part(&mut name, environment);
        name.push(':');
    }
    name.push_str("tenant:");
    push_part(&mut name, tenant);
    name.push_str(":ep:");
    let shared_len = name.len();
    push_part(&mut name, endpoint);
    name.push(':');
    push_part(&mut name, key);
    if name.len() > NAME_LEN_MAX {
        name.truncate(shared_len);
        name.push('~');
        // What stands in front of it is in the name as it is.
        let mut hasher = Sha256::new();
        for part in [endpoint, key] {
            hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part);
        }
        name.push_str(&hex(&hasher.finalize(), 32));
    }
    name
}

fn push_part(name: &mut String, part: &[u8]) {
    for &byte in part {
        if plain(byte) {
            name.push(char::from(byte));
        } else {
            canonical::push_encoded(name, byte);
        }
    }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn tenant(text: &str) -> TenantId {
        TenantId::new(text).expect("a tenant")
    }

    fn endpoint(target: &str) -> Endpoint {
        Endpoint::of(b"POST", target.as_bytes(), None).expect("an endpoint")
    }

    fn key(text: &str) -> IdempotencyKey {
        IdempotencyKey::new(text).expect("a key")
    }

    fn name(tenant_name: &str, target: &str, text: &str) -> String {
        RecordName::of(&Environment::default(), &tenant(tenant_name), &endpoint(target), &key(text))
            .0
    }

    #[test]
    fn names_to_the_letter() {
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        assert_eq!(
            name("acme", "/v1/orders/17/refund", uuid),
            "idempotency:tenant:acme:ep:POST%20%2Fv1%2Forders%2F%3Aint%2Frefund:8e03978e-40d5-43e8-bc93-6894a57f9324"
        );
        assert_eq!(
            name("acme", "/", "{a}:b~"),
            "idempotency:tenant:acme:ep:POST%20%2F:%7Ba%7D%3Ab%7E"
        );
        let staging = Environment::new("staging").expect("an environment");
        let other = RecordName::of(&staging, &tenant("acme"), &endpoint("/"), &key("k"));
        assert_eq!(other.as_str(), "idempotency:env:staging:tenant:acme:ep:POST%20%2F:k");
        let long = name("acme", "/", &"k".repeat(255));
        assert_eq!(
            long,
            "idempotency:tenant:acme:ep:~eb9093c6d95318ff79eb224d4e4b79cd78462fdd613b35f9616c33b0408b2b13"
        );
    }

    #[test]
    fn another_word_for_what_varies_is_no_other_name() {
        let (environment, tenant, key) = (Environment::default(), tenant("acme"), key("k"));
        let of = |template: &str| {
            let endpoint = Endpoint::of(b"POST", b"/x", Some(template)).expect("an endpoint");
            let name = RecordName::of(&environment, &tenant, &endpoint, &key).0;
            (name, RecordName::with_words(&environment, &tenant, &endpoint, &key).map(|n| n.0))
        };
        let (name, before) = of("/v1/orders/{id}/refunds/{n}");
        assert_eq!(
            name,
            "idempotency:tenant:acme:ep:POST%20%2Fv1%2Forders%2F%7B%7D%2Frefunds%2F%7B%7D:k"
        );
        let words =
            "idempotency:tenant:acme:ep:POST%20%2Fv1%2Forders%2F%7Bid%7D%2Frefunds%2F%7Bn%7D:k";
        assert_eq!(before.as_deref(), Some(words));
        assert_eq!(of("/v1/orders/{order}/refunds/{refund}").0, name);
        assert_eq!(of("/v1/orders/{}/refunds/{}"), (name.clone(), None), "as it is recorded");
        for other in ["/v1/orders/{id}/refunds/n", "/v1/orders/{id}/{n}/refunds", "/v1/orders/id"] {
            assert_ne!(of(other).0, name, "{other}");
        }
        assert_eq!(of("/v1/orders").1, None);
    }

    #[test]
    fn a_name_that_fits_is_not_replaced() {
        let empty_len = name("acme", "/", "k").len() - 1;
        let fits = name("acme", "/", &"k".repeat(NAME_LEN_MAX - empty_len));
        assert_eq!((fits.len(), fits.contains('~')), (NAME_LEN_MAX, false));
        let longer = name("acme", "/", &"k".repeat(NAME_LEN_MAX - empty_len + 1));
        assert!(longer.contains('~') && longer.len() < NAME_LEN_MAX, "{longer}");
    }

    #[test]
    fn the_older_format_never_reaches_a_tenants_record() {
        let older = |text: &str| RecordName::of_older_format(&key(text)).map(|name| name.0);
        assert_eq!(older("8e03-978e"), Some("idempotency:8e03-978e".to_owned()));
        for text in ["tenant:acme:ep:POST%20%2F:k", "a:b", "a b", "%61", "{x}", "~"] {
            assert_eq!(older(text), None, "{text}");
        }
    }

    #[test]
    fn what_joins_to_one_text_has_two_names() {
        // As one text both would read `acme:ep:/v1/x:k:ep:/v1/y:z`.
        assert!(TenantId::new("acme:ep:/v1/x:k").is_err(), "refused before it has a name");
        let one = spelled(None, [b"acme", b"/v1/x", b"k:ep:/v1/y:z"]);
        let other = spelled(None, [b"acme:ep:/v1/x:k", b"/v1/y", b"z"]);
        assert_ne!(one, other);
    }

    /// What an attacker would choose: separators, braces, NUL, Unicode, placeholders, 4 KB.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(":".to_owned()),
            Just("{}".to_owned()),
            Just("\0".to_owned()),
            Just("%3A".to_owned()),
            Just("~".to_owned()),
            Just("é".to_owned()),
            Just("ep:".to_owned()),
            Just("tenant:".to_owned()),
            Just("a".to_owned()),
            Just("x".repeat(4_096)),
        ];
        let joined = |pieces: Vec<String>| pieces.concat().into_bytes();
        proptest::collection::vec(piece, 0..4).prop_map(joined)
    }

    fn parts() -> impl Strategy<Value = (Option<Vec<u8>>, [Vec<u8>; 3])> {
        (proptest::option::of(hostile()), [hostile(), hostile(), hostile()])
    }

    fn spell((environment, [tenant, endpoint, key]): &(Option<Vec<u8>>, [Vec<u8>; 3])) -> String {
        spelled(environment.as_deref(), [tenant, endpoint, key])
    }

    proptest! {
        #[test]
        fn different_parts_never_share_a_name(one in parts(), other in parts()) {
            prop_assert_eq!(spell(&one) == spell(&other), one == other);
        }

        #[test]
        fn moving_a_separator_never_finds_another_record(all in "[a:%~{]{3,8}", at in 1usize..7, next in 1usize..7) {
            let cut = |at: usize| {
                let at = at.min(all.len() - 1);
                let (front, back) = all.as_bytes().split_at(at);
                spelled(None, [front, b"POST /", back])
            };
            let same = at.min(all.len() - 1) == next.min(all.len() - 1);
            prop_assert_eq!(cut(at) == cut(next), same);
        }

        #[test]
        fn what_clients_send_makes_a_short_plain_name(
            tenant_name in "[A-Za-z0-9._-]{1,64}", text in "[ -~]{1,255}", target in "/[ -~]{0,300}"
        ) {
            if let Ok(endpoint) = Endpoint::of(b"POST", target.as_bytes(), None) {
                let name = RecordName::of(&Environment::default(), &tenant(&tenant_name), &endpoint, &key(&text));
                prop_assert!(name.0.len() <= NAME_LEN_MAX);
                prop_assert!(name.0.bytes().all(|byte| plain(byte) || matches!(byte, b':' | b'%' | b'~')));
            }
        }
    }
}
