//! `host-sim check` with the shipped filter: every wrong configuration of the corpus gets its message at a
//! place, and the Envoy file that is shipped gets none.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use tidegate_tests::parts;

/// What check prints.
fn check(file: &Path) -> String {
    let wasm = parts::filter("tidegate");
    let cache = parts::root().join("target/host-sim-cache");
    let args = [
        "host-sim".as_ref(),
        "check".as_ref(),
        file.as_os_str(),
        "--wasm".as_ref(),
        wasm.as_os_str(),
        "--cache".as_ref(),
        cache.as_os_str(),
    ];
    let args = host_sim::Args::try_parse_from(args).expect("a command line");
    let mut printed = Vec::new();
    host_sim::execute(&args, &mut printed);
    String::from_utf8(printed).expect("text")
}

#[test]
fn every_wrong_configuration_gets_its_message_through_the_filter() {
    let dir = parts::root().join("tests/config/invalid");
    let mut wrong = Vec::new();
    for entry in fs::read_dir(dir).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a readable file");
        let expected =
            text.lines().find_map(|line| line.strip_prefix("# expect: ")).expect("a line");
        let printed = check(&path);
        // The same words in another order: the remedy stands below, behind the marks.
        let mut lines = printed.lines();
        let head = lines.next().unwrap_or_default();
        let marks = lines.nth(1).unwrap_or_default();
        let remedy = marks.split_once("^ ").map(|(_, remedy)| remedy).unwrap_or_default();
        let said = format!("{head}; {remedy}");
        let whole = expected.replace("error: configuration: ", "error: ");
        let said = said.replace("error: configuration: ", "error: ");
        // Blanks in JSON are nobody's; and YAML keeps how a number is written, the other test does not.
        let squashed = |text: &str| text.replace(' ', "");
        if squashed(&said) != squashed(&whole) && !path.ends_with("limit-huge.yaml") {
            wrong.push(format!("{}:\n{printed}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_wrong_with_the_envoy_file_that_is_shipped() {
    assert_eq!(check(&parts::root().join("envoy/bootstrap.yaml")), "no errors, no warnings\n");
}

#[test]
fn what_does_not_fit_around_the_filter_is_shown_where_it_stands() {
    let text = fs::read_to_string(parts::root().join("envoy/bootstrap.yaml")).expect("the file");
    for (from, to, expected) in [
        (
            "failure_policy: FAIL_RELOAD",
            "failure_policy: FAIL_OPEN",
            "every request passes undecided",
        ),
        (
            "allow_on_headers_stop_iteration: true",
            "allow_on_headers_stop_iteration: false",
            "allow_on_headers_stop_iteration is not on",
        ),
        ("stream_idle_timeout: 30s", "stream_idle_timeout: 0s", "stream_idle_timeout is off"),
        ("use_remote_address: true", "use_remote_address: false", "use_remote_address is not on"),
        (
            "connect_timeout: 0.030s",
            "connect_timeout: 0.045s",
            "connect_timeout of cluster \"tidegate\" (45 ms) is not shorter",
        ),
        ("timeout: 15s }", "timeout: 0.045s }", "the route's timeout (45 ms) is not longer"),
        (
            "[TIDEGATE_TOKEN, ",
            "[",
            "the environment variable TIDEGATE_TOKEN does not reach the filter's VM",
        ),
        (
            "\"cluster\": \"tidegate\"",
            "\"cluster\": \"tidegat\"",
            "the Envoy file has no cluster \"tidegat\"",
        ),
        ("\"per\": \"minute\"", "\"per\": \"minut\"", "\"minut\" is no duration"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("envoy.yaml");
        fs::write(&file, &changed).expect("written");
        let printed = check(&file);
        let lines: Vec<&str> = printed.lines().collect();
        let [head, source, _, summary] = lines.as_slice() else { panic!("{from}: {printed}") };
        assert!(head.contains(expected), "{printed}");
        assert!(source.contains(" | "), "{printed}");
        assert!(["no errors, 1 warning", "1 error, no warnings"].contains(summary), "{printed}");
    }
}
