//! Owns a real Redis Cluster of a test's own: three masters, each with a replica.

use std::time::Duration;

use super::{CLUSTER_PORT, Redis, Tls, free_port};
use crate::eventually;

const FORMED_WITHIN: Duration = Duration::from_secs(60);
/// So long, in ms, a new master waits until it serves; nobody takes its place yet.
const FORMING_MS: &str = "1000";
/// A node that says nothing for so long, in ms, is taken for dead, and its replica takes over: longer than a machine that
/// is busy elsewhere lets one stand still.
const PATIENT_MS: &str = "15000";
/// The same where a test waits for that.
const HASTY_MS: &str = "1000";
const MASTERS: usize = 3;
const SLOTS: u16 = 16_384;

/// Six servers that know each other. The first three start as masters.
#[derive(Debug)]
pub struct RedisCluster {
    /// The nodes; a replica is three places behind its master.
    pub nodes: Vec<Redis>,
    tls: bool,
}

// === impl RedisCluster ===

impl RedisCluster {
    /// Starts one and waits until all slots are served and every master has its replica.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same, and every connection under TLS if they are told how.
    pub async fn start_with(tls: Option<&Tls>) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..2 * MASTERS {
            let words = [
                "--cluster-enabled yes --cluster-node-timeout",
                FORMING_MS,
                CLUSTER_PORT,
                &free_port().to_string(),
                if tls.is_some() { "--tls-cluster yes" } else { "" },
            ]
            .join(" ");
            let words: Vec<&str> = words.split_whitespace().collect();
            nodes.push(Redis::start_with_words(tls, &words).await);
        }
        let cluster = Self { nodes, tls: tls.is_some() };
        for (index, node) in cluster.nodes.iter().enumerate() {
            let epoch = (index + 1).to_string();
            node.expect_ok(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        }
        for node in &cluster.nodes {
            let (port, bus) = (node.tcp_port().to_string(), node.port_of(CLUSTER_PORT));
            cluster.nodes[0].expect_ok(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
        for index in 0..MASTERS {
            let share = SLOTS / 3;
            let place = u16::try_from(index).expect("small");
            let first = (place * share).to_string();
            let last = if index + 1 == MASTERS { SLOTS - 1 } else { (place + 1) * share - 1 };
            let words = ["CLUSTER", "ADDSLOTSRANGE", &first, &last.to_string()];
            cluster.nodes[index].expect_ok(&words).await;
        }
        for master in &cluster.nodes[..MASTERS] {
            eventually(FORMED_WITHIN, "a master serves", async || {
                let state = master.command(&["CLUSTER", "INFO"]).await;
                if state.contains("cluster_state:ok") { Ok(()) } else { Err(state) }
            })
            .await;
        }
        cluster.node_timeout(PATIENT_MS).await;
        for index in 0..MASTERS {
            let id = cluster.id(index).await;
            let replica = &cluster.nodes[index + MASTERS];
            eventually(FORMED_WITHIN, "a replica knows its master", async || {
                let reply = replica.command(&["CLUSTER", "REPLICATE", &id]).await;
                if reply.starts_with("+OK") { Ok(()) } else { Err(reply) }
            })
            .await;
        }
        cluster.whole().await;
        cluster
    }

    /// From now on a replica takes over from a master that says nothing for a second, and not for 15.
    pub async fn fails_over_soon(&self) {
        self.node_timeout(HASTY_MS).await;
    }

    async fn node_timeout(&self, timeout_ms: &str) {
        for node in &self.nodes {
            node.expect_ok(&["CONFIG", "SET", "cluster-node-timeout", timeout_ms]).await;
        }
    }

    /// Waits until every slot is served by a master with a replica that follows it.
    pub async fn whole(&self) {
        for node in &self.nodes {
            eventually(FORMED_WITHIN, "the Cluster is whole", async || {
                let state = node.command(&["CLUSTER", "INFO"]).await;
                let links = node.command(&["INFO", "replication"]).await;
                let known =
                    state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:6");
                let linked =
                    links.contains("master_link_status:up") || links.contains("state=online");
                if known && linked { Ok(()) } else { Err((state, links)) }
            })
            .await;
        }
    }

    /// Its URL for the gateway, by all of its nodes.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// The same for a user, written `user:password@`.
    pub fn url_as(&self, user: &str) -> String {
        let scheme = if self.tls { "rediss-cluster" } else { "redis-cluster" };
        let nodes = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.tcp_port()));
        format!("{scheme}://{user}{}", nodes.collect::<Vec<_>>().join(","))
    }

    /// Makes a replica a master that serves nothing, and waits until all others know it for one.
    pub async fn spare(&self, replica: usize) {
        let node = &self.nodes[replica];
        // It would follow whoever takes its last slot.
        node.expect_ok(&["CONFIG", "SET", "cluster-allow-replica-migration", "no"]).await;
        node.expect_ok(&["CLUSTER", "RESET"]).await;
        let (port, bus) = (node.tcp_port().to_string(), node.port_of(CLUSTER_PORT));
        self.nodes[0].expect_ok(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        let id = self.id(replica).await;
        for other in &self.nodes {
            eventually(FORMED_WITHIN, "the spare master is known", async || {
                let (known, knows) = (
                    other.command(&["CLUSTER", "NODES"]).await,
                    node.command(&["CLUSTER", "INFO"]).await,
                );
                let is_master = known.lines().any(|line| {
                    line.starts_with(&id) && line.contains("master") && line.contains(" connected")
                });
                if is_master && knows.contains("cluster_state:ok") {
                    Ok(())
                } else {
                    Err((known, knows))
                }
            })
            .await;
        }
    }

    /// A node's id.
    pub async fn id(&self, node: usize) -> String {
        let reply = self.nodes[node].command(&["CLUSTER", "MYID"]).await;
        reply.lines().nth(1).expect("an id").to_owned()
    }

    /// Which of the nodes serves a key as a master; asked of a node that lives.
    pub async fn serving(&self, key: &str) -> usize {
        for (index, node) in self.nodes.iter().enumerate() {
            let reply = node.try_command(&["GET", key]).await;
            if reply.is_ok_and(|reply| reply.starts_with('$')) {
                return index;
            }
        }
        panic!("no node serves {key}")
    }

    /// Moves the slot of a key to another master: its keys one by one, while both serve it.
    pub async fn move_slot(&self, key: &str, to: usize) {
        let (slot, from) = self.begin_move(key, to).await;
        self.end_move(&slot, from, to).await;
    }

    /// Moves the keys of a key's slot, and not yet the slot itself; gives the slot and who serves it.
    pub async fn begin_move(&self, key: &str, to: usize) -> (String, usize) {
        let (slot, from) = self.announce_move(key, to).await;
        self.migrate_rest(&slot, from, to).await;
        (slot, from)
    }

    /// Moves all keys that a slot still has here.
    pub async fn migrate_rest(&self, slot: &str, from: usize, to: usize) {
        loop {
            let keys = self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", slot, "1"]).await;
            let Some(key) = keys.lines().nth(2) else { break };
            self.migrate(key, from, to).await;
        }
    }

    /// Lets both masters serve the slot of a key, of which all keys are still where they were.
    pub async fn announce_move(&self, key: &str, to: usize) -> (String, usize) {
        let from = self.serving(key).await;
        let reply = self.nodes[from].command(&["CLUSTER", "KEYSLOT", key]).await;
        let slot = reply.trim().trim_start_matches(':').to_owned();
        let (from_id, to_id) = (self.id(from).await, self.id(to).await);
        self.nodes[to].expect_ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        self.nodes[from].expect_ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        (slot, from)
    }

    /// Moves one key of a slot that is on its way.
    pub async fn migrate(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].tcp_port().to_string();
        let reply =
            self.nodes[from].command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
        assert!(reply.starts_with("+OK") || reply.starts_with("+NOKEY"), "{reply}");
    }

    /// Ends a move: both masters say who serves the slot now.
    pub async fn end_move(&self, slot: &str, from: usize, to: usize) {
        let to_id = self.id(to).await;
        let words = ["CLUSTER", "SETSLOT", slot, "NODE", &to_id];
        self.nodes[to].expect_ok(&words).await;
        // A master whose last slot it was may have heard of it by now, and follows the new one.
        let reply = self.nodes[from].command(&words).await;
        assert!(reply.starts_with("+OK") || reply.contains("only with masters"), "{reply}");
    }
}

// === impl Redis ===

impl Redis {
    async fn expect_ok(&self, words: &[&str]) {
        let reply = self.command(words).await;
        assert!(reply.starts_with("+OK"), "{words:?}: {reply}");
    }
}
