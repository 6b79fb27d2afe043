//! Owns a real Redis of a test's own: on a socket in a temporary folder, nothing shared. A benchmark
//! can have it on a free TCP port as well, since that is how Redis is usually reached, and a test of
//! TLS on a port that speaks nothing else. Several of them make a Cluster or are watched by Sentinels.

pub mod cluster;
pub mod held;
pub mod sentinel;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::Files;
use crate::process::Process;
use crate::{eventually, parts};
use held::HeldClock;

/// Words of a command line before a port.
const PORT: &str = "--port";
const TLS_PORT: &str = "--tls-port";
const CLUSTER_PORT: &str = "--cluster-port";
/// How often another port is tried where one was taken.
const PORTS_TRIED: usize = 5;

/// What a server shows under TLS, and whose clients it believes.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Its own certificate, which it also shows to other servers.
    pub own: Files,
    /// Signed every certificate.
    pub ca: PathBuf,
}

/// A running redis-server.
#[derive(Debug)]
pub struct Redis {
    dir: TempDir,
    tcp_port: u16,
    /// What its command line says of ports.
    ports: Vec<String>,
    /// Whether it keeps a log of what it did, and has it again after a restart.
    durable: bool,
    /// Its wall clock, if that is not the machine's.
    clock: Option<HeldClock>,
    process: Process,
}

// === impl Redis ===

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        Self::start_on(0, vec!["--port".to_owned(), "0".to_owned()], None).await
    }

    /// The same, with a wall clock that stands until the test sets it.
    pub async fn start_with_clock(clock: HeldClock) -> Self {
        Self::start_on(0, vec!["--port".to_owned(), "0".to_owned()], Some(clock)).await
    }

    /// Sets that clock, in µs since 1970.
    pub fn set_clock(&self, unix_us: u64) {
        self.clock.as_ref().expect("a clock of its own").set(unix_us);
    }

    /// The same, on a free TCP port of the loopback as well.
    pub async fn start_with_tcp() -> Self {
        let port = free_port();
        Self::start_on(port, vec!["--port".to_owned(), port.to_string()], None).await
    }

    /// The same, under TLS on that port. `clients` is Redis's word for whether clients need a
    /// certificate that `ca` signed: yes, no or optional.
    pub async fn start_with_tls(own: &Files, ca: &Path, clients: &str) -> Self {
        let port = free_port();
        let tls = Tls { own: own.clone(), ca: ca.to_owned() };
        let mut words = listening(port, Some(&tls));
        words.extend(["--tls-auth-clients".to_owned(), clients.to_owned()]);
        Self::start_on(port, words, None).await
    }

    /// The same, on a free TCP port, under TLS if it is told how, with more words on its command line.
    pub async fn start_with_words(tls: Option<&Tls>, words: &[&str]) -> Self {
        let port = free_port();
        let own = listening(port, tls);
        let words = own.into_iter().chain(words.iter().map(|&w| w.to_owned())).collect();
        Self::start_on(port, words, None).await
    }

    /// A replica of another one, which has a port, once it has all of it.
    pub async fn replica_of(master: &Self) -> Self {
        let port = master.tcp_port().to_string();
        let replica = Self::start_with_words(None, &["--replicaof", "127.0.0.1", &port]).await;
        eventually(Duration::from_secs(60), "the replica follows", async || {
            let reply = replica.command(&["INFO", "replication"]).await;
            if reply.contains("master_link_status:up") { Ok(()) } else { Err(reply) }
        })
        .await;
        // Its master counts it only once it has said how far it is.
        eventually(Duration::from_secs(60), "the master counts it", async || {
            let reply = master.command(&["INFO", "replication"]).await;
            if reply.contains("state=online") { Ok(()) } else { Err(reply) }
        })
        .await;
        replica
    }

    /// The same, without a port, with a log on the disk (`appendonly`) that outlives it.
    pub async fn start_durable() -> Self {
        let mut redis = Self::start().await;
        redis.durable = true;
        redis.restart().await;
        redis
    }

    /// How long its log is now. What a command wrote is in it once the command is answered.
    pub fn log_len(&self) -> u64 {
        std::fs::metadata(self.log()).expect("a log").len()
    }

    /// As after a loss of power: killed, its log cut back to that length, started again.
    pub async fn lose_power(&mut self, log_len: u64) {
        self.process.kill();
        let log = std::fs::OpenOptions::new().write(true).open(self.log()).expect("a log");
        assert!(log.metadata().expect("a file").len() >= log_len, "a log only grows");
        log.set_len(log_len).expect("cut back");
        self.restart().await;
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("appendonlydir/appendonly.aof.1.incr.aof")
    }

    /// Everything it wrote.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// A port that was free may be somebody else's by the time it is bound: then on others.
    async fn start_on(tcp_port: u16, ports: Vec<String>, clock: Option<HeldClock>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let process = launch(&dir, &ports, false, clock.as_ref());
        let mut redis = Self { dir, tcp_port, ports, durable: false, clock, process };
        for _ in 1..PORTS_TRIED {
            if redis.answers().await {
                return redis;
            }
            redis.change_ports();
            redis.process = redis.launch();
        }
        redis.ready().await;
        redis
    }

    fn launch(&self) -> Process {
        launch(&self.dir, &self.ports, self.durable, self.clock.as_ref())
    }

    /// Whether it runs, and not: whether it ended because a port was taken.
    async fn answers(&mut self) -> bool {
        eventually(Duration::from_secs(60), "Redis answers or ends", async || {
            let output = self.process.output();
            if self.process.ended().is_some() && output.contains("Address already in use") {
                return Ok(false);
            }
            self.pong().await.map(|()| true)
        })
        .await
    }

    fn change_ports(&mut self) {
        for at in 1..self.ports.len() {
            let [name, port] = &mut self.ports[at - 1..=at] else { continue };
            if [PORT, TLS_PORT, CLUSTER_PORT].contains(&name.as_str()) && port.as_str() != "0" {
                let other = free_port();
                *port = other.to_string();
                if name != CLUSTER_PORT {
                    self.tcp_port = other;
                }
            }
        }
    }

    /// The port behind that word of its command line.
    fn port_of(&self, name: &str) -> &str {
        let at = self.ports.iter().position(|word| word == name).expect("on its command line");
        &self.ports[at + 1]
    }

    /// Its TCP port; 0 if it has none.
    pub fn tcp_port(&self) -> u16 {
        self.tcp_port
    }

    /// Its URL for the gateway.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// What it worked by now, in µs.
    pub fn cpu_us(&self) -> u64 {
        self.process.cpu_us()
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again, after it was killed: empty, or with what its log holds.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = self.launch();
        self.ready().await;
    }

    /// The same, at another port of those that it has on its command line.
    pub async fn restart_elsewhere(&mut self) {
        let before = std::mem::replace(&mut self.tcp_port, free_port()).to_string();
        let mine = self.ports.iter_mut().filter(|word| **word == before);
        mine.for_each(|word| *word = self.tcp_port.to_string());
        self.restart().await;
    }

    /// Sends one command and gives the raw reply.
    pub async fn command(&self, words: &[&str]) -> String {
        self.try_command(words).await.expect("a Redis that answers")
    }

    /// The same where it may end connections, or be away.
    pub async fn try_command(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = tokio::net::UnixStream::connect(self.socket()).await?;
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(bytes.as_bytes()).await?;
        let mut reply = vec![0; 64 * 1024];
        let read = stream.read(&mut reply).await?;
        Ok(String::from_utf8_lossy(&reply[..read]).into_owned())
    }

    async fn ready(&self) {
        eventually(Duration::from_secs(60), "Redis answers", async || self.pong().await).await;
    }

    async fn pong(&self) -> Result<(), String> {
        UnixStream::connect(self.socket()).map_err(|error| error.to_string())?;
        match self.try_command(&["PING"]).await {
            Ok(reply) if reply.starts_with("+PONG") => Ok(()),
            other => Err(format!("{other:?}; {}", self.process.output())),
        }
    }
}

/// What a command line says of the port: only TLS, to other servers as well, or none at all.
fn listening(port: u16, tls: Option<&Tls>) -> Vec<String> {
    let Some(Tls { own, ca }) = tls else { return vec![PORT.to_owned(), port.to_string()] };
    let text = |path: &Path| path.display().to_string();
    let words = [
        (PORT, "0".to_owned()),
        (TLS_PORT, port.to_string()),
        ("--tls-cert-file", text(&own.certificate)),
        ("--tls-key-file", text(&own.key)),
        ("--tls-ca-cert-file", text(ca)),
        ("--tls-replication", "yes".to_owned()),
    ];
    words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr());
    free.expect("a free port").port()
}

fn launch(dir: &TempDir, ports: &[String], durable: bool, clock: Option<&HeldClock>) -> Process {
    let mut command = Command::new(parts::redis_server());
    if let Some(clock) = clock {
        clock.show(&mut command);
    }
    command.current_dir(dir.path()).args(["--unixsocket", "redis.sock"]);
    command.args(ports).args(["--bind", "127.0.0.1"]);
    let durable = if durable { "yes" } else { "no" };
    command.args(["--save", "", "--appendonly", durable, "--maxmemory-policy", "noeviction"]);
    // Else it puts its writes off for up to two seconds where the disk is busy, behind answers that are out.
    command.args(["--appendfsync", "always"]);
    Process::start(command, &dir.path().join("redis.log")).expect("redis-server starts")
}

/// Sends a line of words and gives what comes back at once.
async fn inline(stream: &mut tokio::net::UnixStream, words: &str) -> String {
    let mut reply = vec![0; 64 * 1024];
    let answered = async {
        stream.write_all(format!("{words}\r\n").as_bytes()).await?;
        stream.read(&mut reply).await
    };
    match answered.await {
        Ok(read) => String::from_utf8_lossy(&reply[..read]).into_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_was_taken_meanwhile_is_left_to_whoever_has_it() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = held.local_addr().expect("bound").port();
        let redis = Redis::start_on(taken, listening(taken, None), None).await;
        assert_ne!(redis.tcp_port(), taken);
        let at = format!("tcp_port:{}\r\n", redis.tcp_port());
        let info = redis.command(&["INFO", "server"]).await;
        assert!(info.contains(&at), "{at} in {info}");
    }
}
