//! Overshoot, counted at the upstream: many clients, two Envoys with two workers each, two gateways,
//! one Redis, several limits on each request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tidegate_tests::client;
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::gateway::{self, Gateway};
use tidegate_tests::redis::Redis;
use tidegate_tests::upstream::Upstream;

/// Refills so slowly that nothing comes back while the test runs.
const THREE: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "5s", "token": {"env": "TIDEGATE_TOKEN"}},
  "policies": [
    {"name": "api", "match": {"path": "/**"}, "on_unavailable": "deny",
     "rate_limits": [{"name": "client", "by": "ip", "limit": 500, "per": "day"},
                     {"name": "key", "by": {"header": "x-key", "trusted": true}, "limit": 300, "per": "day"}]},
    {"name": "writes", "match": {"path": "/writes/**"}, "on_unavailable": "deny",
     "rate_limits": [{"name": "client", "by": "ip", "limit": 100, "per": "day"}]}
  ]
}"#;
const CLIENTS: usize = 64;

struct Mesh {
    _redis: Redis,
    _gateways: [Gateway; 2],
    upstream: Upstream,
    envoys: [Envoy; 2],
}

async fn mesh(config: &str) -> Mesh {
    let redis = Redis::start().await;
    let roomy = ["--deadline", "4s", "--pool-wait", "3s", "--redis-response-timeout", "4s"];
    let options = gateway::Options::redis(&redis.url()).flags(&roomy);
    let gateways = [Gateway::start(&options).await, Gateway::start(&options).await];
    let upstream = Upstream::start().await;
    let envoy = async |gateway: &Gateway| {
        let options = Options { concurrency: 2, ..Options::new(gateway.addr, upstream.addr) };
        Envoy::start(&options.config(config)).await
    };
    let envoys = [envoy(&gateways[0]).await, envoy(&gateways[1]).await];
    Mesh { _redis: redis, _gateways: gateways, upstream, envoys }
}

impl Mesh {
    /// Every client sends `each` requests, by turns to both Envoys; gives how many were admitted,
    /// counted by the clients, and how many reached the upstream.
    async fn flood(&self, path: &'static str, key: &'static str, each: usize) -> (usize, usize) {
        let addresses: Arc<[SocketAddr]> = self.envoys.iter().map(|envoy| envoy.addr).collect();
        let before = self.upstream.seen();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let addresses = Arc::clone(&addresses);
                tokio::spawn(async move {
                    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 7, 7));
                    let key = format!("x-key: {key}\r\n");
                    let mut admitted = 0;
                    for turn in 0..each {
                        let to = addresses[(client + turn) % addresses.len()];
                        let answer = client::get_from(to, Some(from), path, &key).await;
                        assert!([200, 429].contains(&answer.status), "{answer:?}");
                        admitted += usize::from(answer.status == 200);
                    }
                    admitted
                })
            })
            .collect();
        let mut admitted = 0;
        for client in clients {
            admitted += client.await.expect("a client that ends");
        }
        (admitted, self.upstream.seen() - before)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_through_two_envoys_get_exactly_the_limit() {
    exactly(THREE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_through_two_envoys_get_exactly_a_window() {
    let windows = THREE.replace(r#""per": "day""#, r#""per": "day", "algorithm": "window""#);
    assert_eq!(windows.matches("window").count(), 3);
    exactly(&windows).await;
}

async fn exactly(config: &str) {
    let mesh = mesh(config).await;
    assert_eq!(mesh.flood("/writes/x", "a", 3).await, (100, 100), "the policy over writes");
    assert_eq!(mesh.flood("/x", "a", 5).await, (200, 200), "what is left of the key's 300");
    // What was denied above cost nothing: of the client's 500 exactly 200 are left.
    assert_eq!(mesh.flood("/x", "b", 5).await, (200, 200), "what is left of the client's 500");
    assert_eq!(mesh.flood("/x", "c", 1).await, (0, 0));
    for envoy in &mesh.envoys {
        let stats = envoy.stats().await;
        let sum = |name: &str| -> u64 {
            let lines = stats.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
        };
        let decided = sum("tidegate_decisions_total{policy=\"api\"");
        let calls = sum(
            "envoy_cluster_internal_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"tidegate\"",
        );
        assert!(0 < calls && calls < decided, "{calls} calls for {decided} requests: {stats}");
    }
}
