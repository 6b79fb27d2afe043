//! Owns which node of a Redis Cluster serves a key: the map of slots, the connections to each master,
//! and following MOVED, ASK and TRYAGAIN. Knows no limits.
//!
//! Why not the crate's own client of Clusters: it repeats a call after an error of the connection,
//! and rl_check charges each time it runs; and its callers wait for reconnects. Here a call is
//! repeated only after an answer that says that nothing ran.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

mod every;
pub mod slots;

use self::slots::{SLOTS, SlotRange, slot};
use super::address::RedisAddress;
use super::failure;
use super::link::{LinkSettings, Live, Target};
use super::marks::{self, Marking};
use super::pool::{Pool, evaluate};
use super::runs::Guarded;
use super::script::Scripts;
use super::silence::{Manner, Waiting};
use super::vote;
use crate::store::StoreFailure;

/// How often one call is sent elsewhere, or again, after an answer that says that nothing ran.
const REDIRECTS_MAX: usize = 5;
/// A slot that moves has its keys on two nodes for that long, about.
const TRY_AGAIN: Duration = Duration::from_millis(4);
/// Between two looks at the map while all is well, and while something is not.
const REFRESH_CALM: Duration = Duration::from_secs(5);
const REFRESH_HASTE: Duration = Duration::from_millis(250);
/// Between two rounds over the marks of which the first failed at some node.
const MARK_AGAIN: Duration = Duration::from_secs(1);
/// A Cluster of which a node answered within that time is not gone: two looks at the map, of which one has to wait
/// for nodes that are silent.
const ANSWERS_US: u64 = 15_000_000;

/// The nodes.
pub struct Cluster {
    pattern: RedisAddress,
    connections: usize,
    link: Arc<LinkSettings>,
    marks: Arc<[String]>,
    seeds: Vec<Pool>,
    map: RwLock<Map>,
    /// When any node last answered.
    answered_us: AtomicU64,
    stale: Notify,
}

/// Which master serves which slots.
#[derive(Default)]
struct Map {
    /// First and last slot, and the node's name.
    ranges: Vec<SlotRange>,
    pools: BTreeMap<String, Arc<Pool>>,
    /// Per node the first of its slots, and a key of its own that the probe writes.
    probes: BTreeMap<String, (u16, String)>,
}

/// Follows the map for as long as the store lives.
pub struct Follower(JoinHandle<()>);

// === impl Follower ===

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts to connect in the background.
    pub fn start(
        nodes: &[RedisAddress],
        connections: usize,
        link: &Arc<LinkSettings>,
        marks: Arc<[String]>,
    ) -> RedisResult<(Arc<Self>, Follower)> {
        let Some(pattern) = nodes.first() else {
            return Err(RedisError::from((ErrorKind::InvalidClientConfig, "no node is named")));
        };
        let seeds = nodes.iter().map(|node| {
            let at = Arc::new(link.leading_to(Target::Fixed(node.clone())));
            Pool::start(node.to_string(), 1, &at)
        });
        let cluster = Arc::new(Self {
            pattern: pattern.clone(),
            connections,
            link: Arc::clone(link),
            marks,
            seeds: seeds.collect::<Result<_, _>>()?,
            map: RwLock::default(),
            answered_us: AtomicU64::new(0),
            stale: Notify::new(),
        });
        let follower = tokio::spawn(Arc::clone(&cluster).follow());
        Ok((cluster, Follower(follower)))
    }

    /// Runs a script on the node that serves the slot of `key`. Whoever stands behind others that wait for replicas does
    /// so over the connection apart. Gives the connection as well.
    pub async fn evaluate(
        &self,
        key: &str,
        command: &Cmd,
        scripts: &Scripts,
        manner: Manner,
    ) -> Result<(Live, Value), StoreFailure> {
        for _ in 0..REDIRECTS_MAX {
            if let Some(ran) = self.evaluate_whole(key, command, scripts, manner).await? {
                return Ok(ran);
            }
            self.link.clock.sleep(TRY_AGAIN).await;
        }
        Err(at_rest_no_more())
    }

    /// The same; none, and nothing ran, if the slot moves and the keys of the command lie on two nodes now, or some of
    /// them nowhere yet.
    pub async fn evaluate_whole(
        &self,
        key: &str,
        command: &Cmd,
        scripts: &Scripts,
        manner: Manner,
    ) -> Result<Option<(Live, Value)>, StoreFailure> {
        let slot = slot(key);
        let mut target = self.serving(slot)?;
        let mut asking = false;
        let mut last = at_rest_no_more();
        for _ in 0..REDIRECTS_MAX {
            let node = Arc::clone(&target);
            // The connection that is apart may have to be waited for, and the first one to a node that was just heard of. Of
            // the others one is up, or nothing is sent, and what is not sent is not sent in vain.
            let (picked, waiting) = match manner {
                Manner::Behind(replicas) => {
                    let behind = node.enter(manner)?;
                    (Box::pin(target.pick_apart(replicas)).await, Some(behind))
                }
                Manner::Alone | Manner::OneOf(_) => match target.pick() {
                    Err(_unconnected) if target.is_opening() => {
                        let waiting = node.enter(manner)?;
                        (Box::pin(target.pick_opening()).await, Some(waiting))
                    }
                    picked => (picked, None),
                },
            };
            let mut live = picked.inspect_err(|_| self.stale.notify_one())?;
            let waiting = waiting.map_or_else(|| node.enter(manner), Ok)?;
            let answer = if asking {
                live.send_asking(command).await
            } else {
                evaluate(&mut live, scripts, command).await
            };
            let error = match answer {
                Ok(value) => {
                    self.heard(waiting);
                    return Ok(Some((live, value)));
                }
                Err(error) => error,
            };
            if matches!(error.kind(), ErrorKind::Server(_)) {
                self.heard(waiting);
            }
            last = failure(&error);
            let ErrorKind::Server(kind) = error.kind() else { break };
            match (kind, error.redirect_node()) {
                (ServerErrorKind::Moved, Some((node, _))) => {
                    self.stale.notify_one();
                    asking = false;
                    target = self.pool(&self.named(node, &live))?;
                }
                (ServerErrorKind::Ask, Some((node, _))) => {
                    asking = true;
                    target = self.pool(&self.named(node, &live))?;
                }
                (ServerErrorKind::TryAgain, _) => return Ok(None),
                (ServerErrorKind::NoScript, _) if asking => {
                    live.load(scripts).await.map_err(|e| failure(&e))?
                }
                (ServerErrorKind::ClusterDown | ServerErrorKind::ReadOnly, _) => {
                    self.stale.notify_one();
                    break;
                }
                _ => break,
            }
        }
        Err(last)
    }

    /// The node of a redirect. One that is named without a host is at the host that was asked.
    fn named(&self, node: &str, asked: &Live) -> String {
        match node.rsplit_once(':') {
            Some(("", port)) => format!("{}:{port}", self.host(asked)),
            _ => node.to_owned(),
        }
    }

    fn host(&self, live: &Live) -> String {
        match live.target() {
            Target::Fixed(node) => node.host(),
            Target::Master(_) => self.pattern.host(),
        }
    }

    fn heard(&self, waiting: Waiting<'_>) {
        waiting.heard();
        self.answered();
    }

    fn answered(&self) {
        self.answered_us.store(self.link.clock.elapsed_us().max(1), Ordering::Relaxed);
    }

    /// Whether any node has answered lately.
    pub fn answers(&self) -> bool {
        let answered_us = self.answered_us.load(Ordering::Relaxed);
        answered_us > 0 && self.link.clock.elapsed_us().saturating_sub(answered_us) < ANSWERS_US
    }

    /// How many connections are up, and how many there are, of all nodes together.
    pub fn connections(&self) -> (usize, usize) {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let each = map.pools.values().map(|pool| pool.up());
        each.fold((0, 0), |(up, all), (more_up, more)| (up + more_up, all + more))
    }

    /// What the status says.
    pub fn describe(&self) -> String {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let nodes = map.pools.iter().map(|(name, pool)| {
            let (up, all) = pool.up();
            format!("{name} {up} of {all}")
        });
        format!("Cluster, connections up: {}", nodes.collect::<Vec<_>>().join(", "))
    }

    fn node_of(&self, slot: u16) -> Result<String, StoreFailure> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let serving = map.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        serving.map(|(_, _, node)| node.clone()).ok_or_else(|| {
            self.stale.notify_one();
            StoreFailure::Unreachable(format!("no known node of the Cluster serves slot {slot}"))
        })
    }

    /// The number of the memory of the node that serves the slot of `key`; `None` while none is known.
    pub fn memory(&self, key: &str) -> Option<u64> {
        let node = self.node_of(slot(key)).ok()?;
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.pools.get(&node)?.memory()
    }

    fn serving(&self, slot: u16) -> Result<Arc<Pool>, StoreFailure> {
        self.pool(&self.node_of(slot)?)
    }

    /// The connections to a node, opened if it is new.
    fn pool(&self, node: &str) -> Result<Arc<Pool>, StoreFailure> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = map.pools.get(node) {
            return Ok(Arc::clone(pool));
        }
        let pool = self.open(node)?;
        map.pools.insert(node.to_owned(), Arc::clone(&pool));
        Ok(pool)
    }

    fn open(&self, node: &str) -> Result<Arc<Pool>, StoreFailure> {
        let unusable = || StoreFailure::Garbled(format!("{node:?} is no node of a Cluster"));
        let (host, port) = node.rsplit_once(':').ok_or_else(unusable)?;
        let port = port.parse().map_err(|_not_a_port| unusable())?;
        let address = self.pattern.at(host, port);
        // Which of the marks lie there the server itself says.
        let guarded = Guarded { marks: Arc::clone(&self.marks), node: node.to_owned() };
        let link = LinkSettings { guarded, ..self.link.leading_to(Target::Fixed(address)) };
        let pool = Pool::start(node.to_owned(), self.connections, &Arc::new(link));
        pool.map(Arc::new).map_err(|error| failure(&error))
    }

    async fn follow(self: Arc<Self>) {
        let mut round = self.link.clock.sleep(marks::INTERVAL);
        let (mut due, mut failed) = (false, false);
        loop {
            let known = self.refresh().await;
            if due || known == Some(true) {
                failed = self.mark(Marking::Missing).await.is_err();
                let pause = if failed { MARK_AGAIN } else { marks::INTERVAL };
                (due, round) = (false, self.link.clock.sleep(pause));
            }
            let calm = known.is_some() && !failed && self.all_up();
            let wait = if calm { REFRESH_CALM } else { REFRESH_HASTE };
            tokio::select! {
                () = self.link.clock.sleep(wait) => {}
                () = self.stale.notified() => {}
                () = &mut round => due = true,
            }
        }
    }

    fn all_up(&self) -> bool {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        !map.ranges.is_empty() && map.pools.values().all(|pool| pool.pick().is_ok())
    }

    /// Asks the nodes for the map; whether it changed, or nothing if nobody has one. One node alone is not believed: cut
    /// off from the others it goes on telling the map that was, and one that lost its memory has none.
    async fn refresh(&self) -> Option<bool> {
        let (known, in_force) = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            let up = map.pools.values().filter_map(|pool| pool.pick().ok());
            (up.collect::<Vec<_>>(), map.ranges.clone())
        };
        let asked = known.len();
        let mut told = self.ask(known).await;
        if vote::settled(&told, asked).is_none() {
            told.extend(
                self.ask(self.seeds.iter().filter_map(|pool| pool.pick().ok()).collect()).await,
            );
        }
        let rank = |map: &Vec<SlotRange>| (slots::served(map), *map == in_force);
        let ranges = vote::elected(&told, rank)?.clone();
        Some(self.adopt(ranges))
    }

    /// What these say of who serves which slots, until more than half of them agree. No map is without slots.
    async fn ask(&self, lives: Vec<Live>) -> Vec<Vec<SlotRange>> {
        let (asked, mut asking) = (lives.len(), JoinSet::new());
        for mut live in lives {
            let host = self.host(&live);
            asking.spawn(async move {
                let mut command = redis::cmd("CLUSTER");
                command.arg("SLOTS");
                (host, live.send(&command).await)
            });
        }
        let mut told = Vec::new();
        while let Some(reply) = asking.join_next().await {
            let Ok((host, Ok(reply))) = reply else { continue };
            self.answered();
            let ranges = slots::ranges(&reply, &host);
            told.extend(ranges.filter(|ranges| !ranges.is_empty()));
            if vote::settled(&told, asked).is_some() {
                break;
            }
        }
        told
    }

    fn adopt(&self, ranges: Vec<SlotRange>) -> bool {
        let known = |map: &Map| map.ranges == ranges;
        let changed = !known(&self.map.read().unwrap_or_else(PoisonError::into_inner));
        // Outside the lock: for a node of few slots it takes a while.
        let probes = if changed { slots::probes(&ranges) } else { BTreeMap::new() };
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if changed {
            tracing::info!(ranges = ranges.len(), "the Cluster's slots are served by other nodes");
            map.pools.retain(|name, _| ranges.iter().any(|(_, _, node)| node == name));
            (map.ranges, map.probes) = (ranges, probes);
        }
        let missing: Vec<String> = map
            .ranges
            .iter()
            .map(|(_, _, node)| node.clone())
            .filter(|node| !map.pools.contains_key(node))
            .collect();
        for node in missing {
            match self.open(&node) {
                Ok(pool) => drop(map.pools.insert(node, pool)),
                Err(error) => tracing::warn!(node, %error, "a node of the Cluster cannot be used"),
            }
        }
        changed
    }
}

fn at_rest_no_more() -> StoreFailure {
    StoreFailure::Unreachable("the slot did not come to rest".to_owned())
}
