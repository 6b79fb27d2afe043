//! Documents that are meant to hurt: each is refused with a reason, in bounded time and memory. What is
//! quadratic or worse in the size of the document does not end here.

use tidegate_policy::check::{check, found};
use tidegate_policy::config::{Config, DOCUMENT_BYTES_MAX};

use proptest::prelude::*;

/// What is said about a document, all of it short.
fn refused(document: &str, expected: &str) {
    let reading = Config::read(document);
    assert!(reading.config.is_none());
    let lines: Vec<String> = reading.diagnostics.iter().map(ToString::to_string).collect();
    assert!(lines.len() <= 100, "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.len() < 2_000), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains(expected)), "{expected}: {lines:?}");
    if document.len() < 10_000 {
        assert!(check(document, "").len() < 400_000);
    }
}

/// A quarter of what is read at all: what is quadratic takes hours already, and what is not, a moment.
const REPEATED_BYTES: usize = DOCUMENT_BYTES_MAX / 4;

fn repeated(head: &str, piece: impl Fn(usize) -> String, tail: &str) -> String {
    let mut document = head.to_owned();
    for n in 0.. {
        let piece = piece(n);
        if document.len() + piece.len() + tail.len() >= REPEATED_BYTES {
            break;
        }
        document.push_str(&piece);
    }
    document + tail
}

#[test]
fn ten_megabytes_are_refused_by_their_size_alone() {
    let document = format!("{{\"version\": 1, \"x\": \"{}\"}}", "x".repeat(10 * 1024 * 1024));
    refused(&document, "the document has 10485");
    refused(&" ".repeat(10 * 1024 * 1024), "keep it below 4 MiB");
}

#[test]
fn depth_is_refused_wherever_it_stands() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"policies\":", "}]")] {
        for depth in [40, 5_000, 50_000] {
            let document = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            refused(&document, "nested too deeply");
            refused(&format!("{{\"version\": 1, \"policies\": {document}}}"), "nested too deeply");
        }
    }
    refused(&"[".repeat(1_000_000), "");
}

#[test]
fn hundreds_of_thousands_of_fields_cost_no_more_than_their_reading() {
    let unknown = |n: usize| format!("\"field{n}\":1,");
    refused(&repeated("{", unknown, "\"version\":2}"), "problems more");
    refused(&repeated("{\"strict\":true,", unknown, "\"version\":1}"), "unknown field; ");
    let head = "{\"version\":1,\"gateway\":{\"cluster\":\"c\"},\"policies\":[{\"name\":\"p\",\"match\":{\"path\":\"/\",\"headers\":{";
    refused(
        &repeated(head, |n| format!("\"h{n}\":\"1\","), "\"h\":\"1\"}}}]}"),
        "conditions; write 1 to 16",
    );
    refused(
        &repeated(head, |_| "\"h\":\"1\",".to_owned(), "\"h\":\"1\"}}}]}"),
        "the field stands twice",
    );
    refused(
        &repeated("{", |_| "\"version\":1,".to_owned(), "\"version\":1}"),
        "the field stands twice",
    );
}

#[test]
fn long_lists_of_nonsense_are_refused() {
    let head = "{\"version\":1,\"gateway\":{\"cluster\":\"c\"},\"policies\":[";
    refused(&repeated(head, |_| "0,".to_owned(), "0]}"), "policies; keep them below 10000");
    let policies: String = (0..4_000).map(|_| "{\"name\":\"p\",\"mach\":{}},").collect();
    refused(&format!("{head}{policies}{{}}]}}"), "problems more");
    let head = format!("{head}{{\"name\":\"p\",\"match\":{{\"path\":\"/\",\"methods\":[");
    refused(
        &repeated(&head, |_| "\"GET\",".to_owned(), "\"GET\"]}}]}"),
        "methods; write at most 64",
    );
}

fn with_limit(limit: &str) -> String {
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "c"}}, "policies": [{{"name": "p", "match": {{"path": "/"}}, "rate_limits": [{{"name": "l", "by": "ip", "limit": {limit}, "per": "minute"}}]}}]}}"#
    )
}

#[test]
fn numbers_of_any_size_are_refused_as_numbers() {
    for number in
        ["1e400", "-1e400", "1e-400", "18446744073709551616", "0.1", "-0", "1E3", "4294967296"]
    {
        refused(
            &with_limit(number),
            "is no valid number here; write a whole number from 1 to 1000000000",
        );
    }
    refused(&with_limit(&"9".repeat(1_000_000)), "… is no valid number here");
    for number in ["01", "+1", "0x10", "1_000", "NaN", "Infinity"] {
        refused(&with_limit(number), "configuration: ");
    }
}

#[test]
fn a_nul_and_other_control_characters_are_refused_where_they_stand() {
    for (text, expected) in [
        ("\u{0}", "expected value"),
        ("{\"version\": 1}\u{0}", "trailing characters"),
        ("{\"ver\u{0}sion\": 1}", "control character"),
    ] {
        refused(text, expected);
    }
    for field in ["a\\u0000b", "a\\u0007b", "\\ud800", "\\uD83D\\uDE00", "\u{202e}x", "a\u{7f}"] {
        let name = with_limit("1").replace("\"p\"", &format!("\"{field}\""));
        assert!(Config::read(&name).config.is_none(), "{field:?}");
        let path = with_limit("1").replace("\"/\"", &format!("\"/{field}\""));
        assert!(Config::read(&path).config.is_none(), "{field:?}");
    }
    let line = found(&with_limit("1").replace("\"p\"", "\"a\\u001b[31m\\n\""), "");
    assert!(line.iter().all(|found| !found.problem.chars().any(char::is_control)), "{line:?}");
}

#[test]
fn hostile_expressions_are_refused_or_harmless() {
    let with = |regex: &str| {
        let text = serde_json::Value::from(regex).to_string();
        with_limit("1").replace("\"path\": \"/\"", &format!("\"path_regex\": {text}"))
    };
    for regex in [
        "((((((((((a{10}){10}){10}){10}){10}){10}){10}){10}){10}){10}",
        "a{1000}{1000}",
        "(?:a{0,1000}){1000}",
        "[\\x00-\\x{10FFFF}]{1000}{50}",
        "(a)\\1",
        "(?=a)b",
        "\\p{Greek}",
        "(",
        "*",
        "[z-a]",
        "a{2,1}",
        "(?P<n>a)(?P<n>b)",
    ] {
        refused(&with(regex), "is no regular expression that can be used");
    }
    refused(&with(&"(".repeat(100_000)), "is no regular expression");
    refused(&with(&"a|".repeat(500_000)), "is no regular expression");
    // Backtracking engines hang on these; a linear one just answers.
    assert!(Config::read(&with("(a+)+b")).config.is_some());
    assert!(Config::read(&with("(.*)*x")).config.is_some());
}

#[test]
fn a_secret_that_is_written_out_is_not_repeated() {
    let document = with_limit("1").replace("\"c\"", "\"c\", \"token\": \"hunter2\"");
    let answer = check(&document, "");
    assert!(answer.contains("a secret is written out"), "{answer}");
    assert!(!answer.contains("hunter2"), "{answer}");
}

fn regressions() -> Box<dyn proptest::test_runner::FailurePersistence> {
    use proptest::test_runner::FileFailurePersistence::Direct;
    Box::new(Direct("proptest-regressions/authoring.txt"))
}

/// JSON of any shape, made of the words that the reader knows and of others.
fn documents() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let known: Vec<&str> = tidegate_policy::config::shapes::all()
        .flat_map(|shape| shape.fields.iter().map(|field| field.name))
        .collect();
    let key = prop_oneof![4 => proptest::sample::select(known), 1 => Just("other")];
    let word = proptest::sample::select(vec![
        "ip", "deny", "allow", "shadow", "off", "10%", "minute", "1ms", "/a/{b}", "/**", "a",
        "*.b", "GET", "tenant", "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..300).prop_map(Value::from),
        word.prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((key.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

proptest! {
    // A failure prints its smallest input, and its seed goes to policy/proptest-regressions/.
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: Some(regressions()), ..ProptestConfig::default() })]

    #[test]
    fn documents_of_known_words_are_read_or_refused_with_a_place(inner in documents(), outer in documents()) {
        let policies = serde_json::json!([inner.clone(), { "name": "p", "match": inner, "rate_limits": [outer.clone()] }]);
        for document in [outer.clone(), serde_json::json!({ "version": 1, "gateway": { "cluster": "c" }, "identities": outer, "policies": policies })] {
            let document = document.to_string();
            for found in found(&document, "") {
                let (start, end) = found.span.expect("a place");
                prop_assert!(document.get(start..end).is_some(), "{found:?}");
                prop_assert!(!found.problem.is_empty());
            }
        }
    }

    #[test]
    fn any_facts_are_survived(facts in documents(), text in ".{0,80}") {
        let answer = check(&with_limit("1"), &facts.to_string());
        prop_assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok());
        check(&with_limit("1"), &text);
        check(&text, &text);
    }
}
