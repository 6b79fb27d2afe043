//! Tests of the RateLimit fields: rows to the letter, and any list read back by a library that
//! knows RFC 9651 and nothing of ours.

use super::*;
use proptest::prelude::*;
use sfv::{BareItem, List, ListEntry, Parser};
use std::vec;

fn shown(name: &str, quota: u32, period_us: u64, remaining: u64, next_us: u64) -> Shown<'_> {
    Shown { name, quota, period_us, burst: quota, remaining, next_us, denies: false, spelled: None }
}

fn value<'f>(fields: &'f [Field], name: &str) -> &'f str {
    fields.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

#[test]
fn draft_10_shows_every_limit_to_the_letter() {
    let minute = 60_000_000;
    let limits = [
        shown("api.client", 5, minute, 4, 11_000_001),
        shown("api.fine", 9, 1_500_000, 9, 0),
        Shown { denies: true, ..shown("api.day", 7, 86_400_000_000, 0, 5_000_000) },
    ];
    let rows: [(&[Shown<'_>], Option<u64>, &str, &str); 4] = [
        (&limits[..1], None, r#""api.client";q=5;w=60"#, r#""api.client";r=4;t=12"#),
        // No whole number of seconds: no w. Full: no t.
        (&limits[1..2], None, r#""api.fine";q=9"#, r#""api.fine";r=9"#),
        (
            &limits,
            Some(5),
            r#""api.client";q=5;w=60, "api.fine";q=9, "api.day";q=7;w=86400"#,
            // What still admits promises nothing later than Retry-After.
            r#""api.client";r=4, "api.fine";r=9, "api.day";r=0;t=5"#,
        ),
        (&limits[..1], Some(12), r#""api.client";q=5;w=60"#, r#""api.client";r=4;t=12"#),
    ];
    for (limits, retry_after_s, policy, state) in rows {
        let fields = Dialect::Draft10.fields(limits, retry_after_s);
        let expected =
            vec![("ratelimit-policy", policy.to_string()), ("ratelimit", state.to_string())];
        assert_eq!(fields, expected);
    }
}

#[test]
fn draft_03_shows_the_limit_closest_to_its_end() {
    let limits = [
        shown("p.wide", 1000, 3_600_000_000, 990, 3_600_000),
        shown("p.close", 10, 1_000_000, 2, 100_000),
        shown("p.odd", 10, 1_500_000, 3, 150_000),
    ];
    let fields = Dialect::XDraft03.fields(&limits, None);
    assert_eq!(
        fields,
        [
            (
                "x-ratelimit-limit",
                r#"10, 1000;w=3600;name="p.wide", 10;w=1;name="p.close", 10;name="p.odd""#
                    .to_string()
            ),
            ("x-ratelimit-remaining", "2".to_string()),
            ("x-ratelimit-reset", "1".to_string()),
        ]
    );
    // The one that denies is closest, however much it has left of what a dear request wants.
    let dear = Shown { denies: true, ..shown("p.dear", 100, 60_000_000, 90, 30_000_000) };
    let fields = Dialect::XDraft03.fields(&[limits[1], dear], Some(60));
    assert_eq!(value(&fields, X_REMAINING), "90");
}

#[test]
fn nothing_is_shown_where_nothing_is_to_be_shown() {
    let limit = shown("p.l", 5, 60_000_000, 4, 1);
    assert_eq!(Dialect::Off.fields(&[limit], None), []);
    assert_eq!(Dialect::Draft10.fields(&[], None), []);
    assert_eq!(Dialect::XDraft03.fields(&[], None), []);
}

#[test]
fn sixty_four_limits_stay_within_what_clients_read() {
    let name = "n".repeat(127);
    let limits: Vec<_> = (0..64)
        .map(|n| shown(&name, 1_000_000_000, 31_622_400_000_000, 1_000 - n, u64::MAX))
        .collect();
    for dialect in [Dialect::Draft10, Dialect::XDraft03] {
        let fields = dialect.fields(&limits, None);
        let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        assert!(size < 8 * 1024, "{dialect:?}: {size}");
        assert!(fields[1].1.contains("937") || dialect == Dialect::Draft10);
    }
    let fields = Dialect::Draft10.fields(&limits, None);
    assert!(value(&fields, "ratelimit").contains("r=937;"), "the closest is among them");
    assert!(!value(&fields, "ratelimit").contains("r=1000;"), "the farthest is not");
}

#[test]
fn an_upstreams_draft_03_fields_give_way_only_to_stricter_ones() {
    let ours = [(X_REMAINING, "4".to_string())];
    for (theirs, stricter) in [
        ("5", true),
        (" 5 ", true),
        ("4", false),
        ("3", false),
        ("", false),
        ("many", false),
        ("5, 6", false),
        ("-1", false),
        ("99999999999999999999", false),
    ] {
        assert_eq!(is_stricter(&ours, theirs.as_bytes()), stricter, "{theirs:?}");
    }
    assert!(!is_stricter(&ours, b"\xff"));
    assert!(!is_stricter(&[], b"5"));
}

fn integer(entry: &sfv::Item, key: &str) -> Option<i64> {
    let (_, value) = entry.params.iter().find(|(name, _)| name.as_str() == key)?;
    Some(value.as_integer().expect("an Integer").into())
}

fn items(value: &str) -> Vec<sfv::Item> {
    let list: List = Parser::new(value).parse().expect("a List of RFC 9651");
    let item = |entry| match entry {
        ListEntry::Item(item) => item,
        ListEntry::InnerList(_) => panic!("no inner list"),
    };
    list.into_iter().map(item).collect()
}

proptest! {
    /// What was spelled before is what would be spelled now.
    #[test]
    fn what_is_spelled_before_is_spelled_the_same(
        limits in prop::collection::vec(
            ("[a-z.]{1,9}", 1u32.., prop_oneof![1u64..9_000_000, (1u64..99).prop_map(|s| s * SECOND_US)], 0u64..9),
            1..20,
        ),
        retry_after_s: Option<u64>,
    ) {
        let spell = |(name, quota, period_us, _): &(String, u32, u64, u64)| {
            Spelled::new(name, *quota, *period_us)
        };
        let spelled: Vec<_> = limits.iter().map(spell).collect();
        let plain: Vec<_> = limits.iter().map(|(name, quota, period_us, left)| {
            shown(name, *quota, *period_us, *left, *period_us)
        }).collect();
        let prepared: Vec<_> = plain.iter().zip(&spelled).map(|(shown, spelled)| {
            Shown { spelled: Some(spelled), ..*shown }
        }).collect();
        for dialect in [Dialect::Draft10, Dialect::XDraft03] {
            prop_assert_eq!(
                dialect.fields(&plain, retry_after_s),
                dialect.fields(&prepared, retry_after_s)
            );
        }
    }

    #[test]
    fn every_list_is_read_back_as_it_was_meant(
        limits in prop::collection::vec(
            ("[ -~]{1,40}", 1..=u32::MAX, 1..=u64::MAX, 1..=u32::MAX, any::<u64>(), any::<u64>(), any::<bool>()),
            1..SHOWN_MAX,
        ),
        retry_after_s in prop::option::of(1u64..100_000),
    ) {
        let shown: Vec<_> = limits
            .iter()
            .map(|(name, quota, period_us, burst, remaining, next_us, denies)| Shown {
                name, quota: *quota, period_us: *period_us, burst: *burst,
                remaining: *remaining, next_us: *next_us, denies: *denies,
                spelled: None,
            })
            .collect();
        let fields = Dialect::Draft10.fields(&shown, retry_after_s);
        let policies = items(value(&fields, "ratelimit-policy"));
        let states = items(value(&fields, "ratelimit"));
        prop_assert_eq!((policies.len(), states.len()), (shown.len(), shown.len()));
        for ((limit, policy), state) in shown.iter().zip(&policies).zip(&states) {
            for item in [policy, state] {
                let BareItem::String(name) = &item.bare_item else { panic!("a String") };
                prop_assert_eq!(name.as_str(), limit.name);
            }
            prop_assert_eq!(integer(policy, "q"), Some(i64::from(limit.quota)));
            let window_s = integer(policy, "w");
            prop_assert_eq!(
                window_s.is_some(),
                limit.period_us >= 1_000_000 && limit.period_us % 1_000_000 == 0
            );
            prop_assert!(window_s.is_none_or(|w| w >= 1));
            let remaining = integer(state, "r").expect("r is required");
            prop_assert_eq!(remaining, i64::try_from(limit.remaining.min(INTEGER_MAX)).unwrap());
            if let (Some(next_s), Some(retry_after_s), false) = (integer(state, "t"), retry_after_s, limit.denies) {
                prop_assert!(next_s <= i64::try_from(retry_after_s).unwrap());
            }
        }
        // Whatever a name holds, no line ends within a field.
        for (_, value) in Dialect::XDraft03.fields(&shown, retry_after_s).iter().chain(&fields) {
            prop_assert!(value.bytes().all(|b| (b' '..=b'~').contains(&b)));
        }
    }

    #[test]
    fn no_name_ends_a_line(name in any::<String>()) {
        let limit = [shown(&name, 1, 1_000_000, 1, 1)];
        for dialect in [Dialect::Draft10, Dialect::XDraft03] {
            for (_, value) in dialect.fields(&limit, None) {
                prop_assert!(value.bytes().all(|b| (b' '..=b'~').contains(&b)), "{value:?}");
            }
        }
    }
}
