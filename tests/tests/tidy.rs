//! The house rules that a machine can see. Each failure names the file, the line and the remedy.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_policy::reason::Reason;
use tidegate_tests::parts;

/// A tracked file with its text.
struct Source {
    path: String,
    text: String,
}

/// Every text file of the checkout that git would track.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&parts::root(), &mut found);
    found.sort();
    let root = parts::root();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).expect("below the root").display().to_string();
        fs::read_to_string(&path).ok().map(|text| Source { path: name, text })
    };
    found.into_iter().filter_map(read).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    const LEFT_OUT: [&str; 4] = ["target", ".git", ".tools", "node_modules"];
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && !LEFT_OUT.contains(&name.as_str()) {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn with_ending(ending: &str) -> Vec<Source> {
    sources().into_iter().filter(|source| source.path.ends_with(ending)).collect()
}

/// Code above the inline tests.
fn production(source: &Source) -> &str {
    source.text.split("#[cfg(test)]").next().unwrap_or_default()
}

fn none(found: &[String], remedy: &str) {
    assert!(found.is_empty(), "{remedy}:\n  {}", found.join("\n  "));
}

/// Every line of `files` that `bad` finds, as `path:line: text`.
fn lines(files: &[Source], bad: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let each = |source: &Source| -> Vec<String> {
        let numbered = source.text.lines().enumerate();
        let hits = numbered.filter(|(_, line)| bad(source, line));
        hits.map(|(n, line)| format!("{}:{}: {}", source.path, n + 1, line.trim())).collect()
    };
    files.iter().flat_map(each).collect()
}

#[test]
fn every_rust_file_says_first_what_it_owns() {
    let silent: Vec<String> = with_ending(".rs")
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    none(&silent, "begin the file with `//!` and what it owns");
}

#[test]
fn files_stay_small() {
    const LINES_MAX: usize = 400;
    let long: Vec<String> = with_ending(".rs")
        .iter()
        .filter(|source| !source.path.contains("tests"))
        .filter_map(|source| {
            let count = production(source).lines().count();
            (count > LINES_MAX).then(|| format!("{}: {count} lines above its tests", source.path))
        })
        .collect();
    none(&long, "split by owner; aim for 300 lines");
}

#[test]
fn no_test_is_switched_off_and_nothing_is_left_for_later() {
    // Written in pieces, so that this file does not find itself.
    let marks = [["#[ig", "nore"], ["TO", "DO"], ["FIX", "ME"], ["XX", "X:"]].map(|p| p.concat());
    let found = lines(&with_ending(".rs"), |_, line| marks.iter().any(|mark| line.contains(mark)));
    none(&found, "finish it, or write a decision record and say its number");
}

#[test]
fn no_test_stands_where_none_is_run() {
    // The filter is built for Envoy alone, and cargo is told not to test it.
    let found = lines(&with_ending(".rs"), |source, line| {
        source.path.starts_with("plugin/src/") && line.trim() == "#[test]"
    });
    none(&found, "what can be tested without a host belongs to policy");
}

#[test]
fn no_test_sleeps_in_hope() {
    let sleep = ["sle", "ep("].concat();
    let until = ["sleep_", "until("].concat();
    let allowed = [
        "tests/src/eventually.rs",
        "tests/src/faults.rs",
        "tests/src/scripted.rs",
        // The moments of a timeline are what a scenario says.
        "tests/src/conformance/clock.rs",
        // A timetable is kept, whatever comes of it.
        "tests/src/bench/pace.rs",
        // A clock has timers.
        "gateway/tests/redis_store/swift.rs",
    ];
    let files: Vec<Source> = with_ending(".rs")
        .into_iter()
        .filter(|s| s.path.contains("tests"))
        .filter(|s| !allowed.contains(&s.path.as_str()))
        .collect();
    let found = lines(&files, |_, line| line.contains(&sleep) || line.contains(&until));
    none(&found, "wait with `eventually`");
}

#[test]
fn the_filter_cannot_trap_by_its_own_words() {
    let words = [".unw", ".exp", "pan", "unreach", "ass"]
        .into_iter()
        .zip(["rap()", "ect(", "ic!(", "able!(", "ert!("]);
    let words: Vec<String> = words.map(|(a, b)| format!("{a}{b}")).collect();
    let files: Vec<Source> = with_ending(".rs")
        .into_iter()
        .filter(|s| s.path.starts_with("plugin/src") || s.path.starts_with("policy/src"))
        .filter(|s| !s.path.ends_with("/tests.rs") && !s.path.contains("/tests/"))
        .map(|s| Source { text: production(&s).to_owned(), path: s.path })
        .collect();
    let traps = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        words.iter().any(|word| code.contains(word)) && !code.contains("debug_assert")
    };
    none(&lines(&files, |_, line| traps(line)), "return what the caller can handle");
}

#[test]
fn host_calls_stand_in_one_file() {
    let files: Vec<Source> =
        with_ending(".rs").into_iter().filter(|s| s.path.starts_with("plugin/src")).collect();
    let outside = |source: &Source, line: &str| {
        let call = ["proxy_get", "proxy_set", "proxy_send", "proxy_http", "proxy_continue"]
            .iter()
            .any(|call| line.contains(call));
        call && !source.path.starts_with("plugin/src/host")
    };
    none(&lines(&files, outside), "add the call to plugin/src/host.rs");
}

#[test]
fn rooms_know_only_whom_they_may() {
    let rules: [(&str, &[&str]); 3] = [
        ("policy/Cargo.toml", &["proxy-wasm", "tokio", "redis", "getrandom", "log", "tidegate-"]),
        ("plugin/Cargo.toml", &["tidegate-gateway", "tidegate-host-sim", "redis"]),
        ("host-sim/Cargo.toml", &["tidegate-policy", "tidegate-gateway", "tidegate-plugin"]),
    ];
    let mut found = Vec::new();
    for (path, forbidden) in rules {
        let text = fs::read_to_string(parts::root().join(path)).expect("a manifest");
        let dependencies = text.split_once("[dependencies]").map_or("", |(_, rest)| rest);
        for line in dependencies.lines() {
            for name in forbidden {
                if line.starts_with(name) {
                    found.push(format!("{path}: {line}"));
                }
            }
        }
    }
    none(&found, "see docs/architecture.md");
}

#[test]
fn every_reason_is_spelled_once() {
    let files: Vec<Source> = with_ending(".rs")
        .into_iter()
        .filter(|s| s.path.starts_with("plugin/src") || s.path.starts_with("gateway/src"))
        .map(|s| Source { text: production(&s).to_owned(), path: s.path })
        .filter(|s| !s.path.ends_with("tests.rs"))
        .collect();
    let stray = |_: &Source, line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        // One-word reasons are ordinary words; those with a hyphen are nothing but reasons.
        Reason::ALL
            .iter()
            .any(|reason| reason.as_str().contains('-') && code.contains(&format!("\"{reason}\"")))
    };
    none(&lines(&files, stray), "take the text from policy::reason::Reason");
}

#[test]
fn paths_in_documents_exist() {
    let documents: Vec<Source> = with_ending(".md");
    let mut missing = Vec::new();
    for document in &documents {
        // Every second piece between backticks is code.
        for code in document.text.split('`').skip(1).step_by(2) {
            let top = code.split('/').next().unwrap_or_default();
            let rooms =
                ["policy", "plugin", "gateway", "host-sim", "lua", "envoy", "tests", "docs"];
            let is_path = rooms.contains(&top)
                && code.contains('/')
                && code.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && !parts::root().join(code.trim_end_matches('/')).exists() {
                missing.push(format!("{}: {code}", document.path));
            }
        }
    }
    none(&missing, "documents name only what exists");
}

#[test]
fn every_record_is_in_the_index() {
    let (index, records): (Vec<Source>, Vec<Source>) = with_ending(".md")
        .into_iter()
        .filter(|document| document.path.starts_with("docs/"))
        .partition(|document| document.path == "docs/README.md");
    let listed = |record: &Source| index.iter().any(|index| index.text.contains(&record.path));
    let lost: Vec<String> =
        records.into_iter().filter(|record| !listed(record)).map(|record| record.path).collect();
    none(&lost, "list it in docs/README.md");
}

#[test]
fn every_script_lists_its_keys_arguments_and_returns() {
    let mut silent = Vec::new();
    for script in with_ending(".lua") {
        let header: String =
            script.text.lines().take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS", "ARGV", "Returns"] {
            if !header.contains(word) {
                silent.push(format!("{}: no {word} in its header", script.path));
            }
        }
    }
    none(&silent, "a script's header is its contract");
}

#[test]
fn nothing_new_at_the_top() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "plugin",
        "host-sim",
        "envoy",
        "lua",
        "tests",
        "policy",
        "gateway",
        "docs",
        "Makefile",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "rust-toolchain.toml",
        "clippy.toml",
        "rustfmt.toml",
        "deny.toml",
        "target",
    ];
    let new: Vec<String> = fs::read_dir(parts::root())
        .expect("the checkout")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()))
        .collect();
    none(&new, "write a decision record, then add it here");
}

/// The design notes lie outside the repository: a reader of the code cannot open them.
#[test]
fn nothing_points_outside_the_repository() {
    let notes =
        ["product", "architecture", "contracts", "state", "envoy", "style", "peers", "marks"];
    let points = |_: &Source, line: &str| {
        notes.iter().enumerate().any(|(n, name)| line.contains(&format!("0{}-{name}", n + 1)))
    };
    let found = lines(&sources(), points);
    none(
        &found,
        "cite `product row A1` (docs/traceability.md holds its text) or a decision record",
    );
}

#[test]
fn the_readme_is_short() {
    let text = fs::read_to_string(parts::root().join("README.md")).expect("README.md");
    assert!(text.lines().count() <= 120, "{} lines; keep it within 120", text.lines().count());
}
