//! Owns the servers behind a store, whichever kind they are: one with all keys, or a Cluster. Knows
//! no limits.

use std::sync::Arc;

use redis::{Cmd, RedisError, Value};

use super::cluster::{Cluster, Follower};
use super::link::{LinkSettings, Live, Target};
use super::marks::{self, Marking};
use super::place::Place;
use super::pool::{Pool, evaluate};
use super::runs::{self, Guarded};
use super::script::Scripts;
use super::silence::{Manner, Message};
use super::{RedisSettings, failure};
use crate::clock::Clock;
use crate::cores::Cores;
use crate::store::{StoreCounters, StoreFailure, keys};

/// The servers.
#[derive(Clone)]
pub enum Servers {
    /// All keys lie on one server.
    One {
        /// What it is called.
        name: String,
        /// The connections to it.
        pool: Arc<Pool>,
        /// The marks that lie there.
        marks: Arc<[String]>,
    },
    /// Keys lie where their slots are served; and the message that asks, if it has many calls.
    Many(Arc<Cluster>, Option<Message>),
}

// === impl Servers ===

impl Servers {
    /// Starts to connect in the background.
    pub fn start(
        settings: &RedisSettings,
        scripts: &Arc<Scripts>,
        cores: &Arc<Cores>,
        clock: &Arc<dyn Clock>,
        counters: StoreCounters,
    ) -> Result<(Self, Option<Follower>), RedisError> {
        let (place, marks) = (&settings.place, settings.region.marks());
        let link = |target, marks: &Arc<[String]>| {
            let guarded = Guarded { marks: Arc::clone(marks), node: String::new() };
            Arc::new(LinkSettings {
                target,
                tls: settings.tls.clone(),
                response_timeout: settings.response_timeout,
                pipeline_len_max: settings.pipeline_len_max,
                scripts: Arc::clone(scripts),
                marks: Arc::clone(marks),
                guarded,
                said: Arc::default(),
                cores: Arc::clone(cores),
                clock: Arc::clone(clock),
                counters,
            })
        };
        let target = match place {
            Place::Single(address) => Target::Fixed(address.clone()),
            Place::Sentinel(sentinels) => Target::Master(sentinels.clone()),
            Place::Cluster(nodes) => {
                let Some(first) = nodes.first() else {
                    let what = (redis::ErrorKind::InvalidClientConfig, "no node is named");
                    return Err(RedisError::from(what));
                };
                // Each node holds some of the marks; which ones, the Cluster knows.
                let link = link(Target::Fixed(first.clone()), &Arc::default());
                let (cluster, follower) =
                    Cluster::start(nodes, settings.connections, &link, marks)?;
                return Ok((Self::Many(cluster, None), Some(follower)));
            }
        };
        let name = place.to_string();
        let pool = Pool::start(name.clone(), settings.connections, &link(target, &marks))?;
        Ok((Self::One { name, pool: Arc::new(pool), marks }, None))
    }

    /// Whether one call may name keys of several shards.
    pub fn one_call_reaches_all(&self) -> bool {
        matches!(self, Self::One { .. })
    }

    /// The same for the calls of one message, whose calls count as one; `None` where nothing counts them.
    pub fn for_one_message(&self) -> Option<Self> {
        match self {
            Self::One { .. } => None,
            Self::Many(cluster, _) => Some(Self::Many(Arc::clone(cluster), Some(Message::new()))),
        }
    }

    /// Whether they are several, of which at least one has answered lately.
    pub fn answers_elsewhere(&self) -> bool {
        match self {
            Self::One { .. } => false,
            Self::Many(cluster, _) => cluster.answers(),
        }
    }

    /// Runs a script where `key` lies.
    pub async fn evaluate(
        &self,
        key: &str,
        command: &Cmd,
        scripts: &Scripts,
    ) -> Result<Value, StoreFailure> {
        match self {
            Self::One { pool, .. } => {
                let answer = evaluate(&mut pool.pick()?, scripts, command).await;
                answer.map_err(|error| failure(&error))
            }
            Self::Many(cluster, message) => {
                let manner = message.map_or(Manner::Alone, Manner::OneOf);
                Box::pin(cluster.evaluate(key, command, scripts, manner))
                    .await
                    .map(|(_, said)| said)
            }
        }
    }

    /// The same for a script of several keys; none, and nothing ran, if their slot moves and they are not all on one node
    /// now. A key by itself always is.
    pub async fn evaluate_whole(
        &self,
        key: &str,
        command: &Cmd,
        scripts: &Scripts,
    ) -> Result<Option<Value>, StoreFailure> {
        match self {
            Self::One { .. } => self.evaluate(key, command, scripts).await.map(Some),
            Self::Many(cluster, message) => {
                let manner = message.map_or(Manner::Alone, Manner::OneOf);
                let ran = Box::pin(cluster.evaluate_whole(key, command, scripts, manner)).await?;
                Ok(ran.map(|(_, said)| said))
            }
        }
    }

    /// Runs a script where `key` lies, over the connection apart for those who wait for so many replicas, and gives
    /// that as well.
    pub async fn evaluate_apart(
        &self,
        key: &str,
        command: &Cmd,
        scripts: &Scripts,
        replicas: u8,
    ) -> Result<(Live, Value), StoreFailure> {
        match self {
            Self::One { pool, .. } => {
                let mut live = pool.pick_apart(replicas).await?;
                let answer = evaluate(&mut live, scripts, command).await;
                answer.map(|answer| (live, answer)).map_err(|error| failure(&error))
            }
            Self::Many(cluster, _) => {
                Box::pin(cluster.evaluate(key, command, scripts, Manner::Behind(replicas))).await
            }
        }
    }

    /// Sets the region's marks.
    pub async fn mark(&self, marking: Marking) -> Result<(), StoreFailure> {
        match self {
            Self::One { pool, marks, .. } => {
                let mut live = pool.pick()?;
                if marking == Marking::Missing {
                    runs::renew(&mut live, marks).await.map_err(|error| failure(&error))?;
                }
                let marked = marks::mark(&mut live, marks, marking).await;
                marked.map_err(|error| failure(&error))
            }
            Self::Many(cluster, _) => cluster.mark(marking).await,
        }
    }

    /// Sets missing marks, if there are any, and looks at the server from time to time; a Cluster does that as it
    /// follows its map.
    pub async fn keep_marked(self, clock: Arc<dyn Clock>) {
        while self.one_call_reaches_all() {
            clock.sleep(marks::INTERVAL).await;
            // Without a connection there is nothing to do: each new one sets the marks itself.
            if let Err(error) = self.mark(Marking::Missing).await {
                tracing::warn!(%error, "the region's marks could not be set; trying again soon");
            }
        }
    }

    /// The number of the memory in which `key` lies; `None` while no server of it is known.
    pub fn memory(&self, key: &str) -> Option<u64> {
        match self {
            Self::One { pool, .. } => pool.memory(),
            Self::Many(cluster, _) => cluster.memory(key),
        }
    }

    /// Whether decisions can be made.
    pub async fn probe(&self) -> Result<(), StoreFailure> {
        match self {
            Self::One { pool, .. } => {
                pool.probe(keys::PROBE).await?.map_err(|error| failure(&error))
            }
            Self::Many(cluster, _) => cluster.probe().await,
        }
    }

    /// How many connections are up, and how many there are.
    pub fn connections(&self) -> (usize, usize) {
        match self {
            Self::One { pool, .. } => pool.up(),
            Self::Many(cluster, _) => cluster.connections(),
        }
    }

    /// What the status says.
    pub fn describe(&self) -> String {
        match self {
            Self::One { name, pool, .. } => {
                let (up, all) = pool.up();
                format!("{name}, {up} of {all} connections up")
            }
            Self::Many(cluster, _) => cluster.describe(),
        }
    }
}
