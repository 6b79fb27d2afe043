//! Bytes and files that nobody meant: codecs and the parser answer, and never panic, hang or take the machine's memory.
//! A failing case is kept beside this file and tried first from then on.

use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::test_runner::FileFailurePersistence;
use tidegate_host_sim::{Runner, Scenario, Services, pairs, path};

use crate::support::Plugin;

fn config(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(kept)),
        ..ProptestConfig::with_cases(cases)
    }
}

/// A change to bytes that were right.
#[derive(Debug, Clone)]
enum Damage {
    Cut(Index),
    Put(Index, u8),
    /// Lengths and counts are little-endian words.
    PutWord(Index, u32),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = prop_oneof![any::<u32>(), select(vec![0, 1, 1024, 1025, 1 << 20, u32::MAX])];
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Put(at, byte)),
        (any::<Index>(), word).prop_map(|(at, word)| Damage::PutWord(at, word)),
        (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let len = bytes.len();
        match damage {
            _ if len == 0 => {}
            Damage::Cut(at) => bytes.truncate(at.index(len)),
            Damage::Put(at, byte) => bytes[at.index(len)] = *byte,
            Damage::PutWord(at, word) => {
                let at = at.index(len) / 4 * 4;
                let end = (at + 4).min(len);
                bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            }
            Damage::Insert(at, more) => {
                let at = at.index(len);
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(len), to.index(len));
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(piece);
            }
        }
    }
    bytes
}

fn map() -> impl Strategy<Value = pairs::Pairs> {
    vec((vec(any::<u8>(), 0..12), vec(any::<u8>(), 0..24)), 0..6)
}

/// What is decoded at all is decoded whole: nothing is guessed, dropped or added.
fn decodes_exactly_or_to_nothing(bytes: &[u8]) -> Result<(), TestCaseError> {
    let decoded = pairs::decode(bytes);
    prop_assert!(decoded.len() <= pairs::PAIRS_MAX);
    if !decoded.is_empty() {
        prop_assert_eq!(pairs::encode(&decoded), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn any_bytes_are_a_map_or_none(bytes in vec(any::<u8>(), 0..64)) {
        decodes_exactly_or_to_nothing(&bytes)?;
    }

    #[test]
    fn a_damaged_map_is_another_map_or_none(map in map(), damages in vec(damage(), 1..4)) {
        decodes_exactly_or_to_nothing(&damaged(pairs::encode(&map), &damages))?;
    }

    #[test]
    fn any_bytes_are_a_path_that_joins_to_itself(bytes in vec(prop_oneof![Just(0), any::<u8>()], 0..40)) {
        let joined = path::split(&bytes).join(&0);
        prop_assert_eq!(joined.as_slice(), bytes.strip_suffix(b"\0").unwrap_or(&bytes));
        let dots = path::dotted(&bytes).matches('.').count();
        prop_assert!(dots + 1 >= path::split(&bytes).len());
    }
}

/// Every field once, and where fields have forms, every form.
const WHOLE: &str = include_str!("whole.yaml");

/// Values that are wrong almost everywhere, and right somewhere.
const VALUES: [&str; 24] = [
    "0ms",
    "18446744073709551615h",
    "1e400",
    "-1",
    "18446744073709551616",
    ".nan",
    "~",
    "\"\"",
    "{}",
    "[]",
    "[[]]",
    "{ hex: 6 }",
    "{ zeros: 70000000 }",
    "{ zeros: 3 }",
    "{ json: { a: [~] } }",
    "same as a",
    "in-process",
    "true",
    "0x7f",
    "*a",
    "&a x",
    "!!binary /w==",
    "\"\\0\\u{0}\"",
    "{{request.json./}}",
];

/// The whole file without some of the lines that may go, and with some values exchanged.
fn file() -> impl Strategy<Value = String> {
    let optional = |line: &&str| line.starts_with(' ');
    let count = WHOLE.lines().filter(optional).count();
    let kept = subsequence((0..count).collect::<Vec<_>>(), count / 2..=count);
    let change = (any::<Index>(), any::<Index>(), select(VALUES.to_vec()));
    (kept, vec(change, 0..2)).prop_map(move |(kept, changes)| {
        let mut nth = 0..count;
        let stays = |line: &&str| !optional(line) || nth.next().is_some_and(|n| kept.contains(&n));
        let mut lines: Vec<String> = WHOLE.lines().filter(stays).map(str::to_owned).collect();
        for (line, field, value) in changes {
            let index = line.index(lines.len());
            let fields: Vec<_> = lines[index].split(", ").map(str::to_owned).collect();
            lines[index] = exchanged(fields, field, value);
        }
        lines.join("\n")
    })
}

/// One of the fields of a line with another value; what closed the old value stays.
fn exchanged(mut fields: Vec<String>, field: Index, value: &str) -> String {
    let index = field.index(fields.len());
    let field = &mut fields[index];
    if let Some((key, old)) = field.split_once(": ") {
        let closing = old.trim_start_matches(|c| !" }]".contains(c));
        *field = format!("{key}: {value}{closing}");
    }
    fields.join(", ")
}

fn parses_or_says_why(text: &str) -> Result<Option<Scenario>, TestCaseError> {
    match Scenario::parse(text) {
        Ok(scenario) => Ok(Some(scenario)),
        Err(error) => {
            prop_assert!(error.to_string().starts_with("scenario:"), "{}", error);
            Ok(None)
        }
    }
}

fn runner() -> &'static (Runner, Vec<u8>) {
    static RUNNER: OnceLock<(Runner, Vec<u8>)> = OnceLock::new();
    RUNNER.get_or_init(|| {
        (Runner::with_cache(None).expect("no cache, no error"), crate::callouts::asking().build())
    })
}

proptest! {
    #![proptest_config(config(1_000))]

    #[test]
    fn any_text_is_a_scenario_or_an_error(text in "[ -~\n\\u{0}\\u{fffd}]{0,80}") {
        parses_or_says_why(&text)?;
    }

    #[test]
    fn a_damaged_scenario_is_a_scenario_or_an_error(damages in vec(damage(), 1..4)) {
        let bytes = damaged(WHOLE.as_bytes().to_vec(), &damages);
        parses_or_says_why(&String::from_utf8_lossy(&bytes))?;
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// What parses also runs, twice the same.
    #[test]
    fn a_scenario_of_some_lines_runs_to_its_end(text in file()) {
        if let Some(scenario) = parses_or_says_why(&text)?
            && !scenario.needs_service()
        {
            let (runner, wasm) = runner();
            let run = || runner.run_bytes(&scenario, wasm, Services::default()).expect("it runs");
            prop_assert_eq!(format!("{:?}", run()), format!("{:?}", run()));
        }
    }
}

#[test]
fn the_whole_file_is_right() {
    let scenario = Scenario::parse(WHOLE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(scenario.name(), "every field once");
    let report = Runner::with_cache(None)
        .expect("no cache, no error")
        .run_bytes(&scenario, &Plugin::new().build(), Services::default())
        .expect("it runs");
    assert_eq!(report.exchanges.len(), 6);
}

/// Few characters that ask for much: each is refused, or costs no more than its length.
#[test]
fn a_small_file_cannot_ask_for_much_memory_or_time() {
    let file = |rest: &str| format!("name: x\nplugin: {{}}\n{rest}\n");
    let laughs: String = (1..12)
        .map(|n| format!("    a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")))
        .collect();
    let send = |body: &str| format!("{{ at: 0ms, client: a, send: {{ body: {body} }} }}");
    let refused = [
        format!("host:\n  properties:\n    a0: &a0 [x, x]\n{laughs}"),
        format!("timeline: [{}]", vec![send("{ zeros: 60000000 }"); 1_000].join(", ")),
        format!(
            "timeline: [{}]",
            send(&format!("[{}]", vec!["{ zeros: 60000000 }"; 1_000].join(", ")))
        ),
        format!(
            "timeline: [{}]",
            vec!["{ at: 0ms, client: a, times: 100000, send: {} }"; 1_000].join(", ")
        ),
        "timeline: [{ at: 0ms, client: a, times: 100000, send: { body: { zeros: 60000000 } } }]"
            .to_owned(),
        "timeline: [{ at: 0ms, client: a, times: 18446744073709551615, every: 1h, send: {} }]"
            .to_owned(),
        format!(
            "timeline: [{{ at: 0ms, client: a, send: {{ body: &a \"{}\" }} }}, {}]",
            "y".repeat(1_000_000),
            vec![send("*a"); 9_000].join(", ")
        ),
        format!("expect: {}", "[".repeat(100_000)),
        format!("host: {}1{}", "{ properties: ".repeat(10_000), "}".repeat(10_000)),
        "host: { workers: 18446744073709551615 }".to_owned(),
        format!(
            "gateway: [{}]",
            vec!["{ answer: { status: 200, body: { zeros: 67108864 } } }"; 100].join(", ")
        ),
    ];
    for rest in refused {
        let shown: String = rest.chars().take(80).collect();
        assert!(Scenario::parse(&file(&rest)).is_err(), "{shown}");
    }
    let endless = Scenario::parse("name: x\nplugin: { config_file: /dev/zero }\n").unwrap_err();
    assert!(endless.to_string().contains("longer than"), "{endless}");
    let endless = Scenario::load("/dev/zero").unwrap_err();
    assert!(endless.to_string().contains("/dev/zero"), "{endless}");
}
