//! Owns how keys are spelled, once. Knows neither scripts nor connections.
//!
//! Format 1 of a limit's key, sharded:
//!
//! ```text
//! ratelimit:{R|s}:<kind>:<subject>:<limit_id>                 no tenant, environment `default`
//! ratelimit:{R/E|s}:<kind>:<subject>:<limit_id>               another environment E
//! ratelimit:{R|s}:t=<tenant>:<kind>:<subject>:<limit_id>      a subject that names a tenant
//! ratelimit:{R|s}:<kind>:<subject>:<limit_id>:W<period>       a window: what it holds is another
//! settled:{R|s}:…:<decision>                                  a decision was settled there
//! settled:{R|s}:…                                             what was given back there lately, and when it was reset
//! ratelimit:{R|s}:start                                       the shard's mark: when it began
//! ratelimit:{R|s}:run                                         under which run of which Redis it was last seen
//! ```
//!
//! `R` is the gateway's region; `s` the first byte of SHA-256(subject) as two hex digits, so that
//! a region spreads over 256 hash tags while all limits of one subject share a slot. The plain style
//! has `R` where the sharded one has `{R|s}`, and so one mark per region; for single nodes only. No
//! part can hold `:` `{` `}` `|` `/` or `=` (they are checked where they are made), so no two scopes,
//! subjects or limits share a key. A limit that does not count by the tenant counts for all tenants
//! together, whatever tenant the request is of: its key holds none.
//!
//! A window's period is in its key, in whole s or as `<µs>u`: what counted for a shorter period would be
//! missing from a longer one. The other numbers of a limit are not: whoever has other ones counts on.
//!
//! Besides there are keys that count nothing: [`PROBE`], and on a Cluster one for each master.

use sha2::{Digest, Sha256};
use tidegate_policy::identity::Subject;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::{Environment, KeyFormat, Region, Scope, Tenant};
use tidegate_policy::wire::DecisionId;

use super::Charge;

/// What the health probe writes, to learn whether decisions can write: the writer's time in ms since
/// 1970, for [`PROBE_TTL_MS`]. Shared by all gateways and read by none.
pub const PROBE: &str = "tidegate:probe";
/// Longer than the time between two probes, and soon gone once the last gateway is.
pub const PROBE_TTL_MS: u32 = 5_000;

/// Shards of a region.
const SHARDS: u8 = u8::MAX;
const LIMIT: &str = "ratelimit:";
const SETTLED: &str = "settled:";
const MARK: &str = ":start";

/// How keys are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyStyle {
    /// A region spreads over 256 hash tags.
    #[default]
    Sharded,
    /// A region is one word, as people write it; on a Cluster its keys share no slot.
    Plain,
}

/// Where the keys of one subject lie: all in one shard, and so in one slot.
pub struct Place(String);

/// The pattern by which SCAN finds a limit's key, and which does not say whose it is: subjects are personal data.
pub fn without_subject(limit_key: &str) -> String {
    const SUBJECT: usize = 3;
    let of_tenant = limit_key.split(':').nth(2).is_some_and(|part| part.starts_with("t="));
    let subject = SUBJECT + usize::from(of_tenant);
    let part = |(index, part)| if index == subject { "*" } else { part };
    limit_key.split(':').enumerate().map(part).collect::<Vec<_>>().join(":")
}

/// One of many such keys: among them are some for every slot of a Cluster.
pub fn probe(number: u32) -> String {
    format!("{PROBE}:{number}")
}

/// Where it is remembered that a decision was settled on the limit with this key.
pub fn settled(limit_key: &str, id: DecisionId) -> String {
    let rest = limit_key.strip_prefix(LIMIT).unwrap_or(limit_key);
    format!("{SETTLED}{rest}:{id}")
}

/// Where it is remembered what was given back lately of the limit with this key. A decision's id is no part of a
/// limit's key, so that no two of these are the same.
pub fn given_back(limit_key: &str) -> String {
    let rest = limit_key.strip_prefix(LIMIT).unwrap_or(limit_key);
    format!("{SETTLED}{rest}")
}

/// Where it is kept under which run of its server the mark was last seen.
pub fn run(mark: &str) -> String {
    [mark.strip_suffix(MARK).unwrap_or(mark), ":run"].concat()
}

/// Every mark of a region.
pub fn marks(style: KeyStyle, region: &Region, environment: &Environment) -> Vec<String> {
    let shards = match style {
        KeyStyle::Sharded => 0..=SHARDS,
        KeyStyle::Plain => 0..=0,
    };
    shards.map(|shard| Place::new(style, region, environment, shard).mark()).collect()
}

// === impl Place ===

impl Place {
    /// The subject's.
    pub fn of(style: KeyStyle, scope: &Scope, subject: &Subject) -> Self {
        let shard = match style {
            KeyStyle::Sharded => shard(subject),
            KeyStyle::Plain => 0,
        };
        Self::new(style, &scope.region, &scope.environment, shard)
    }

    fn new(style: KeyStyle, region: &Region, environment: &Environment, shard: u8) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let sharded = style == KeyStyle::Sharded;
        let mut place = String::with_capacity(32);
        if sharded {
            place.push('{');
        }
        place.push_str(region.as_str());
        if !environment.is_default() {
            place.push('/');
            place.push_str(environment.as_str());
        }
        if sharded {
            place.push('|');
            for digit in [shard >> 4, shard & 15] {
                place.extend(HEX.get(usize::from(digit)).copied().map(char::from));
            }
            place.push('}');
        }
        Self(place)
    }

    /// The key under which one limit of the subject is counted.
    pub fn rate_limit(&self, scope: &Scope, limit: &Charge<'_>) -> String {
        match scope.key_format {
            KeyFormat::V1 => self.rate_limit_v1(scope, limit),
        }
    }

    /// The mark of the shard.
    pub fn mark(&self) -> String {
        [LIMIT, &self.0, MARK].concat()
    }

    fn rate_limit_v1(&self, scope: &Scope, limit: &Charge<'_>) -> String {
        let Charge { subject, limit_id, algorithm, quota, .. } = *limit;
        let name = subject.name.as_str();
        let mut key = String::with_capacity(56 + name.len() + limit_id.len());
        key.push_str(LIMIT);
        key.push_str(&self.0);
        key.push(':');
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
        if algorithm == Algorithm::Window {
            let period_us = quota.period_us();
            match (period_us / 1_000_000, period_us % 1_000_000) {
                (seconds, 0) => key.push_str(&format!(":W{seconds}")),
                _ => key.push_str(&format!(":W{period_us}u")),
            }
        }
        key
    }
}

fn shard(subject: &Subject) -> u8 {
    let digest = Sha256::digest(subject.name.as_str().as_bytes());
    digest.first().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_policy::gcra::Quota;
    use tidegate_policy::identity::{SubjectKind, SubjectName};
    use tidegate_policy::scope::TenantId;

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

    fn rate_limit(
        style: KeyStyle,
        scope: &Scope,
        subject: &Subject,
        limit_id: &str,
        algorithm: Algorithm,
    ) -> String {
        let quota = Quota::new(5, 90_000_000, 5).expect("a quota");
        let limit = Charge { subject, limit_id, quota, algorithm, cost: 1, alone: false };
        Place::of(style, scope, subject).rate_limit(scope, &limit)
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
            let key =
                |style, algorithm| rate_limit(style, &scope, &client, "api.per-client", algorithm);
            assert_eq!(key(KeyStyle::Sharded, Algorithm::Gcra), expected);
            assert_eq!(key(KeyStyle::Sharded, Algorithm::Window), format!("{expected}:W90"));
            let plain = expected.replace(['{', '}'], "").replace("|a1", "");
            assert_eq!(key(KeyStyle::Plain, Algorithm::Gcra), plain);
            let id = DecisionId::new(1);
            let place = expected.strip_prefix("ratelimit:").expect("a limit's key");
            assert_eq!(settled(expected, id), format!("settled:{place}:{id}"));
            assert_eq!(given_back(expected), format!("settled:{place}"));
            let pattern = expected.replace(":203.0.113.1:", ":*:");
            for (key, pattern) in [
                (expected.to_owned(), pattern.clone()),
                (format!("{expected}:W90"), format!("{pattern}:W90")),
                (expected.replace(":ip:", ":t=acme:ip:"), pattern.replace(":ip:", ":t=acme:ip:")),
            ] {
                assert_eq!(without_subject(&key), pattern);
            }
        }
    }

    #[test]
    fn a_window_has_a_key_for_each_period() {
        let (scope, client) = (scope("eu", "default", None), subject(SubjectKind::Ip, b"a"));
        for (limit, period_us, expected) in [
            (5, 60_000_000, ":W60"),
            (9, 60_000_000, ":W60"),
            (5, 1_500_000, ":W1500000u"),
            (5, 1_500_000_000_000, ":W1500000"),
        ] {
            let quota = Quota::new(limit, period_us, limit).expect("a quota");
            let algorithm = Algorithm::Window;
            let (cost, alone) = (1, false);
            let limit = Charge { subject: &client, limit_id: "p.l", quota, algorithm, cost, alone };
            let key = Place::of(KeyStyle::Sharded, &scope, &client).rate_limit(&scope, &limit);
            assert_eq!(key, format!("ratelimit:{{eu|ca}}:ip:a:p.l{expected}"));
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
            let key = rate_limit(KeyStyle::Sharded, &scope, &subject, "p.l", Algorithm::Gcra);
            assert_eq!(key, expected);
        }
    }

    #[test]
    fn every_subject_finds_its_mark_among_its_regions() {
        for style in [KeyStyle::Sharded, KeyStyle::Plain] {
            let scope = scope("here", "staging", Some("acme"));
            let all = marks(style, &scope.region, &scope.environment);
            assert_eq!(all.len(), if style == KeyStyle::Sharded { 256 } else { 1 });
            for name in ["a", "b", "203.0.113.1"] {
                let subject = subject(SubjectKind::Ip, name.as_bytes());
                let mark = Place::of(style, &scope, &subject).mark();
                assert!(all.contains(&mark), "{mark}");
                let limit = rate_limit(style, &scope, &subject, "p.l", Algorithm::Gcra);
                let tag = |key: &str| key.split_once('}').map(|(tag, _)| tag.to_owned());
                assert_eq!(tag(&mark), tag(&limit));
            }
        }
        let here = Region::new("us-central1").expect("a region");
        let plain = marks(KeyStyle::Plain, &here, &Environment::default());
        assert_eq!(plain, ["ratelimit:us-central1:start"]);
        assert_eq!(run(&plain[0]), "ratelimit:us-central1:run");
    }

    /// Few letters, so that near misses come up often.
    fn part() -> impl Strategy<Value = String> {
        "[ai.p-]{1,4}"
    }

    type Parts = (String, String, String, usize, Vec<u8>, String, bool);

    fn parts() -> impl Strategy<Value = Parts> {
        let environment = prop_oneof![Just("default".to_owned()), part()];
        let bytes = proptest::collection::vec(
            prop_oneof![Just(b':'), Just(b'a'), Just(b'}'), any::<u8>()],
            1..4,
        );
        (part(), environment, part(), 0..3usize, bytes, part(), any::<bool>())
    }

    fn key(style: KeyStyle, parts: &Parts) -> String {
        let (region, environment, tenant, kind, bytes, limit, window) = parts;
        let kind = [SubjectKind::Ip, SubjectKind::Header, SubjectKind::Tenant][*kind];
        let algorithm = if *window { Algorithm::Window } else { Algorithm::Gcra };
        let scope = scope(region, environment, Some(tenant));
        rate_limit(style, &scope, &subject(kind, bytes), limit, algorithm)
    }

    proptest! {
        #[test]
        fn different_parts_never_share_a_key(one in parts(), mut other in parts()) {
            // Whoever is not counted by the tenant is one and the same for all of them.
            if one.3 != 2 && other.3 != 2 {
                other.2.clone_from(&one.2);
            }
            for style in [KeyStyle::Sharded, KeyStyle::Plain] {
                let same = key(style, &one) == key(style, &other);
                prop_assert_eq!(one == other, same, "{:?} {:?}", one, other);
            }
        }

        #[test]
        fn the_tag_depends_on_region_environment_and_subject_only(one in parts(), limit in part()) {
            let mut second = one.clone();
            second.5 = limit;
            let tag = |key: String| key.split_once('}').map(|(tag, _)| tag.to_owned());
            prop_assert_eq!(tag(key(KeyStyle::Sharded, &one)), tag(key(KeyStyle::Sharded, &second)));
        }
    }
}
