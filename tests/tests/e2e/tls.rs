//! TLS between a real Envoy and the gateway: with the right certificate a verdict, without it a
//! reason, and nothing that passes in silence.

use std::time::Duration;

use tempfile::TempDir;
use tidegate_tests::certificates::{Authority, Files};
use tidegate_tests::client;
use tidegate_tests::envoy::{Envoy, GatewayTls, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::upstream::Upstream;

const TWO: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "policies": [
    {"name": "api", "match": {"path": "/api/**"},
     "rate_limits": [{"name": "per-client", "by": "ip", "limit": 2, "per": "hour"}],
     "on_unavailable": "deny"}
  ]
}"#;

/// A gateway whose clients need a certificate, and what a client of it may hold.
struct Mutual {
    dir: TempDir,
    authority: Authority,
    gateway: Gateway,
    upstream: Upstream,
}

async fn mutual() -> Mutual {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let own = authority.sign().write(dir.path(), "gateway");
    let ca = authority.write(dir.path(), "ca.crt");
    let text = |path: &std::path::Path| path.display().to_string();
    let (certificate, key, ca) = (text(&own.certificate), text(&own.key), text(&ca));
    let flags = ["--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &ca];
    let options = gateway::Options::memory().flags(&flags);
    let gateway = Gateway::start(&options.flags(&ROOMY)).await;
    Mutual { dir, authority, gateway, upstream: Upstream::start().await }
}

impl Mutual {
    fn envoy(&self, tls: Option<GatewayTls>) -> Options {
        let plain = Options::new(self.gateway.addr, self.upstream.addr);
        Options { gateway_tls: tls, ..plain }.config(TWO)
    }

    fn tls(&self, own: Option<Files>) -> Option<GatewayTls> {
        Some(GatewayTls { ca: self.dir.path().join("ca.crt"), own })
    }

    async fn handshake_failures(&self, cause: &str) -> String {
        let metrics = self.gateway.admin("/metrics").await.body;
        let name = format!("tidegate_gateway_tls_handshake_failures_total{{cause=\"{cause}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("none").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_with_its_certificate_gets_verdicts() {
    let mutual = mutual().await;
    let own = mutual.authority.sign().write(mutual.dir.path(), "envoy");
    for gateway_http2 in [true, false] {
        let tls = mutual.tls(Some(own.clone()));
        let envoy = Envoy::start(&Options { gateway_http2, ..mutual.envoy(tls) }).await;
        let local = if gateway_http2 { [127, 0, 0, 2] } else { [127, 0, 0, 3] };
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let answer = client::get_from(envoy.addr, Some(local.into()), "/api/x", "").await;
            statuses.push(answer.status);
        }
        assert_eq!(statuses, [200, 200, 429], "{} {}", envoy.output(), mutual.gateway.output());
    }
    assert_eq!(mutual.handshake_failures("client_certificate").await, "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_is_not_let_in_admits_nothing() {
    let mutual = mutual().await;
    let foreign = Authority::new().sign().write(mutual.dir.path(), "foreign");
    let cases = [
        ("no certificate", mutual.tls(None), "client_certificate"),
        ("a foreign CA's", mutual.tls(Some(foreign)), "client_certificate"),
        ("no TLS", None, "no_tls"),
    ];
    for (what, tls, cause) in cases {
        let envoy = Envoy::start(&mutual.envoy(tls)).await;
        let answer = client::get(envoy.addr, "/api/x").await;
        assert_eq!(answer.status, 503, "{what}: {answer:?}");
        assert_eq!(answer.header("x-tidegate-reply"), Some("policy-store-unavailable"), "{what}");
        let reason = "tidegate_unavailable_total{reason=\"callout-unmarked\"}";
        assert_eq!(envoy.metric(reason).await, 1, "{what}: {}", envoy.metrics().await);
        // The gateway may count it after Envoy has answered.
        eventually(Duration::from_secs(60), what, async || {
            match mutual.handshake_failures(cause).await.as_str() {
                "none" => Err(mutual.gateway.output()),
                _count => Ok(()),
            }
        })
        .await;
    }
    assert_eq!(mutual.upstream.seen(), 0);
}

/// Envoy's side of the same rule: a gateway that cannot prove who it is is not asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_a_foreign_ca_is_not_believed() {
    let mutual = mutual().await;
    let own = mutual.authority.sign().write(mutual.dir.path(), "envoy");
    let ca = Authority::new().write(mutual.dir.path(), "other-ca.crt");
    let envoy = Envoy::start(&mutual.envoy(Some(GatewayTls { ca, own: Some(own) }))).await;
    assert_eq!(client::get(envoy.addr, "/api/x").await.status, 503);
    // The gateway hears of it after Envoy has answered.
    eventually(Duration::from_secs(60), "the refusal is counted", async || {
        let counted = mutual.handshake_failures("refused").await;
        if counted == "1" { Ok(()) } else { Err(counted) }
    })
    .await;
}
