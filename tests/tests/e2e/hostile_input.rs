//! What clients may send: bytes that are no text, odd targets, many headers, IPv6, a hurried
//! leave, a body that comes slowly. None may kill the VM, none may slip past a policy.

use std::time::Duration;

use tidegate_policy::wire::Verdict;
use tidegate_tests::client;
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::scripted::{Script, Scripted};
use tidegate_tests::upstream::Upstream;
use tokio::io::AsyncWriteExt;

const BY_HEADER: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "5s"},
  "policies": [
    {"name": "keyed", "match": {"path": "/keyed/**"},
     "rate_limits": [{"name": "key", "by": {"header": "x-key"}, "limit": 5, "per": "minute"}],
     "on_unavailable": "deny"},
    {"name": "all", "match": {"path": "/**"},
     "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}],
     "on_unavailable": "deny"}
  ]
}"#;

struct Bench {
    gateway: Scripted,
    upstream: Upstream,
    envoy: Envoy,
}

async fn bench(verdict: Verdict, adapt: impl FnOnce(&mut Options)) -> Bench {
    let gateway = Scripted::start(true, Script::Verdict(verdict)).await;
    let upstream = Upstream::start().await;
    let mut options = Options::new(gateway.addr, upstream.addr).config(BY_HEADER);
    adapt(&mut options);
    let envoy = Envoy::start(&options).await;
    Bench { gateway, upstream, envoy }
}

impl Bench {
    /// Sends bytes on a fresh connection.
    async fn raw(&self, bytes: &[u8]) -> client::Answer {
        let mut stream = client::connect(self.envoy.addr, None).await.expect("a listener");
        client::raw(&mut stream, bytes).await
    }

    /// The VM is alive: the next request is decided, and nothing trapped so far.
    async fn lives(&self) {
        eventually(Duration::from_secs(60), "a request is decided", async || {
            let answer = client::get(self.envoy.addr, "/after").await;
            if [200, 429].contains(&answer.status) { Ok(()) } else { Err(answer) }
        })
        .await;
        let output = self.envoy.output();
        for trace in ["wasm_fail_stream", "proxy_on", "panicked", "[critical]"] {
            assert!(!output.contains(trace), "{trace}:\n{output}");
        }
        assert_eq!(self.envoy.metric("envoy_wasm_tidegate_vm_reload_success{}").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_counted_like_any_others() {
    let bench = bench(Verdict::Allow, |_| {}).await;
    let answer = bench
        .raw(b"GET /keyed/x HTTP/1.1\r\nhost: h\r\nx-key: a\xff\xfe\r\nx-bin: \x80\r\n\r\n")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = bench.raw(b"GET /keyed/\xff\xfe HTTP/1.1\r\nhost: h\r\nx-key: a\r\n\r\n").await;
    assert!([200, 400].contains(&answer.status), "{answer:?}");
    bench.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_identity_is_refused_and_names_its_limit() {
    let bench = bench(Verdict::Allow, |_| {}).await;
    let answer = client::get(bench.envoy.addr, "/keyed/x").await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("x-tidegate-reply"), Some("client-identity-required"));
    assert_eq!(answer.json()["violated-policies"][0], "keyed.key");
    assert_eq!(bench.gateway.seen(), 0, "nothing was asked, so nothing was charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_target_escapes_a_policy_over_everything() {
    let bench = bench(Verdict::Deny, |_| {}).await;
    let targets: [&[u8]; 8] = [
        b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET http://elsewhere/x HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET http://elsewhere HTTP/1.1\r\nhost: h\r\n\r\n",
        b"CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\n\r\n",
        b"GET //x HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /a/../x?q HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /a%2fb HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET  HTTP/1.1\r\nhost: h\r\n\r\n",
    ];
    for target in targets {
        let shown = String::from_utf8_lossy(target).into_owned();
        let answer = bench.raw(target).await;
        assert!((400..500).contains(&answer.status), "{shown:?}: {answer:?}");
        assert_eq!(bench.upstream.seen(), 0, "{shown:?} reached the upstream");
    }
    bench.lives().await;
}

/// Other spellings of a path that a policy names, some of which Envoy leaves as they are.
#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_escapes_its_policy() {
    let named = BY_HEADER
        .replace("/keyed/**", "/caf%C3%A9")
        .replace("{\"header\": \"x-key\"}", "\"ip\"")
        .replace("\"path\": \"/**\"", "\"path\": \"/login\"");
    let bench = bench(Verdict::Deny, |options| options.config = Some(named)).await;
    let paths = [
        "/login",
        "/login;x",
        "/login;",
        "/x/..;/login",
        "/%6cogin",
        "//login",
        "/./login",
        "/caf%C3%A9",
        "/caf%c3%a9",
        "/caf%c3%A9;v=1",
    ];
    for path in paths {
        let answer = client::get(bench.envoy.addr, path).await;
        assert_eq!(answer.status, 429, "{path}: {answer:?}");
    }
    assert_eq!(bench.upstream.seen(), 0);
    assert_eq!(client::get(bench.envoy.addr, "/login2").await.status, 200);
}

/// One verified key shown to the upstream must not give a fresh bucket with every second value.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_identity_header_names_nobody() {
    let bench = bench(Verdict::Allow, |_| {}).await;
    let request = b"GET /keyed/x HTTP/1.1\r\nhost: h\r\nx-key: good\r\nx-key: 1\r\n\r\n";
    let answer = bench.raw(request).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!((bench.upstream.seen(), bench.gateway.seen()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_headers_are_read_and_too_many_are_envoys_to_refuse() {
    let many: String = (0..200).map(|n| format!("x-h-{n}: {n}\r\n")).collect();
    let request = format!("GET /keyed/x HTTP/1.1\r\nhost: h\r\nx-key: k\r\n{many}\r\n");

    let wide = bench(Verdict::Allow, |options| options.max_headers = Some(256)).await;
    assert_eq!(wide.raw(request.as_bytes()).await.status, 200);
    wide.lives().await;

    let narrow = bench(Verdict::Allow, |_| {}).await;
    assert_eq!(narrow.raw(request.as_bytes()).await.status, 431);
    assert_eq!(narrow.gateway.seen(), 0);
    narrow.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_client_is_a_client() {
    let bench = bench(Verdict::Allow, |options| options.listen = "[::1]:0".to_owned()).await;
    assert_eq!(client::get(bench.envoy.addr, "/x").await.status, 200);
    assert_eq!(bench.gateway.seen(), 1);
    bench.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_the_callout_is_out_harms_nobody() {
    let bench = bench(Verdict::Allow, |_| {}).await;
    // Far later than it takes to leave, and sooner than the callout is given up.
    bench.gateway.set(Script::Late(Duration::from_secs(2)));
    // A callout that is out while the script changes is cut off, and never seen by the new one.
    eventually(Duration::from_secs(60), "callouts arrive", async || {
        let asked = bench.gateway.seen();
        let answer = client::get(bench.envoy.addr, "/first").await;
        if bench.gateway.seen() > asked { Ok(()) } else { Err(answer) }
    })
    .await;
    let reached = bench.upstream.seen();
    for _ in 0..20 {
        let asked = bench.gateway.seen();
        let mut stream = client::connect(bench.envoy.addr, None).await.expect("a listener");
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
        eventually(Duration::from_secs(60), "the callout is out", async || {
            if bench.gateway.seen() > asked { Ok(()) } else { Err("not yet") }
        })
        .await;
        drop(stream);
    }
    eventually(Duration::from_secs(60), "late answers are counted", async || {
        match bench.envoy.metric("tidegate_late_answers_total{}").await {
            0 => Err(bench.envoy.metrics().await),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(bench.upstream.seen(), reached, "nothing of those who left reached the upstream");
    bench.gateway.set(Script::Verdict(Verdict::Allow));
    bench.lives().await;
}

/// Nothing of a request reaches the upstream before the verdict, with both settings of the flag,
/// and a large body is slowed down instead of being refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_waits_for_the_verdict() {
    for allow_stop_iteration in [true, false] {
        let bench = bench(Verdict::Deny, |options| {
            options.allow_stop_iteration = allow_stop_iteration;
        })
        .await;
        let size = 4 * 1024 * 1024;
        let mut request =
            format!("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: {size}\r\n\r\n").into_bytes();
        request.resize(request.len() + 64 * 1024, b'x');
        assert_eq!(bench.raw(&request).await.status, 429, "the flag is {allow_stop_iteration}");
        assert_eq!(bench.upstream.seen(), 0);

        bench.gateway.set(Script::Late(Duration::from_millis(25)));
        request.resize(request.len() + size - 64 * 1024, b'x');
        let answer = eventually(Duration::from_secs(60), "the verdict is allow", async || {
            let answer = bench.raw(&request).await;
            if answer.status == 429 { Err(answer) } else { Ok(answer) }
        })
        .await;
        assert_eq!(
            (answer.status, answer.body.trim()),
            (200, format!("upstream: /x {size}").as_str())
        );
        bench.lives().await;
    }
}
