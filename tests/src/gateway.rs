//! Owns a real gateway: the binary that operators run, on free ports, in a process of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::{self, Answer};
use crate::process::Process;
use crate::{eventually, parts};

/// The token that filter and gateway share in tests.
pub const TOKEN: &str = "test-token";
/// An administrator's token, with the role `admin`.
pub const ADMIN_TOKEN: &str = "admin-token";

/// Flags of a gateway whose test is not about time, for a filter that waits for 4 s. By default it gives Redis up after
/// 250 ms and sheds decisions once its own threads are late by 4 ms, which a busy machine does to one that is well.
pub const ROOMY: [&str; 6] =
    ["--deadline", "2s", "--pool-wait", "1500ms", "--redis-response-timeout", "2s"];

/// What a test asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program, if not the gateway that is shipped.
    pub program: Option<PathBuf>,
    /// The data listener; port 0 is any free one.
    pub listen: String,
    /// The admin listener; port 0 is any free one.
    pub admin_listen: String,
    /// Redis; memory if `None`.
    pub redis_url: Option<String>,
    /// More flags.
    pub flags: Vec<String>,
    /// More variables.
    pub variables: Vec<(String, String)>,
    /// The filter's token.
    pub token: String,
    /// Declares the region warm once the gateway listens, so that limits are whole: a new Redis holds
    /// no mark of the region, and a cold region admits at most half of each limit.
    pub warm: bool,
}

/// Tests that are not about it do not wait ten seconds for the breaker of the store.
const SOON: [&str; 2] = ["TIDEGATE_STORE_BREAKER_OPEN", "200ms"];

// === impl Options ===

impl Options {
    /// A gateway with its state in memory.
    pub fn memory() -> Self {
        Self {
            program: None,
            listen: "127.0.0.1:0".to_owned(),
            admin_listen: "127.0.0.1:0".to_owned(),
            redis_url: None,
            flags: Vec::new(),
            variables: vec![SOON.map(str::to_owned).into()],
            token: TOKEN.to_owned(),
            warm: true,
        }
    }

    /// A gateway with its state in Redis.
    pub fn redis(url: &str) -> Self {
        Self { redis_url: Some(url.to_owned()), ..Self::memory() }
    }

    /// The same with more flags, such as [`ROOMY`].
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Where filters connect.
    pub addr: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    _dir: TempDir,
    process: Process,
}

// === impl Gateway ===

impl Gateway {
    /// Starts one and waits until it listens.
    pub async fn start(options: &Options) -> Self {
        match Self::try_start(options).await {
            Ok(gateway) => gateway,
            Err(output) => panic!("the gateway ended at its start:\n{output}"),
        }
    }

    /// Starts one; gives its output if it refuses to start.
    pub async fn try_start(options: &Options) -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("addresses");
        let mut command = Command::new(options.program.clone().unwrap_or_else(parts::gateway));
        command.arg("serve").args(["--listen", &options.listen]);
        command.args(["--admin-listen", &options.admin_listen]);
        command.arg("--addresses-file").arg(&file);
        if let Some(url) = &options.redis_url {
            command.args(["--redis-url", url]);
        }
        command.args(&options.flags);
        // Nothing of the caller's own settings, which would be the gateway's, too.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let ours = [
                "TIDEGATE_",
                "REDIS_",
                "CLOUD_RUN_",
                "RUST_LOG",
                "AUDIT_PRIVATE_KEY",
                "REVOKED_KEY",
            ];
            if ours.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("TIDEGATE_TOKEN", &options.token);
        command.env("TIDEGATE_ADMIN_TOKENS", format!("tester:admin:{ADMIN_TOKEN}"));
        command.envs(options.variables.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let log = dir.path().join("gateway.log");
        let mut process = Process::start(command, &log).expect("the gateway can be run");
        let (addr, admin) =
            eventually(Duration::from_secs(60), "the gateway listens", async || {
                if let Some(status) = process.ended() {
                    return Ok::<_, String>(Err(format!("{status}\n{}", process.output())));
                }
                let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
                let address = |name: &str| {
                    let line = text.lines().find_map(|line| line.strip_prefix(name));
                    line.and_then(|value| value.parse().ok())
                        .ok_or(format!("no {name} in {text:?}"))
                };
                Ok(Ok((address("data=")?, address("admin=")?)))
            })
            .await?;
        let gateway = Self { addr, admin, _dir: dir, process };
        if options.warm && options.redis_url.is_some() {
            gateway.declare("warm").await;
        }
        Ok(gateway)
    }

    /// Makes its region `cold` or `warm`, as its administrator.
    pub async fn declare(&self, temperature: &str) {
        let body = format!("{{\"temperature\": \"{temperature}\"}}");
        eventually(Duration::from_secs(60), "the region is declared", async || {
            let answer = self.command("/v1/region", &body).await;
            if answer.status == 200 { Ok(()) } else { Err((answer, self.output())) }
        })
        .await;
    }

    /// `POST path` on the admin listener, as its administrator.
    pub async fn command(&self, path: &str, body: &str) -> Answer {
        let mut stream = client::connect(self.admin, None).await.expect("the admin listener");
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {ADMIN_TOKEN}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        client::raw(&mut stream, format!("{head}{body}").as_bytes()).await
    }

    /// All that it logged.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Sends it a signal, such as `libc::SIGTERM`.
    pub fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// The process, for CPU time and its end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `GET path` on the admin listener, as its administrator.
    pub async fn admin(&self, path: &str) -> Answer {
        let header = format!("authorization: Bearer {ADMIN_TOKEN}\r\n");
        client::get_from(self.admin, None, path, &header).await
    }
}
