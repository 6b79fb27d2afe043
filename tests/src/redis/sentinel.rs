//! Owns a real master with a replica, and three real Sentinels that watch them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{Redis, Tls, free_port};
use crate::process::Process;
use crate::{eventually, parts};

const WATCHED_WITHIN: Duration = Duration::from_secs(60);

/// A server that says nothing for so long, in ms, is taken for dead: longer than a machine that is busy elsewhere lets one
/// stand still.
const PATIENT_MS: u32 = 5_000;
/// The same where a test waits for that.
const HASTY_MS: u32 = 1_000;

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
    tls: bool,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    dir: TempDir,
    process: Process,
}

// === impl Watched ===

impl Watched {
    /// Starts them and waits until every Sentinel knows the replica and the other Sentinels.
    pub async fn start() -> Self {
        Self::start_with(None, "").await
    }

    /// The same, and every connection under TLS if they are told how; with more lines in the
    /// configuration of each Sentinel.
    pub async fn start_with(tls: Option<&Tls>, lines: &str) -> Self {
        let master = Redis::start_with_words(tls, &[]).await;
        let port = master.tcp_port().to_string();
        let words = ["--replicaof", "127.0.0.1", &port];
        let replica = Redis::start_with_words(tls, &words).await;
        eventually(WATCHED_WITHIN, "the replica follows", async || {
            let reply = replica.command(&["INFO", "replication"]).await;
            if reply.contains("master_link_status:up") { Ok(()) } else { Err(reply) }
        })
        .await;
        let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(&port, tls, lines)).collect();
        let watched = Self { master, replica, sentinels, tls: tls.is_some() };
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

    /// One more, parted from the others and the first in the URL: to it that other server is the master.
    pub async fn part_one(&mut self, master: &Redis) {
        let parted = Sentinel::start(&master.tcp_port().to_string(), None, "");
        eventually(WATCHED_WITHIN, "the parted one watches", async || {
            let told = parted.ask("SENTINEL MASTER main").await;
            if told.contains("num-slaves") { Ok(()) } else { Err(told) }
        })
        .await;
        self.sentinels.insert(0, parted);
    }

    /// From now on another takes over from a master that says nothing for a second, and not for five.
    pub async fn fails_over_soon(&self) {
        for sentinel in &self.sentinels {
            let words = format!("SENTINEL SET {MASTER} down-after-milliseconds {HASTY_MS}");
            let reply = sentinel.ask(&words).await;
            assert!(reply.starts_with("+OK"), "{reply}");
        }
    }

    /// Its URL for the gateway.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// The same for a user of the servers, written `user:password@`.
    pub fn url_as(&self, user: &str) -> String {
        let scheme = if self.tls { "rediss-sentinel" } else { "redis-sentinel" };
        let sentinels = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port));
        format!("{scheme}://{user}{}/{MASTER}", sentinels.collect::<Vec<_>>().join(","))
    }
}

// === impl Sentinel ===

impl Sentinel {
    fn start(master: &str, tls: Option<&Tls>, lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        // A line of the file is a pair of words of the command line.
        let words = super::listening(port, tls);
        let pairs = words.chunks(2).map(|pair| pair.join(" ").replacen("--", "", 1));
        let listening = pairs.collect::<Vec<_>>().join("\n");
        let text = format!(
            "{listening}\nbind 127.0.0.1\nunixsocket sentinel.sock\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\nsentinel down-after-milliseconds {MASTER} {PATIENT_MS}\nsentinel failover-timeout {MASTER} 5000\n{lines}\n"
        );
        let file = dir.path().join("sentinel.conf");
        fs::write(&file, text).expect("a file");
        let mut command = Command::new(parts::redis_server());
        command.current_dir(dir.path()).arg(&file).arg("--sentinel");
        let log = dir.path().join("sentinel.log");
        let process = Process::start(command, &log).expect("a Sentinel starts");
        Self { port, dir, process }
    }

    async fn ask(&self, words: &str) -> String {
        let socket = self.dir.path().join("sentinel.sock");
        let Ok(mut stream) = tokio::net::UnixStream::connect(socket).await else {
            return "not there yet".to_owned();
        };
        super::inline(&mut stream, words).await
    }
}
