//! Identities, tenants and routes as a real Envoy tells of them: each with the example in `envoy/`
//! that shows how it reaches the filter.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tidegate_policy::identity::Subject;
use tidegate_policy::scope::Tenant;
use tidegate_policy::wire::Verdict;
use tidegate_tests::certificates::{Authority, Pair};
use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::redis::Redis;
use tidegate_tests::scripted::{Script, Scripted};
use tidegate_tests::upstream::Upstream;
use tokio_rustls::TlsConnector;

const KEY: &str = "0123456789abcdef0123456789abcdef";

struct Bench {
    gateway: Scripted,
    upstream: Upstream,
    envoy: Envoy,
}

/// An Envoy with an example of `envoy/`, which a test may change where it names files.
async fn bench(example: &str, adapt: impl FnOnce(&mut Options)) -> Bench {
    let gateway = Scripted::start(true, Script::Verdict(Verdict::Allow)).await;
    let upstream = Upstream::start().await;
    let mut options = Options::new(gateway.addr, upstream.addr).example(example);
    // Nothing here is about time.
    let config = options.config.take().expect("the example's").replace("\"45ms\"", "\"5s\"");
    options.config = Some(config);
    adapt(&mut options);
    let envoy = Envoy::start(&options).await;
    let output = envoy.output();
    assert!(!output.contains("tidegate: warning"), "an example teaches no mistake: {output}");
    Bench { gateway, upstream, envoy }
}

impl Bench {
    async fn get(&self, path: &str, headers: &str) -> Answer {
        client::get_from(self.envoy.addr, None, path, headers).await
    }

    /// The subjects of the last message as `kind:name`, and its tenant.
    fn asked(&self) -> (Vec<String>, Option<String>) {
        let message = self.gateway.last();
        let tenant = match message.scope.tenant {
            Tenant::Named(name) => Some(name.to_string()),
            Tenant::None => None,
        };
        (message.limits.iter().map(|limit| shown(&limit.subject)).collect(), tenant)
    }

    fn asked_ids(&self) -> Vec<String> {
        self.gateway.last().limits.into_iter().map(|limit| limit.id).collect()
    }
}

fn shown(subject: &Subject) -> String {
    format!("{}:{}", subject.kind.as_str(), subject.name.as_str())
}

fn mac(text: &str) -> Vec<u8> {
    let key = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("any length");
    key.chain_update(text).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 in the alphabet of URLs, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

fn token(claims: &Value) -> String {
    let mut all = json!({ "iss": "https://issuer.example.com", "aud": "api.example.com", "exp": 4_102_444_800u64 });
    for (name, value) in claims.as_object().expect("claims") {
        all[name] = value.clone();
    }
    let signed = format!(
        "{}.{}",
        base64url(br#"{"alg":"HS256","kid":"k","typ":"JWT"}"#),
        base64url(all.to_string().as_bytes())
    );
    format!("{signed}.{}", base64url(&mac(&signed)))
}

fn bearer(claims: &Value) -> String {
    format!("authorization: Bearer {}\r\n", token(claims))
}

async fn with_tokens() -> (Bench, TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("jwks.json");
    let key = base64url(KEY.as_bytes());
    let keys = json!({ "keys": [{ "kty": "oct", "alg": "HS256", "kid": "k", "k": key }] });
    std::fs::write(&path, keys.to_string()).expect("a writable folder");
    let bench = bench("jwt", |options| {
        *options.part("/http_filters/0/typed_config/providers/main/local_jwks/filename") =
            json!(path);
    })
    .await;
    (bench, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_a_verified_token_name_user_and_tenant() {
    let (bench, _dir) = with_tokens().await;
    let claims = json!({ "sub": "u-1", "org_id": "acme", "plan": { "id": 7 } });
    let answer = bench.get("/api/x", &bearer(&claims)).await;
    assert_eq!(answer.status, 200, "{answer:?} {}", bench.envoy.output());
    let (subjects, tenant) = bench.asked();
    assert_eq!(subjects, ["tenant:acme", "combined:tenant!acme+jwt!u-1"]);
    assert_eq!(tenant.as_deref(), Some("acme"));

    // A number counts as its digits, and a claim may lie deeper.
    let numbers = json!({ "sub": "u-1", "org_id": 12, "plan": { "id": 7 } });
    assert_eq!(bench.get("/api/x", &bearer(&numbers)).await.status, 200);
    assert_eq!(bench.asked().0, ["tenant:12", "combined:tenant!12+jwt!u-1"]);
    assert_eq!(bench.get("/plans", &bearer(&numbers)).await.status, 200);
    assert_eq!(bench.asked(), (vec!["jwt:7".to_owned()], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_name_nobody_are_missing() {
    let (bench, _dir) = with_tokens().await;
    let nobody = [
        json!({ "sub": "u" }),
        json!({ "sub": "u", "org_id": "" }),
        json!({ "sub": "u", "org_id": "a:b" }),
        json!({ "sub": "u", "org_id": ["acme"] }),
        json!({ "sub": "u", "org_id": { "id": "acme" } }),
        json!({ "sub": "u", "org_id": true }),
        json!({ "sub": "u", "org_id": null }),
        json!({ "sub": "u", "org_id": 1.5 }),
        json!({ "sub": "u", "org_id": "é" }),
    ];
    for claims in nobody {
        let answer = bench.get("/api/x", &bearer(&claims)).await;
        assert_eq!(answer.status, 403, "{claims}: {answer:?}");
        assert_eq!(answer.header("x-tidegate-reply"), Some("client-identity-required"), "{claims}");
    }
    assert_eq!((bench.gateway.seen(), bench.upstream.seen()), (0, 0));
    // A forged token never comes as far as the filter.
    let forged = bearer(&json!({ "sub": "u", "org_id": "acme" })).replace("acme", "other");
    let forged = forged.trim_end().to_owned() + "x\r\n";
    assert_eq!(bench.get("/api/x", &forged).await.status, 401);
    // Without a token where none is needed, the address stands in.
    assert_eq!(bench.get("/public/x", "").await.status, 200);
    assert_eq!(bench.asked(), (vec!["combined:ip.1!127.0.0.1".to_owned()], None));
    assert_eq!(bench.get("/public/x", &bearer(&json!({ "sub": "u-1" }))).await.status, 200);
    assert_eq!(bench.asked().0, ["jwt:u-1"]);
}

struct Tls {
    dir: TempDir,
    authority: Authority,
}

impl Tls {
    fn new() -> Self {
        let tls = Self { dir: tempfile::tempdir().expect("a folder"), authority: Authority::new() };
        tls.authority.write(tls.dir.path(), "ca.crt");
        tls.authority.sign().write(tls.dir.path(), "server");
        tls
    }

    fn file(&self, name: &str) -> Value {
        json!(self.dir.path().join(name))
    }

    /// The files of the example.
    fn serve(&self, options: &mut Options) {
        let common = "/transport_socket/typed_config/common_tls_context";
        let pair = format!("{common}/tls_certificates/0");
        *options.part(&format!("{pair}/certificate_chain/filename")) = self.file("server.crt");
        *options.part(&format!("{pair}/private_key/filename")) = self.file("server.key");
        if options.example.as_ref().is_some_and(|e| {
            e.pointer(common).is_some_and(|c| c.get("validation_context").is_some())
        }) {
            *options.part(&format!("{common}/validation_context/trusted_ca/filename")) =
                self.file("ca.crt");
        }
    }

    async fn get(&self, bench: &Bench, own: Option<&Pair>, path: &str, headers: &str) -> Answer {
        let mut roots = RootCertStore::empty();
        let pem = self.authority.pem();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("a CA");
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
                let chain = vec![certificate.expect("PEM")];
                config.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        let tcp = client::connect(bench.envoy.addr, None).await.expect("a listener");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, tcp).await.expect("a handshake");
        client::raw(&mut stream, client::get_request(path, headers).as_bytes()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_names_its_workload() {
    let tls = Tls::new();
    let bench = bench("client-certificates", |options| tls.serve(options)).await;
    let pair = tls.authority.sign_workload("spiffe://example.com/payments");
    let answer = tls.get(&bench, Some(&pair), "/api/x", "").await;
    assert_eq!(answer.status, 200, "{answer:?} {}", bench.envoy.output());
    let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM");
    let digest = hex(&Sha256::digest(&der));
    let expected = [
        "mtls:spiffe%3A%2F%2Fexample.com%2Fpayments".to_owned(),
        format!("mtls:{digest}"),
        "mtls:localhost".to_owned(),
        "mtls:CN%3Dtidegate%20test".to_owned(),
    ];
    assert_eq!(bench.asked().0, expected);

    // A certificate without a URI names no workload.
    let nameless = tls.authority.sign();
    let answer = tls.get(&bench, Some(&nameless), "/api/x", "").await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.json()["violated-policies"][0], "workloads.per-workload");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_there_is_no_workload() {
    let tls = Tls::new();
    let bench = bench("client-certificates", |options| {
        tls.serve(options);
        *options.part("/transport_socket/typed_config/require_client_certificate") = json!(false);
    })
    .await;
    let answer = tls.get(&bench, None, "/api/x", "").await;
    assert_eq!(answer.status, 403, "{answer:?} {}", bench.envoy.output());
    assert_eq!(bench.gateway.seen(), 0);
}

fn device(id: &str) -> String {
    format!("{id}.{}", hex(&mac(&format!("tidegate-id-v1:{id}"))))
}

#[tokio::test(flavor = "multi_thread")]
async fn filter_state_and_signed_devices_over_tls_have_a_fingerprint() {
    let tls = Tls::new();
    let bench = bench("filter-state", |options| {
        let common = json!({ "tls_certificates": [{ "certificate_chain": { "filename": tls.file("server.crt") }, "private_key": { "filename": tls.file("server.key") } }] });
        let example = options.example.as_mut().expect("an example");
        example["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": common,
            },
        });
        options.keys = vec![("DEVICE_KEY", KEY.to_owned())];
    })
    .await;
    let headers = format!("cookie: a=1; did={}\r\nuser-agent: curl/8.0\r\n", device("d-1"));
    let answer = tls.get(&bench, None, "/app/x", &headers).await;
    assert_eq!(answer.status, 200, "{answer:?} {}", bench.envoy.output());
    let subjects = bench.asked().0;
    assert_eq!(subjects[0], "signed:d-1");
    let agent = &hex(&Sha256::digest(b"curl/8.0"))[..16];
    let front = format!("fingerprint:d-1%3A{agent}%3At13d");
    assert!(subjects[1].starts_with(&front), "{front} {subjects:?}");

    // The same device from the same program is the same one, from wherever it comes.
    let again = tls.get(&bench, None, "/app/x", &headers).await;
    assert_eq!((again.status, bench.asked().0), (200, subjects));
    for cookie in ["did=d-1", "x=1", &format!("did={}x", device("d-1")), "did=a; did=b"] {
        let headers = format!("cookie: {cookie}\r\nuser-agent: curl/8.0\r\n");
        let answer = tls.get(&bench, None, "/app/x", &headers).await;
        assert_eq!(answer.status, 403, "{cookie}: {answer:?}");
    }

    let customer = tls.get(&bench, None, "/api/x", "x-edge-customer: c 1\r\n").await;
    assert_eq!((customer.status, bench.asked().0), (200, vec!["filter_state:c%201".to_owned()]));
    // Envoy writes `-` for a header that is not there.
    assert_eq!(tls.get(&bench, None, "/api/x", "").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fingerprint_without_tls_writes_a_dash() {
    let bench = bench("filter-state", |options| {
        options.keys = vec![("DEVICE_KEY", KEY.to_owned())];
    })
    .await;
    let headers = format!("cookie: did={}\r\n", device("d-1"));
    let answer = bench.get("/app/x", &headers).await;
    assert_eq!(answer.status, 200, "{answer:?} {}", bench.envoy.output());
    assert_eq!(bench.asked().0, ["signed:d-1", "fingerprint:d-1%3A-%3A-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_short_key_refuses_the_start() {
    let gateway = Scripted::start(true, Script::Verdict(Verdict::Allow)).await;
    let upstream = Upstream::start().await;
    let mut options = Options::new(gateway.addr, upstream.addr).example("filter-state");
    let refused = async |options: &Options, expected: &str| {
        let Err(output) = Envoy::try_start(options).await else { panic!("Envoy took it") };
        assert!(output.contains(expected), "{expected}\nis not in\n{output}");
    };
    let field = "identities.device.signed.key: the environment variable DEVICE_KEY";
    refused(&options, &format!("{field} is not set")).await;
    options.keys = vec![("DEVICE_KEY", "short".to_owned())];
    refused(&options, &format!("{field} holds 5 bytes, too few for a key")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_choose_their_policies_and_opt_out_of_them() {
    let bench = bench("routes", |_| {}).await;
    let rows: [(&str, &[&str]); 4] = [
        (
            "/orders/7",
            &[
                "orders.per-client",
                "gold.per-client",
                "per-second.per-client",
                "per-day.per-client",
            ],
        ),
        ("/bulk/x", &["per-day.per-client"]),
        ("/x", &["per-second.per-client", "per-day.per-client"]),
        ("/health", &[]),
    ];
    for (path, expected) in rows {
        let before = bench.gateway.seen();
        let answer = bench.get(path, "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?} {}", bench.envoy.output());
        match expected {
            [] => assert_eq!(bench.gateway.seen(), before, "{path}: nothing is asked"),
            _ => assert_eq!(bench.asked_ids(), expected, "{path}"),
        }
    }
    let opted = |policy: &str| {
        let name = format!("tidegate_decisions_total{{policy=\"{policy}\",outcome=\"opted_out\"}}");
        let swapped =
            format!("tidegate_decisions_total{{outcome=\"opted_out\",policy=\"{policy}\"}}");
        let envoy = &bench.envoy;
        async move { envoy.metric(&name).await + envoy.metric(&swapped).await }
    };
    assert_eq!(opted("per-second").await, 2, "{}", bench.envoy.metrics().await);
    assert_eq!(opted("per-day").await, 1);
    let output = bench.envoy.output();
    assert!(!output.contains("a route's metadata"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_metadata_opt_out_of_nothing_and_are_told_once() {
    let strange = [
        json!({ "disabled": "yes" }),
        json!({ "disabled": 1 }),
        json!({ "disabled": null }),
        json!({ "disabled_policies": "per-second" }),
        json!({ "disabled_policies": ["per-secnd"] }),
        json!({ "disabled_policies": [["per-second"]] }),
        json!({ "disabled_policies": { "per-second": true } }),
        json!({ "disable": true }),
    ];
    let bench = bench("routes", |options| {
        let route = |(index, said): (usize, &Value)| {
            json!({
                "match": { "prefix": format!("/strange/{index}") },
                "route": { "cluster": "upstream" },
                "metadata": { "filter_metadata": { "tidegate": said } },
            })
        };
        *options.part("/routes") = strange.iter().enumerate().map(route).collect();
    })
    .await;
    for (index, said) in strange.iter().enumerate() {
        let answer = bench.get(&format!("/strange/{index}"), "").await;
        assert_eq!(answer.status, 200, "{said}: {answer:?} {}", bench.envoy.output());
        let all = ["per-second.per-client", "per-day.per-client"];
        assert_eq!(bench.asked_ids(), all, "{said}");
    }
    let output = bench.envoy.output();
    assert_eq!(output.matches("a route's metadata").count(), 1, "{output}");
}

const TENANTS: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "5s", "token": {"env": "TIDEGATE_TOKEN"}},
  "identities": {"tenant": {"header": "x-org", "trusted": true}},
  "policies": [
    {"name": "own", "match": {"path": "/own"},
     "rate_limits": [{"name": "l", "by": ["tenant", "ip"], "limit": 2, "per": "day"}]},
    {"name": "joint", "match": {"path": "/joint"},
     "rate_limits": [{"name": "l", "by": "ip", "limit": 2, "per": "day"},
                     {"name": "t", "by": "tenant", "limit": 9, "per": "day"}]}
  ]
}"#;

/// In a real Redis: what counts by the tenant is apart, what does not is not, and nobody can write a
/// tenant's name so that it becomes another's key.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_apart_in_the_store() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(&Options::new(gateway.addr, upstream.addr).config(TENANTS)).await;
    let status = async |path: &str, tenant: &str| {
        let header = format!("x-org: {tenant}\r\n");
        client::get_from(envoy.addr, None, path, &header).await.status
    };
    for tenant in ["acme", "acme2", "ACME"] {
        let each = [status("/own", tenant).await, status("/own", tenant).await];
        assert_eq!(each, [200, 200], "{tenant} {} {}", envoy.output(), gateway.output());
        assert_eq!(status("/own", tenant).await, 429, "{tenant}");
    }
    for forged in ["acme+ip!127.0.0.1", "acme:ip", "a{b}", "acme ", "%61cme", ""] {
        let expected = if forged.trim() == "acme" { 429 } else { 403 };
        assert_eq!(status("/own", forged).await, expected, "{forged:?}");
    }
    // By the address alone, all tenants of one address are one.
    assert_eq!(status("/joint", "acme").await, 200);
    assert_eq!(status("/joint", "acme2").await, 200);
    assert_eq!(status("/joint", "ACME").await, 429);
    let reply = redis.command(&["KEYS", "ratelimit:*"]).await;
    let keys: Vec<&str> = reply.lines().filter(|line| line.starts_with("ratelimit:")).collect();
    let ours = |part: &str| keys.iter().filter(|key| key.contains(part)).count();
    assert_eq!(ours(":t=acme:combined:tenant!acme+ip!127.0.0.1:own.l"), 1, "{keys:?}");
    assert_eq!(ours(":own.l"), 3, "{keys:?}");
    assert_eq!(ours(":joint.l"), 1, "{keys:?}");
    assert_eq!(ours("}:ip:127.0.0.1:joint.l"), 1, "{keys:?}");
    assert_eq!(ours(":t=acme2:tenant:acme2:joint.t"), 1, "{keys:?}");
}
