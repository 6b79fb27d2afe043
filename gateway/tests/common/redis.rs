//! Owns a real Redis of a test's own, on a socket in a temporary folder: nothing is shared, nothing
//! is left behind.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError};
use tempfile::TempDir;

use tidegate_tests::eventually;

/// A running redis-server; killed on drop, and by the kernel if the test's thread ends first.
pub struct Redis {
    /// Its folder, with the socket in it.
    pub dir: TempDir,
    /// Its process.
    pub child: Child,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let child = launch(dir.path());
        let redis = Self { dir, child };
        redis.ready().await;
        redis
    }

    /// Where it is or will be.
    pub fn url(&self) -> String {
        format!("redis+unix://{}/redis.sock", self.dir.path().display())
    }

    /// A connection of the test's own.
    pub async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// Waits until it answers.
    pub async fn ready(&self) {
        eventually(Duration::from_secs(10), "Redis answers", async || {
            let mut connection = self.connection().await?;
            redis::cmd("PING").exec_async(&mut connection).await
        })
        .await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        if let (Err(error), _) | (_, Err(error)) = (self.child.kill(), self.child.wait()) {
            eprintln!("redis-server: {error}");
        }
    }
}

/// `REDIS_SERVER`, else what the Makefile brought, else the one on the `PATH`.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("REDIS_SERVER") {
        return PathBuf::from(path);
    }
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/redis-server");
    if brought.is_file() { brought } else { PathBuf::from("redis-server") }
}

/// The process alone, not yet answering.
pub fn launch(dir: &Path) -> Child {
    let binary = binary();
    let mut command = Command::new(&binary);
    command
        .current_dir(dir)
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    // SAFETY: one system call that allocates nothing, between fork and exec.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                .map_err(io::Error::from)
        });
    }
    command.spawn().unwrap_or_else(|error| {
        panic!(
            "cannot start {}: {error}; these tests need a real Redis: install redis-server or set REDIS_SERVER=/path/to/redis-server",
            binary.display()
        )
    })
}
