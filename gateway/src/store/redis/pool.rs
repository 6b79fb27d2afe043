//! Owns the connections to one server: which of them a call takes. Knows no keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{Cmd, RedisError, RedisResult, Value};

use super::link::{Link, LinkSettings, Live};
use super::{failure, script::Scripts};
use crate::store::StoreFailure;

/// Connections that share the calls to one server.
pub struct Pool {
    name: String,
    links: Vec<Link>,
    next: AtomicUsize,
}

// === impl Pool ===

impl Pool {
    /// Starts to connect in the background. Fails only if the address cannot be used at all.
    pub fn start(
        name: String,
        connections: usize,
        settings: &Arc<LinkSettings>,
    ) -> RedisResult<Self> {
        let links = (0..connections.max(1)).map(|slot| Link::start(slot, settings));
        Ok(Self { name, links: links.collect::<Result<_, _>>()?, next: AtomicUsize::new(0) })
    }

    /// The next connection that is up, in turn.
    pub fn pick(&self) -> Result<Live, StoreFailure> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.links.len();
        (0..count)
            .find_map(|step| self.links.get((start.wrapping_add(step)) % count)?.live())
            .ok_or_else(|| StoreFailure::Unreachable(format!("{}: no connection", self.name)))
    }

    /// How many connections are up, and how many there are.
    pub fn up(&self) -> (usize, usize) {
        let up = self.links.iter().filter(|link| link.live().is_some()).count();
        (up, self.links.len())
    }

    /// Asks over each connection until one answers.
    pub fn probe(&self) -> impl Future<Output = Result<(), StoreFailure>> + Send + 'static {
        let lives: Vec<Live> = self.links.iter().filter_map(Link::live).collect();
        let nothing = StoreFailure::Unreachable(format!("{}: no connection", self.name));
        async move {
            let mut last = Err(nothing);
            for mut live in lives {
                last = live.probe().await.map_err(|error| failure(&error));
                if last.is_ok() {
                    break;
                }
            }
            last
        }
    }
}

/// Runs a script. The one repetition is after NOSCRIPT, which says that nothing ran.
pub async fn evaluate(live: &mut Live, scripts: &Scripts, command: &Cmd) -> RedisResult<Value> {
    match live.send(command).await {
        Err(error) if is_no_script(&error) => {
            live.load(scripts).await?;
            live.send(command).await
        }
        answered => answered,
    }
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript)
}
