//! TLS on the listeners: who gets in, what is wrong with files, and certificates that change while
//! the gateway runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tidegate_gateway::http::connection::{ServeSettings, serve};
use tidegate_gateway::http::handshake::Tls;
use tidegate_gateway::metrics::Metrics;
use tidegate_gateway::secret::Watched;
use tidegate_gateway::{Cores, Environment, Gateway, Running, StartError, World};
use tidegate_tests::certificates::{Authority, Files, Pair};
use tidegate_tests::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bench::{
    Caller, Speaks, VIEWER, decide, question, request, settings, settings_with, start,
};
use crate::connections::Yes;

/// Generous for a machine that is busy elsewhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway's files and those who signed them.
struct Setting {
    dir: TempDir,
    authority: Authority,
    files: Files,
    flags: String,
}

impl Setting {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::new();
        let files = authority.sign().write(dir.path(), "gateway");
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let flags = format!("--tls-cert {certificate} --tls-key {key}");
        Self { dir, authority, files, flags }
    }

    /// The flags with which a client needs a certificate of the same CA.
    fn mutual(&self) -> String {
        let ca = self.authority.write(self.dir.path(), "clients.crt");
        format!("{} --tls-client-ca {}", self.flags, ca.display())
    }
}

/// A client that trusts `authority`.
fn client(authority: &Authority, own: Option<&Pair>, alpn: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a CA");
    roots.add(ca).expect("a CA");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let own = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("one");
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![own], key).expect("a pair")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn connect(to: SocketAddr, client: &TlsConnector) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(to).await.expect("a listener");
    let name = ServerName::from(to.ip());
    client.connect(name, stream).await.map_err(|error| error.to_string())
}

/// One decision on a connection of its own, over what ALPN agreed on.
async fn asks(to: SocketAddr, client: &TlsConnector, name: &str) -> Result<StatusCode, String> {
    let stream = connect(to, client).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let request = decide(to, &question(name));
    let answer = if agreed.as_deref() == Some(b"h2") {
        let opened = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let (mut head, body) = request.into_parts();
        head.uri = head.uri.path().parse().expect("a path");
        head.headers.insert("host", "g".parse().expect("a header"));
        sender.send_request(http::Request::from_parts(head, body)).await
    };
    answer.map(|answer| answer.status()).map_err(|error| format!("{error:?}"))
}

async fn failures(gateway: &Running, cause: &str) -> u64 {
    let caller = Caller::new(Speaks::Http1);
    let text = caller.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
    let name = format!("tidegate_gateway_tls_handshake_failures_total{{cause=\"{cause}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn a_client_agrees_on_a_protocol_and_is_answered() {
    let setting = Setting::new();
    let gateway = start(settings(&setting.flags)).await;
    for alpn in [&["h2"][..], &["http/1.1"], &["h2", "http/1.1"], &[]] {
        let client = client(&setting.authority, None, alpn);
        let status = asks(gateway.data_addr, &client, &format!("{alpn:?}")).await;
        assert_eq!(status, Ok(StatusCode::OK), "{alpn:?}");
    }
    let stranger = client(&setting.authority, None, &["smtp"]);
    assert!(asks(gateway.data_addr, &stranger, "a").await.is_err(), "no protocol in common");
    let distrustful = client(&Authority::new(), None, &["h2"]);
    assert!(asks(gateway.data_addr, &distrustful, "a").await.is_err());
    eventually(PATIENCE, "both are counted", async || {
        let counts = (failures(&gateway, "other").await, failures(&gateway, "refused").await);
        if counts == (1, 1) { Ok(()) } else { Err(counts) }
    })
    .await;
}

#[tokio::test]
async fn with_a_client_ca_only_its_clients_are_let_in() {
    let setting = Setting::new();
    let gateway = start(settings(&setting.mutual())).await;
    let authority = &setting.authority;
    let ours = client(authority, Some(&authority.sign()), &["h2"]);
    assert_eq!(asks(gateway.data_addr, &ours, "a").await, Ok(StatusCode::OK));
    let nobody = client(authority, None, &["h2"]);
    let foreign = client(authority, Some(&Authority::new().sign()), &["h2"]);
    for (count, stranger) in [nobody, foreign].iter().enumerate() {
        let error = asks(gateway.data_addr, stranger, "a").await.expect_err("kept out");
        println!("{error}");
        let expected = u64::try_from(count).expect("small") + 1;
        eventually(PATIENCE, "it is counted", async || {
            match failures(&gateway, "client_certificate").await {
                found if found == expected => Ok(()),
                found => Err(found),
            }
        })
        .await;
    }
    assert_eq!(asks(gateway.data_addr, &ours, "a").await, Ok(StatusCode::OK));
}

#[tokio::test]
async fn plain_http_to_a_tls_port_is_no_answer() {
    let setting = Setting::new();
    let gateway = start(settings(&setting.flags)).await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let caller = Caller::new(speaks);
        let answer = caller.try_send(decide(gateway.data_addr, &question("a"))).await;
        assert!(answer.is_err(), "{speaks:?}: {answer:?}");
    }
    eventually(PATIENCE, "it is counted", async || match failures(&gateway, "no_tls").await {
        2.. => Ok(()),
        found => Err(found),
    })
    .await;
}

/// The serial number tells certificates apart.
async fn shown(to: SocketAddr, client: &TlsConnector) -> Result<Vec<u8>, String> {
    let stream = connect(to, client).await?;
    let chain = stream.get_ref().1.peer_certificates().ok_or("no certificate")?;
    Ok(chain[0].to_vec())
}

fn der(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("one").to_vec()
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_without_a_restart() {
    let setting = Setting::new();
    let gateway = start(settings(&setting.flags)).await;
    let (to, client) = (gateway.data_addr, client(&setting.authority, None, &["h2"]));
    let stream = TokioIo::new(connect(to, &client).await.expect("let in"));
    let (mut old, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream).await.expect("h2");
    tokio::spawn(connection);
    let before = shown(to, &client).await.expect("let in");

    // The key comes later: until then the pair in force is the old one.
    let next = setting.authority.sign();
    fs::write(&setting.files.certificate, &next.certificate).expect("written");
    eventually(PATIENCE, "half a pair is refused", async || {
        let caller = Caller::new(Speaks::Http1);
        let text = caller.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
        let sound = text.contains("tidegate_gateway_secret_reload_failures_total 0\n");
        if sound { Err(text) } else { Ok(()) }
    })
    .await;
    assert_eq!(shown(to, &client).await, Ok(before));

    fs::write(&setting.files.key, &next.key).expect("written");
    eventually(PATIENCE, "the new pair is in force", async || {
        let shown = shown(to, &client).await;
        if shown.as_ref() == Ok(&der(&next)) { Ok(()) } else { Err(shown) }
    })
    .await;
    let answer = old.send_request(decide(to, &question("a"))).await.expect("an answer");
    assert_eq!(answer.status(), 200, "a connection that exists goes on");
}

#[tokio::test]
async fn a_replaced_client_ca_counts_from_the_next_connection_on() {
    let setting = Setting::new();
    let gateway = start(settings(&setting.mutual())).await;
    let (to, authority, next) = (gateway.data_addr, &setting.authority, Authority::new());
    let old_client = client(authority, Some(&authority.sign()), &["h2"]);
    let new_client = client(authority, Some(&next.sign()), &["h2"]);
    assert_eq!(asks(to, &old_client, "a").await, Ok(StatusCode::OK));
    assert!(asks(to, &new_client, "a").await.is_err());
    next.write(setting.dir.path(), "clients.crt");
    eventually(PATIENCE, "the new CA is in force", async || asks(to, &new_client, "a").await).await;
    assert!(asks(to, &old_client, "a").await.is_err(), "not even by resuming its session");
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut_off_and_held_a_place_until_then() {
    const HANDSHAKE: Duration = Duration::from_secs(2);
    let setting = Setting::new();
    let files = settings(&setting.flags).tls.expect("TLS");
    let files = Arc::new(Watched::open(files).expect("sound files"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let metrics = Arc::new(Metrics::new());
    let tls = Tls::new(files, Arc::clone(&metrics));
    let (_stop, stopped) = watch::channel(false);
    let settings = ServeSettings {
        handshake_timeout: HANDSHAKE,
        connections_max: 1,
        ..ServeSettings::new(Duration::from_millis(1))
    };
    tokio::spawn(serve(
        listener,
        Arc::new(Yes),
        Some(tls),
        Arc::new(Cores::here()),
        Arc::clone(&metrics),
        stopped,
        settings,
    ));

    let begun = tokio::time::Instant::now();
    let mut slow = TcpStream::connect(address).await.expect("connected");
    // The beginning of a record that announces more than ever comes.
    slow.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("sent");
    let mut heard = Vec::new();
    let mut second = TcpStream::connect(address).await.expect("connected");
    let closed = timeout(PATIENCE, second.read_to_end(&mut heard)).await.expect("an end");
    assert!(closed.is_err() || heard.is_empty(), "the only place is taken: {heard:?}");
    assert_eq!(metrics.connections_refused.get(), 1, "at once, and not after a handshake's time");
    match timeout(PATIENCE, slow.read_to_end(&mut heard)).await.expect("an end") {
        Ok(_) => assert!(heard.is_empty(), "{heard:?}"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert!(begun.elapsed() >= HANDSHAKE, "not before its time");
    let client = client(&setting.authority, None, &["http/1.1"]);
    eventually(PATIENCE, "the place is free", async || connect(address, &client).await).await;
}

#[tokio::test]
async fn operators_need_no_certificate_but_their_tokens() {
    let setting = Setting::new();
    let gateway = start(settings(&format!("{} --admin-tls", setting.mutual()))).await;
    let client = client(&setting.authority, None, &["http/1.1"]);
    for (path, token, expected) in
        [("/livez", None, 200), ("/metrics", None, 401), ("/metrics", Some(VIEWER), 200)]
    {
        let stream = connect(gateway.admin_addr, &client).await.expect("let in");
        let (mut sender, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.expect("HTTP/1");
        tokio::spawn(connection);
        let mut request = request(gateway.admin_addr, Method::GET, path, token, "");
        request.headers_mut().insert("host", "g".parse().expect("a header"));
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), expected, "{path}");
        answer.into_body().collect().await.expect("a body");
    }
    assert!(asks(gateway.data_addr, &client, "a").await.is_err(), "filters do");
}

async fn refused(flags: &str) -> String {
    let settings = settings_with(&format!("--dev {flags}"), &Environment::default());
    let world = World::from_settings(&settings, Cores::here()).expect("a world");
    match Gateway::start(settings, world).await {
        Err(error @ StartError::Secret(_)) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_running) => panic!("started with {flags}"),
    }
}

#[tokio::test]
async fn every_mistake_in_a_file_names_flag_file_and_remedy() {
    let setting = Setting::new();
    let other = setting.authority.sign();
    let pem = |label: &str, inside: &str| {
        format!("-----BEGIN {label}-----\n{inside}\n-----END {label}-----\n")
    };
    let Files { certificate, key } = &setting.files;
    let ca = setting.authority.write(setting.dir.path(), "clients.crt");
    let sound_key = fs::read_to_string(key).expect("a key");
    let cut = sound_key.trim_end().trim_end_matches("-----END PRIVATE KEY-----").to_owned();
    let rows: [(&Path, &str, Vec<u8>, &str); 8] = [
        (certificate, "--tls-cert", b"hello".to_vec(), "holds no certificate: "),
        (certificate, "--tls-cert", sound_key.into(), "holds no certificate: "),
        (certificate, "--tls-cert", vec![0x30, 0x82, 0xff], "convert it from DER to PEM"),
        (certificate, "--tls-cert", pem("CERTIFICATE", "%").into(), "is no sound PEM"),
        (key, "--tls-key", other.certificate.into(), "holds no private key: "),
        (key, "--tls-key", other.key.into(), "is not the key of the certificate in --tls-cert ("),
        (key, "--tls-key", cut.into(), "an END line is missing"),
        (&ca, "--tls-client-ca", pem("CERTIFICATE", "AAAA").into(), "cannot be a CA's"),
    ];
    for (file, flag, content, expected) in rows {
        let sound = fs::read(file).expect("a file");
        fs::write(file, content).expect("written");
        let error = refused(&format!("{} --tls-client-ca {}", setting.flags, ca.display())).await;
        assert!(error.starts_with(&format!("{flag} ({}): ", file.display())), "{error}");
        assert!(error.contains(expected), "{expected}: {error}");
        fs::write(file, sound).expect("written");
    }
    for (file, flag) in [(key, "--tls-key"), (certificate, "--tls-cert")] {
        fs::remove_file(file).expect("removed");
        let error = refused(&setting.flags).await;
        assert_eq!(error, format!("{flag}: cannot read {}", file.display()));
    }
}
