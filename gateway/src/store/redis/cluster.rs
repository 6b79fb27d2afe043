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
use tokio::task::JoinHandle;

use super::address::RedisAddress;
use super::failure;
use super::link::{LinkSettings, Live, Target};
use super::marks::{self, Marking};
use super::pool::{Pool, evaluate};
use super::script::Scripts;
use super::silence::Waiting;
use crate::store::StoreFailure;

const SLOTS: u16 = 16_384;
/// How often one call is sent elsewhere, or again, after an answer that says that nothing ran.
const REDIRECTS_MAX: usize = 5;
/// A slot that moves has its keys on two nodes for that long, about.
const TRY_AGAIN: Duration = Duration::from_millis(4);
/// Between two looks at the map while all is well, and while something is not.
const REFRESH_CALM: Duration = Duration::from_secs(5);
const REFRESH_HASTE: Duration = Duration::from_millis(250);
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
    ranges: Vec<(u16, u16, String)>,
    pools: BTreeMap<String, Arc<Pool>>,
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

    /// Runs a script on the node that serves the slot of `key`.
    pub async fn evaluate(
        &self,
        key: &str,
        command: &Cmd,
        scripts: &Scripts,
    ) -> Result<Value, StoreFailure> {
        Ok(self.follow_key(key, command, scripts, false).await?.1)
    }

    /// The same over the connection that is apart, with that connection.
    pub async fn evaluate_apart(
        &self,
        key: &str,
        command: &Cmd,
        scripts: &Scripts,
    ) -> Result<(Live, Value), StoreFailure> {
        self.follow_key(key, command, scripts, true).await
    }

    async fn follow_key(
        &self,
        key: &str,
        command: &Cmd,
        scripts: &Scripts,
        apart: bool,
    ) -> Result<(Live, Value), StoreFailure> {
        let slot = slot(key);
        let mut target = self.serving(slot)?;
        let mut asking = false;
        let mut last = StoreFailure::Unreachable("the slot did not come to rest".to_owned());
        for _ in 0..REDIRECTS_MAX {
            let node = Arc::clone(&target);
            // The connection that is apart may have to be waited for. Of the others one is up, or nothing is sent, and what
            // is not sent is not sent in vain.
            let behind = if apart { Some(node.enter(apart)?) } else { None };
            let picked = if apart { Box::pin(target.pick_apart()).await } else { target.pick() };
            let mut live = picked.inspect_err(|_| self.stale.notify_one())?;
            let waiting = behind.map_or_else(|| node.enter(apart), Ok)?;
            let answer = if asking {
                live.send_asking(command).await
            } else {
                evaluate(&mut live, scripts, command).await
            };
            let error = match answer {
                Ok(value) => {
                    self.heard(waiting);
                    return Ok((live, value));
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
                    target = self.pool(node)?;
                }
                (ServerErrorKind::Ask, Some((node, _))) => {
                    asking = true;
                    target = self.pool(node)?;
                }
                // Of a slot that moves: some of its keys are here and some are there.
                (ServerErrorKind::TryAgain, _) => {
                    self.link.clock.sleep(TRY_AGAIN).await;
                    asking = false;
                    target = self.serving(slot)?;
                }
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

    /// Sets marks, each on the node that serves it.
    pub async fn mark(&self, marking: Marking) -> Result<(), StoreFailure> {
        let mut by_node: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mark in self.marks.iter() {
            let node = self.node_of(slot(mark))?;
            by_node.entry(node).or_default().push(mark.clone());
        }
        for (node, marks) in by_node {
            let mut live = self.pool(&node)?.pick()?;
            let marked = marks::mark(&mut live, &marks.into(), marking).await;
            marked.map_err(|error| failure(&error))?;
        }
        Ok(())
    }

    /// Every master answers, and every slot has one.
    pub async fn probe(&self) -> Result<(), StoreFailure> {
        let (pools, covered) = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            let width = |(first, last, _): &(u16, u16, String)| u32::from(last - first) + 1;
            let covered: u32 = map.ranges.iter().map(width).sum();
            (map.pools.values().map(Arc::clone).collect::<Vec<_>>(), covered)
        };
        if covered < u32::from(SLOTS) {
            let text = format!("{covered} of {SLOTS} slots of the Cluster are served");
            return Err(StoreFailure::Unreachable(text));
        }
        for pool in pools {
            pool.pick()?.ping().await.map_err(|error| failure(&error))?;
        }
        Ok(())
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
        let link = Arc::new(self.link.leading_to(Target::Fixed(address)));
        let pool = Pool::start(node.to_owned(), self.connections, &link);
        pool.map(Arc::new).map_err(|error| failure(&error))
    }

    async fn follow(self: Arc<Self>) {
        let mut marked = tokio::time::Instant::now();
        let mut must_mark = true;
        loop {
            let known = self.refresh().await;
            must_mark |= known == Some(true);
            if must_mark || marked.elapsed() >= marks::INTERVAL {
                must_mark = self.mark(Marking::Missing).await.is_err();
                marked = tokio::time::Instant::now();
            }
            let calm = known.is_some() && !must_mark && self.all_up();
            let wait = if calm { REFRESH_CALM } else { REFRESH_HASTE };
            tokio::select! {
                () = self.link.clock.sleep(wait) => {}
                () = self.stale.notified() => {}
            }
        }
    }

    fn all_up(&self) -> bool {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        !map.ranges.is_empty() && map.pools.values().all(|pool| pool.up().0 > 0)
    }

    /// Asks one node after the other for the map; whether it changed, or nothing if nobody answers.
    async fn refresh(&self) -> Option<bool> {
        let known: Vec<Arc<Pool>> = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            map.pools.values().map(Arc::clone).collect()
        };
        let known = known.iter().map(Arc::as_ref).chain(&self.seeds);
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        for pool in known {
            let Ok(mut live) = pool.pick() else { continue };
            let Ok(reply) = live.send(&command).await else { continue };
            self.answered();
            let Some(ranges) = ranges(&reply, &self.pattern.host()) else { continue };
            return Some(self.adopt(ranges));
        }
        None
    }

    fn adopt(&self, ranges: Vec<(u16, u16, String)>) -> bool {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let changed = map.ranges != ranges;
        if changed {
            tracing::info!(ranges = ranges.len(), "the Cluster's slots are served by other nodes");
            map.pools.retain(|name, _| ranges.iter().any(|(_, _, node)| node == name));
            map.ranges = ranges;
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

/// A reply of CLUSTER SLOTS: first slot, last slot, then the master as host, port and more. A node
/// that does not know its own host is at the host that was asked.
fn ranges(reply: &Value, asked: &str) -> Option<Vec<(u16, u16, String)>> {
    let Value::Array(rows) = reply else { return None };
    let mut ranges = Vec::new();
    for row in rows {
        let Value::Array(row) = row else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = row.as_slice() else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host: Option<String> = redis::from_redis_value_ref(host).ok()?;
        let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.to_owned());
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        if first > last {
            return None;
        }
        ranges.push((first, last, format!("{host}:{port}")));
    }
    ranges.sort();
    Some(ranges)
}

/// CRC16 (XMODEM) of what stands in the first braces, or of all.
pub fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    let crc = tag.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // CLUSTER KEYSLOT of Redis 7 said so; the first is the example of its specification.
        let rows = [("123456789", 12_739), ("{user1000}.following", 3_443), ("foo{}{bar}", 8_363)];
        for (key, expected) in rows {
            assert_eq!(slot(key), expected, "{key}");
        }
        assert_eq!(slot("ratelimit:{here|a1}:start"), slot("settled:{here|a1}:x"));
    }

    #[test]
    fn a_map_is_read_or_refused() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port)]);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let row = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let good = Value::Array(vec![
            row(8_192, 16_383, node(text(""), 7)),
            row(0, 8_191, node(text("h"), 6)),
        ]);
        let expected = vec![(0, 8_191, "h:6".to_owned()), (8_192, 16_383, "me:7".to_owned())];
        assert_eq!(ranges(&good, "me"), Some(expected));
        for bad in [Value::Nil, Value::Array(vec![row(2, 1, node(text("h"), 6))])] {
            assert_eq!(ranges(&bad, "me"), None);
        }
    }
}
