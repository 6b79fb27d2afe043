//! `host-sim run` from outside: what it prints, in which order, and how it exits.

use crate::support::{FAILING, PASSING, PLUGIN, folder, host_sim, printed, text};

#[test]
fn what_passes_exits_with_0_and_a_summary() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let output = host_sim(folder.path(), &["run", "a.yaml"]);
    assert_eq!(
        text(&output.stdout),
        "passed: passes (1 checks, 1 requests, 1 host calls, 190 bytes)\n1 passed, 0 failed\n"
    );
    assert_eq!(output.status.code(), Some(0));
    assert!(
        folder.path().join("target/host-sim-cache").is_dir(),
        "the cache is local to the project"
    );
}

#[test]
fn one_failure_or_one_broken_file_exits_with_1_and_the_others_still_run() {
    let folder = folder(&[
        ("a.yaml", FAILING),
        ("b.yaml", "name: x\nplugin: {}\nhots: 1\n"),
        ("c.yaml", PASSING),
        ("d.txt", ""),
    ]);
    let output = host_sim(folder.path(), &["run", "."]);
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("FAILED: fails\nline 4: client a: status\n  expected 201\n"),
        "{stdout}"
    );
    assert!(stdout.contains("./b.yaml:3:1: ") && stdout.contains("hots"), "{stdout}");
    assert!(stdout.ends_with("1 passed, 2 failed\n"), "{stdout}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_failure_shows_the_trace_around_it_and_only_there() {
    let folder = folder(&[("a.yaml", FAILING), ("b.yaml", PASSING)]);
    let (stdout, _) = printed(folder.path(), &["run", "a.yaml", "b.yaml"]);
    let expected = "FAILED: fails
line 4: client a: status
  expected 201
  seen     200 with the body \"ok\"
  |          0ms -        0 client a sends GET /
  |          0ms w0       2 proxy_on_context_create parent 1
  |          0ms w0       2 proxy_on_request_headers 6 headers, end=true -> 0
  |          0ms w0       2   proxy_get_header_map_pairs RequestHeaders -> Ok
  |          0ms -        0 client a gets 200 after 0ms
  in a.yaml
passed: passes (1 checks, 1 requests, 1 host calls, 190 bytes)
1 passed, 1 failed
";
    assert_eq!(stdout, expected);
}

/// The order of results is the files', whichever thread is first.
#[test]
fn many_threads_print_what_one_thread_prints() {
    let names: Vec<_> = (0..40).map(|n| format!("{n:02}.yaml")).collect();
    let texts: Vec<_> = (0..40)
        .map(|n| {
            // The first files take longest, so that the others overtake them.
            let times = 1 + (40 - n) * 20;
            let yaml = if n % 7 == 3 { FAILING } else { PASSING };
            yaml.replace("client: a, send", &format!("client: a, times: {times}, send"))
                .replace("name: ", &format!("name: {n} "))
        })
        .collect();
    let files: Vec<_> =
        names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    let folder = folder(&files);
    let reports = |jobs: &str| {
        let args =
            ["run", ".", "--jobs", jobs, "--seed", "7", "--json", "r.json", "--junit", "r.xml"];
        let (stdout, code) = printed(folder.path(), &args);
        let read = |name| std::fs::read_to_string(folder.path().join(name)).expect("a report");
        let (json, junit) = (read("r.json"), read("r.xml"));
        std::fs::remove_file(folder.path().join("r.json")).expect("it was there");
        (stdout, code, json, junit)
    };
    let one = reports("1");
    assert!(one.0.ends_with("34 passed, 6 failed\n"), "{}", one.0);
    assert_eq!(one.1, Some(1));
    assert!(one == reports("8"), "eight threads print something else");
}

#[test]
fn folders_are_searched_to_the_bottom_and_an_empty_one_is_an_error() {
    let folder = folder(&[]);
    std::fs::create_dir_all(folder.path().join("x/y")).expect("folders");
    let (_, code) = printed(folder.path(), &["run", "x"]);
    assert_eq!(code, Some(1));
    std::fs::write(
        folder.path().join("x/y/a.yaml"),
        PASSING.replace("plugin.wasm", "../../plugin.wasm"),
    )
    .expect("written");
    assert!(printed(folder.path(), &["run", "x"]).0.ends_with("1 passed, 0 failed\n"));
}

#[test]
fn another_plugin_can_be_named_and_a_missing_one_is_explained() {
    let folder = folder(&[
        ("a.yaml", &PASSING.replace("plugin.wasm", "none.wasm")),
        ("b.yaml", &PASSING.replace("{ wasm: plugin.wasm }", "{}")),
    ]);
    let output = host_sim(folder.path(), &["run", "a.yaml", "--wasm", "plugin.wasm"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let missing = text(&host_sim(folder.path(), &["run", "a.yaml"]).stdout);
    assert!(
        missing.contains("none.wasm cannot be read") && missing.contains("is it built"),
        "{missing}"
    );
    let unnamed = text(&host_sim(folder.path(), &["run", "b.yaml"]).stdout);
    assert!(unnamed.contains("no plugin.wasm") && unnamed.contains("--wasm PATH"), "{unnamed}");
    let no_file = host_sim(folder.path(), &["run", "no.yaml"]);
    assert!(
        text(&no_file.stdout).contains("no.yaml: cannot be read; is the path right?"),
        "{no_file:?}"
    );
    let not_wasm = text(&host_sim(folder.path(), &["run", "a.yaml", "--wasm", "b.yaml"]).stdout);
    assert!(not_wasm.contains("not a WebAssembly binary"), "{not_wasm}");
}

#[test]
fn an_unusable_cache_says_so() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let output = host_sim(folder.path(), &["run", "a.yaml", "--cache", "a.yaml"]);
    let stderr = text(&output.stderr);
    assert!(
        stderr
            .contains("cache of compiled modules in a.yaml cannot be used; name another directory"),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn lints_follow_the_result_and_fail_it_only_where_they_are_denied() {
    let hanging = PLUGIN.replace("(i32.const 0)))", "(i32.const 1)))");
    let yaml = |host: &str| {
        format!(
            "name: hangs\nplugin: {{ wasm: hanging.wasm }}\nhost: {{ {host} }}\n\
             timeline: [{{ at: 0ms, client: a, send: {{}}, times: 2 }}]\n"
        )
    };
    let folder = folder(&[("reported.yaml", &yaml("")), ("denied.yaml", &yaml("lints: deny"))]);
    let module = wat::parse_str(hanging).expect("a module");
    std::fs::write(folder.path().join("hanging.wasm"), module).expect("written");
    let args = ["run", "reported.yaml", "--json", "r.json", "--junit", "r.xml"];
    let output = host_sim(folder.path(), &args);
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("passed: hangs ("), "{stdout}");
    assert!(stdout.contains("\n  lint pause-without-callout: the request waits"), "{stdout}");
    assert!(stdout.contains("\n    and 1 more of pause-without-callout\n1 passed"), "{stdout}");
    assert_eq!(output.status.code(), Some(0));
    let read = |name| std::fs::read_to_string(folder.path().join(name)).expect("a report");
    let json: serde_json::Value = serde_json::from_str(&read("r.json")).expect("JSON");
    let lints = json["scenarios"][0]["lints"].as_array().expect("a list");
    assert_eq!((lints.len(), &lints[0]["name"]), (2, &"pause-without-callout".into()), "{json}");
    let junit = read("r.xml");
    assert!(junit.contains("<system-out>  lint pause-without-callout"), "{junit}");
    let output = host_sim(folder.path(), &["run", "denied.yaml"]);
    assert!(text(&output.stdout).contains("expected no pause-without-callout"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_reader_that_leaves_ends_the_command_without_a_word() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_host-sim"));
    command.current_dir(folder.path()).arg("schema");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(1)));
}
