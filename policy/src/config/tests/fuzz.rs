//! Documents of the right words in the wrong places: deeper than random text ever gets into the reader.

use super::*;
use crate::config::shapes;
use std::string::String;
use std::vec::Vec;

const SCALARS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "5",
    "1e9",
    "0.5",
    "99999999999999999999",
    "\"\"",
    "\"ip\"",
    "\"tenant\"",
    "\"a\"",
    "\"/**\"",
    "\"/a/{b}\"",
    "\"/\\u0000\"",
    "\"(a+)+$\"",
    "\"((a{0,99}){0,99}){0,99}\"",
    "\"minute\"",
    "\"45ms\"",
    "\"10%\"",
    "\"1KiB\"",
    "\"shadow\"",
    "\"deny\"",
    "\"{{reason}}\"",
    "\"\\ud83d\\ude00\"",
];

/// Every field's name.
fn names() -> Vec<&'static str> {
    shapes::all().flat_map(|shape| shape.fields.iter().map(|field| field.name)).collect()
}

/// Every field's example: what is right in one place.
fn examples() -> Vec<&'static str> {
    shapes::all().flat_map(|shape| shape.fields.iter().map(|field| field.example)).collect()
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        proptest::sample::select(SCALARS).prop_map(String::from),
        proptest::sample::select(examples()).prop_map(String::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let field = (proptest::sample::select(names()), inner.clone());
        let table = proptest::collection::vec(field, 0..6).prop_map(|fields| {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            format!("{{{}}}", fields.join(", "))
        });
        let list = proptest::collection::vec(inner, 0..4)
            .prop_map(|items| format!("[{}]", items.join(", ")));
        prop_oneof![3 => table, 1 => list]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Each field of a sound policy gets any value: it is read, or refused with places in the document.
    #[test]
    fn known_words_in_any_order_are_survived(
        name in proptest::sample::select(names()),
        (here, there) in (value(), value()),
        place in 0usize..5,
    ) {
        let field = |at: usize| if at == place { format!(", \"{name}\": {here}") } else { String::new() };
        let text = format!(
            r#"{{"version": 1, "gateway": {{"cluster": "t"{}}}, "policies": [{{"name": "p", "match": {{"path": "/a"{}}},
              "rate_limits": [{{"name": "l", "by": "ip", "limit": 5, "per": "minute"{}}}, {there}]{}}}]{}}}"#,
            field(0), field(1), field(2), field(3), field(4),
        );
        let reading = Config::read(&text);
        let has_error = reading.diagnostics.iter().any(|d| d.severity == Severity::Error);
        prop_assert_eq!(reading.config.is_none(), has_error, "{}", text);
        for diagnostic in &reading.diagnostics {
            prop_assert!(text.get(diagnostic.span.clone()).is_some(), "{} {:?}", text, diagnostic);
            prop_assert!(!diagnostic.problem.is_empty() && !diagnostic.remedy.is_empty(), "{} {:?}", text, diagnostic);
        }
    }
}
