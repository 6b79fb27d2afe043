//! Owns how keys are spelled, once. Knows neither scripts nor connections.
//!
//! Format 1 of a limit's key:
//!
//! ```text
//! ratelimit:{R|s}:<kind>:<subject>:<limit_id>                 no tenant, environment `default`
//! ratelimit:{R/E|s}:<kind>:<subject>:<limit_id>               another environment E
//! ratelimit:{R|s}:t=<tenant>:<kind>:<subject>:<limit_id>      a subject that names a tenant
//! ```
//!
//! `R` is the gateway's region; `s` the first byte of SHA-256(subject) as two hex digits, so that
//! a region spreads over 256 hash tags while all limits of one subject share a slot. No part can
//! hold `:` `{` `}` `|` `/` or `=` (they are checked where they are made), so no two scopes,
//! subjects or limits share a key. A limit that does not count by the tenant counts for all tenants
//! together, whatever tenant the request is of: its key holds none.
//!
//! Besides there is one key that counts nothing, [`PROBE`].

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use tidegate_policy::identity::Subject;
use tidegate_policy::scope::{Environment, KeyFormat, Scope, Tenant};

/// What the health probe writes, to learn whether decisions can write: the writer's time in ms since
/// 1970, for [`PROBE_TTL_MS`]. Shared by all gateways and read by none.
pub const PROBE: &str = "tidegate:probe";
/// Longer than the time between two probes, and soon gone once the last gateway is.
pub const PROBE_TTL_MS: u32 = 5_000;

/// The key under which one limit of one subject is counted.
pub fn rate_limit(scope: &Scope, subject: &Subject, limit_id: &str) -> String {
    match scope.key_format {
        KeyFormat::V1 => rate_limit_v1(scope, subject, limit_id),
    }
}

fn rate_limit_v1(scope: &Scope, subject: &Subject, limit_id: &str) -> String {
    let name = subject.name.as_str();
    let mut key = String::with_capacity(48 + name.len() + limit_id.len());
    key.push_str("ratelimit:{");
    key.push_str(scope.region.as_str());
    if scope.environment != Environment::default() {
        key.push('/');
        key.push_str(scope.environment.as_str());
    }
    key.push('|');
    push_shard(&mut key, name);
    key.push_str("}:");
    if let Tenant::Named(tenant) = &scope.tenant
        && subject.is_of_tenant()
    {
        key.push_str("t=");
        key.push_str(tenant.as_str());
        key.push(':');
    }
    for part in [subject.kind.as_str(), ":", name, ":", limit_id] {
        key.push_str(part);
    }
    key
}

fn push_shard(key: &mut String, subject_name: &str) {
    let digest = Sha256::digest(subject_name.as_bytes());
    let shard = digest.first().copied().unwrap_or_default();
    // Writing to a String cannot fail; were it to, the key would lack its shard and still be apart.
    if write!(key, "{shard:02x}").is_err() {
        key.push('-');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_policy::identity::{SubjectKind, SubjectName};
    use tidegate_policy::scope::{Region, TenantId};

    fn scope(region: &str, environment: &str, tenant: Option<&str>) -> Scope {
        Scope {
            region: Region::new(region).expect("a region"),
            environment: Environment::new(environment).expect("an environment"),
            tenant: tenant
                .map_or(Tenant::None, |name| Tenant::Named(TenantId::new(name).expect("a tenant"))),
            key_format: KeyFormat::V1,
        }
    }

    fn subject(kind: SubjectKind, bytes: &[u8]) -> Subject {
        Subject { kind, name: SubjectName::from_bytes(bytes) }
    }

    #[test]
    fn keys_are_spelled_as_the_format_says() {
        let client = subject(SubjectKind::Ip, b"203.0.113.1");
        let rows = [
            (
                scope("us-central1", "default", None),
                "ratelimit:{us-central1|a1}:ip:203.0.113.1:api.per-client",
            ),
            (
                scope("us-central1", "staging", None),
                "ratelimit:{us-central1/staging|a1}:ip:203.0.113.1:api.per-client",
            ),
            (
                scope("us-central1", "staging", Some("acme")),
                "ratelimit:{us-central1/staging|a1}:ip:203.0.113.1:api.per-client",
            ),
        ];
        for (scope, expected) in rows {
            assert_eq!(rate_limit(&scope, &client, "api.per-client"), expected);
        }
    }

    #[test]
    fn a_subject_that_names_the_tenant_is_kept_under_it() {
        let scope = scope("eu", "default", Some("acme"));
        let name = |text: &str| SubjectName::try_from(text.to_owned()).expect("canonical");
        let both = name("tenant!acme+ip!192.0.2.7");
        let other = name("header.1!tenant+ip!192.0.2.7");
        let rows = [
            (subject(SubjectKind::Tenant, b"acme"), "ratelimit:{eu|82}:t=acme:tenant:acme:p.l"),
            (
                Subject { kind: SubjectKind::Combined, name: both },
                "ratelimit:{eu|ba}:t=acme:combined:tenant!acme+ip!192.0.2.7:p.l",
            ),
            (
                Subject { kind: SubjectKind::Combined, name: other },
                "ratelimit:{eu|b9}:combined:header.1!tenant+ip!192.0.2.7:p.l",
            ),
        ];
        for (subject, expected) in rows {
            assert_eq!(rate_limit(&scope, &subject, "p.l"), expected);
        }
    }

    /// Few letters, so that near misses come up often.
    fn part() -> impl Strategy<Value = String> {
        "[ai.p-]{1,4}"
    }

    type Parts = (String, String, String, usize, Vec<u8>, String);

    fn parts() -> impl Strategy<Value = Parts> {
        let environment = prop_oneof![Just("default".to_owned()), part()];
        let bytes = proptest::collection::vec(
            prop_oneof![Just(b':'), Just(b'a'), Just(b'}'), any::<u8>()],
            1..4,
        );
        (part(), environment, part(), 0..3usize, bytes, part())
    }

    fn key(parts: &Parts) -> String {
        let (region, environment, tenant, kind, bytes, limit) = parts;
        let kind = [SubjectKind::Ip, SubjectKind::Header, SubjectKind::Tenant][*kind];
        rate_limit(&scope(region, environment, Some(tenant)), &subject(kind, bytes), limit)
    }

    proptest! {
        #[test]
        fn different_parts_never_share_a_key(one in parts(), mut other in parts()) {
            // Whoever is not counted by the tenant is one and the same for all of them.
            if one.3 != 2 && other.3 != 2 {
                other.2.clone_from(&one.2);
            }
            prop_assert_eq!(one == other, key(&one) == key(&other), "{:?} {:?}", one, other);
        }

        #[test]
        fn the_tag_depends_on_region_environment_and_subject_only(one in parts(), limit in part()) {
            let mut second = one.clone();
            second.5 = limit;
            let tag = |key: String| key.split_once('}').map(|(tag, _)| tag.to_owned());
            prop_assert_eq!(tag(key(&one)), tag(key(&second)));
        }
    }
}
