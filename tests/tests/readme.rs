//! The README's commands do what it says. `make test` itself is left out: it is what runs this.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output};
use std::time::Duration;

use tidegate_tests::process::Process;
use tidegate_tests::{client, eventually, parts};
use tokio::sync::Mutex;

/// What stands in the README between fences of a kind.
fn fenced(kind: &str) -> Vec<String> {
    let text = fs::read_to_string(parts::root().join("README.md")).expect("README.md");
    let open = format!("```{kind}\n");
    text.split(&open)
        .skip(1)
        .filter_map(|rest| rest.split("```").next().map(str::to_owned))
        .collect()
}

fn commands() -> Vec<String> {
    fenced("sh").iter().flat_map(|block| block.lines()).map(str::to_owned).collect()
}

fn make(target: &str) -> Output {
    let mut command = Command::new("make");
    command.current_dir(parts::root()).arg(target).env_remove("MAKEFLAGS");
    command.output().expect("make can be run")
}

#[test]
fn the_readme_has_the_commands_that_are_tested_here() {
    let expected =
        ["make demo", "make test", "make run", "curl -i http://127.0.0.1:10000/api/hello"];
    assert_eq!(commands(), expected, "test the new command here, too");
}

/// Both start their parts with the timeouts that are shipped, which a machine that compiles for the other one may miss.
static ALONE: Mutex<()> = Mutex::const_new(());
/// A fault of theirs repeats itself, a missed timeout does not.
const TRIES: u8 = 3;

/// What one run shows otherwise than the README.
fn demo() -> Result<(), String> {
    let done = make("demo");
    let output = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        return Err(format!("{output}\n{errors}"));
    }
    for line in [
        "GET /api/hello                             200",
        "429  quota-exceeded, Retry-After",
        "503  policy-store-unavailable",
        "20 of 20 as expected.",
    ] {
        assert!(fenced("text")[0].contains(line), "the README no longer shows {line:?}");
        if !output.contains(line) {
            return Err(format!("{line:?} is not in\n{output}"));
        }
    }
    Ok(())
}

#[test]
fn make_demo_shows_what_the_readme_says() {
    let _alone = ALONE.blocking_lock();
    let shows = (1..=TRIES).any(|nth| match demo() {
        Ok(()) => true,
        Err(other) => {
            println!("try {nth}: {other}");
            false
        }
    });
    assert!(shows, "each of {TRIES} tries, above, shows something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn make_run_serves_what_the_curl_line_asks_for() {
    let _alone = ALONE.lock().await;
    let mut command = Command::new("make");
    command.current_dir(parts::root()).arg("run").env_remove("MAKEFLAGS");
    // Free ports instead of the README's, which may be taken on the machine that tests.
    for port in ["PORT", "ADMIN_PORT", "GATEWAY_PORT", "GATEWAY_ADMIN_PORT"] {
        command.env(port, "0");
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let running = Process::start(command, &dir.path().join("run.log")).expect("make can be run");
    let address = eventually(Duration::from_secs(300), "make run is up", async || {
        let output = running.output();
        let line =
            output.lines().find_map(|line| line.trim().strip_prefix("try it     curl -i http://"));
        let address = line.and_then(|rest| rest.split('/').next()?.parse().ok());
        address.ok_or(output.clone())
    })
    .await;
    let mut admits_five = false;
    for nth in 1..=TRIES {
        // Of a new client nothing is used.
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 3, nth));
        let mut told = Vec::new();
        eventually(Duration::from_secs(60), "one is refused for the limit", async || {
            let answer = client::get_from(address, Some(from), "/api/hello", "").await;
            let reply = answer.header("x-tidegate-reply").map(str::to_owned);
            told.push((answer.status, reply.clone()));
            // Another 429 is a gateway without a processor.
            let is_denied = answer.status == 429 && reply.as_deref() == Some("quota-exceeded");
            if is_denied { Ok(()) } else { Err(answer) }
        })
        .await;
        let admitted = told.iter().filter(|(status, _)| *status == 200).count();
        admits_five = admitted == 5;
        if admits_five {
            break;
        }
        println!("try {nth}: {admitted} of five: {told:?}");
    }
    assert!(admits_five, "each of {TRIES} tries, above, admits another number");
    drop(running);
}

#[test]
fn the_policy_in_the_readme_is_sound() {
    let reading = tidegate_policy::config::Config::read(&fenced("json")[0]);
    assert_eq!(reading.diagnostics, []);
}

#[test]
fn make_help_lists_every_target_that_the_readme_names() {
    let output = String::from_utf8_lossy(&make("help").stdout).into_owned();
    for target in ["demo", "test", "run", "quick", "check", "bench", "load", "clean"] {
        assert!(output.contains(&format!("make {target} ")), "{target} is not in\n{output}");
    }
}
