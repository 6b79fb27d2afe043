//! The program: its start errors, its signals, its exit codes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Caller, Speaks, TOKEN, question};
use tidegate_tests::eventually;

/// The program with an environment of its own.
fn program(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-gateway"));
    command.arg("serve").args(flags.split_whitespace()).env_clear().stdin(Stdio::null());
    command
}

fn refused(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("the program runs");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Killed on drop, so that a failing test leaves nothing behind.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).expect("our own child");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Err(error), _) | (_, Err(error)) = (self.0.kill(), self.0.wait()) {
            eprintln!("tidegate-gateway: {error}");
        }
    }
}

async fn addresses(file: &Path) -> (SocketAddr, SocketAddr) {
    let text = eventually(Duration::from_secs(60), "the addresses are written", async || {
        fs::read_to_string(file)
    })
    .await;
    let find = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    };
    (find("data="), find("admin="))
}

#[test]
fn a_wrong_setting_is_told_and_the_program_ends_with_2() {
    let (code, text) = refused(&mut program("--dev --pool-wait 40ms"));
    assert_eq!(code, Some(2), "{text}");
    for part in
        ["--pool-wait (TIDEGATE_POOL_WAIT) is 40ms", "--deadline (TIDEGATE_DEADLINE)", "30ms"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (code, text) = refused(&mut program(""));
    assert_eq!(code, Some(2));
    assert!(text.contains("TIDEGATE_TOKEN"), "{text}");
    let (code, text) = refused(program("").env("TIDEGATE_REDIS_URL", "redis://u:hunter2@[h"));
    assert_eq!(code, Some(2));
    assert!(text.contains("TIDEGATE_REDIS_URL") && !text.contains("hunter2"), "{text}");
    let (code, _) = refused(&mut program("--what"));
    assert_eq!(code, Some(2));
    let (code, _) = refused(&mut program("--help"));
    assert_eq!(code, Some(0));
}

#[test]
fn an_address_in_use_is_told_and_the_program_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let (code, text) = refused(&mut program(&format!("--dev --listen {address}")));
    assert_eq!(code, Some(1), "{text}");
    let expected = format!("error: --listen (TIDEGATE_LISTEN) is {address}: cannot listen there");
    assert!(text.contains(&expected), "{text}");
}

#[tokio::test]
async fn it_serves_until_a_signal_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("addresses");
        let child = program("--listen 127.0.0.1:0 --log-format json")
            .env("TIDEGATE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("TIDEGATE_TOKEN", TOKEN)
            .env("TIDEGATE_ADDRESSES_FILE", &file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut running = Running(child.expect("the program starts"));
        let (data, admin) = addresses(&file).await;
        let caller = Caller::new(Speaks::Http2);
        assert_eq!(caller.decide(data, &question("a")).await.status, 200);
        assert_eq!(caller.get(admin, "/livez", None).await.status, 200);
        running.signal(signal);
        let status = eventually(Duration::from_secs(60), "the program ends", async || {
            running.0.try_wait().map_err(|error| error.to_string())?.ok_or_else(String::new)
        })
        .await;
        assert_eq!(status.code(), Some(0), "{signal:?}");
    }
}
