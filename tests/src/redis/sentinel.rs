//! Owns a real master with a replica, and three real Sentinels that watch them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{Redis, free_port};
use crate::process::Process;
use crate::{client, eventually, parts};

const WATCHED_WITHIN: Duration = Duration::from_secs(60);

/// The master's name.
pub const MASTER: &str = "main";

/// All five.
#[derive(Debug)]
pub struct Watched {
    /// The first master.
    pub master: Redis,
    /// Its replica.
    pub replica: Redis,
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    _dir: TempDir,
    process: Process,
}

// === impl Watched ===

impl Watched {
    /// Starts them and waits until every Sentinel knows the replica and the other Sentinels.
    pub async fn start() -> Self {
        let master = Redis::start_with_words(&[]).await;
        let port = master.tcp_port().to_string();
        let replica = Redis::start_with_words(&["--replicaof", "127.0.0.1", &port]).await;
        eventually(WATCHED_WITHIN, "the replica follows", async || {
            let reply = replica.command(&["INFO", "replication"]).await;
            if reply.contains("master_link_status:up") { Ok(()) } else { Err(reply) }
        })
        .await;
        let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(&port)).collect();
        let watched = Self { master, replica, sentinels };
        for sentinel in &watched.sentinels {
            eventually(WATCHED_WITHIN, "a Sentinel knows everybody", async || {
                let told = sentinel.ask("SENTINEL MASTER main").await;
                let number = |name: &str| {
                    let mut lines = told.lines().skip_while(|line| *line != name);
                    lines.nth(2).map(str::to_owned)
                };
                let all = number("num-slaves").as_deref() == Some("1")
                    && number("num-other-sentinels").as_deref() == Some("2");
                if all { Ok(()) } else { Err((told, sentinel.process.output())) }
            })
            .await;
        }
        watched
    }

    /// Its URL for the gateway.
    pub fn url(&self) -> String {
        let sentinels = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port));
        format!("redis-sentinel://{}/{MASTER}", sentinels.collect::<Vec<_>>().join(","))
    }
}

// === impl Sentinel ===

impl Sentinel {
    fn start(master: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\nsentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 5000\n"
        );
        let file = dir.path().join("sentinel.conf");
        fs::write(&file, text).expect("a file");
        let mut command = Command::new(parts::redis_server());
        command.current_dir(dir.path()).arg(&file).arg("--sentinel");
        let log = dir.path().join("sentinel.log");
        let process = Process::start(command, &log).expect("a Sentinel starts");
        Self { port, _dir: dir, process }
    }

    async fn ask(&self, words: &str) -> String {
        let to = ([127, 0, 0, 1], self.port).into();
        let Ok(mut stream) = client::connect(to, None).await else {
            return "not there yet".to_owned();
        };
        super::inline(&mut stream, words).await
    }
}
