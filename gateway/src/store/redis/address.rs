//! Owns where Redis is: reading the URL, and showing it without its credentials. Knows nothing of
//! what is done over the connection.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::tls::RedisTls;

/// An idle connection is asked for after that long: sooner than a NAT or a balancer forgets it.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
/// And again; after three questions without an answer it is broken.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TRIES: u32 = 3;

/// A checked address of one Redis server. Shows itself without user, password and query.
#[derive(Clone)]
pub struct RedisAddress {
    info: ConnectionInfo,
    shown: String,
}

// === impl RedisAddress ===

impl RedisAddress {
    /// Reads `redis://[user[:password]@]host[:port][/db]`, the same with `rediss://` for TLS, or
    /// `redis+unix:///path[?db=&user=&pass=]`.
    /// The error says what is wrong and holds nothing of the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim();
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
        let behind_credentials = url.rsplit_once('@').map_or(url, |(_, place)| place);
        if scheme.contains("cluster")
            || behind_credentials.contains("cluster=true")
            || behind_credentials.contains(',')
        {
            return Err(
                "names a Redis Cluster: write redis-cluster://host:port,host:port".to_owned()
            );
        }
        if behind_credentials.contains("#insecure") {
            return Err(
                "the server's certificate is always checked: name its CA with --redis-tls-ca (TIDEGATE_REDIS_TLS_CA) instead of #insecure".to_owned(),
            );
        }
        let malformed = "is no Redis URL: write redis://[user:password@]host:port[/db], rediss:// for TLS, or redis+unix:///path";
        let info = match url.into_connection_info() {
            Ok(info) => info,
            Err(error) => return Err(format!("{malformed} ({})", error.category())),
        };
        if names_the_default_user(&info, url) {
            return Err(
                "names the host \"default\", which is Redis's first user: if a password follows it, write redis://default:password@host:port[/db]".to_owned(),
            );
        }
        // RESP3 announces a broken connection even while nobody calls; it needs Redis 6 or later.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive()));
        Ok(Self { info, shown: redact_url(url) })
    }

    /// Whether connections are under TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// The same credentials, database and TLS at another host.
    pub fn at(&self, host: &str, port: u16) -> Self {
        let host = host.to_owned();
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.clone(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.clone(), port),
        };
        let scheme = if self.is_tls() { "rediss" } else { "redis" };
        let shown = format!("{scheme}://{host}:{port}");
        Self { info: self.info.clone().set_addr(addr), shown }
    }

    /// Whether it is the same server, whoever speaks to it.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.info.addr() == other.info.addr()
    }

    /// Its host; empty if it is no host.
    pub fn host(&self) -> String {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => String::new(),
        }
    }

    /// A client for this address; reads the files of `tls` and opens no connection.
    pub fn client(&self, tls: &RedisTls) -> Result<Client, redis::RedisError> {
        if !self.is_tls() {
            return Client::open(self.info.clone());
        }
        let certificates = tls.certificates().map_err(std::io::Error::other)?;
        Client::build_with_tls(self.info.clone(), certificates)
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// An address without user, password and query. Of what is no such address only the scheme is
/// shown, since a mistyped one holds the password anywhere: `redis://default:s3cret%40host:6379`.
/// A number behind a bare word may be a password that has lost its `@host`: `redis://app:12345`.
pub fn redact_url(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => return "…".to_owned(),
    };
    // First, because a query may hold an `@`, while nothing before it can hold a `?` or `#`.
    let (place, query) = match rest.split_once(['?', '#']) {
        Some((place, _)) => (place, "?***"),
        None => (rest, ""),
    };
    let (credentials, place) = match place.rsplit_once('@') {
        Some((_, place)) => ("***@", place),
        None => ("", place),
    };
    // An escape in the place may be the `@` after a password: the client takes both for a host.
    if url.into_connection_info().is_err() || place.contains('%') {
        return format!("{scheme}…");
    }
    let place = match (credentials, place.split_once(':')) {
        ("", Some((host, port))) if may_be_a_password(host, port) => format!("{host}:***"),
        _ => place.to_owned(),
    };
    format!("{scheme}{credentials}{place}{query}")
}

/// Not where `host` can be no user's name, nor where `port` is one that Redis usually has.
fn may_be_a_password(host: &str, port: &str) -> bool {
    let port = port.split_once('/').map_or(port, |(port, _)| port);
    !host.contains(['.', '[']) && host != "localhost" && !matches!(port, "6379" | "6380")
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES)
}

fn names_the_default_user(info: &ConnectionInfo, url: &str) -> bool {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
            host == "default" && !url.contains('@')
        }
        _ => false,
    }
}

fn is_scheme(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_show() {
        let rows = [
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://user:hunter2@host:1/0", "redis://***@host:1/0"),
            ("redis://:hun@ter2@host", "redis://***@host"),
            ("redis://:hun@ter/2@host", "redis://…"),
            ("redis+unix:///run/r.sock?pass=hunter2&db=1", "redis+unix:///run/r.sock?***"),
            ("redis+unix:///run/r.sock?pass=hun@ter2", "redis+unix:///run/r.sock?***"),
            ("user:hunter2@host", "…"),
            ("redis:/user:hunter2@host", "…"),
            ("user:hunter2@redis://host", "…"),
            ("redis://default:s3cret%40redis:6379", "redis://…"),
            ("redis://default%3As3cret%40redis:6379", "redis://…"),
            ("redis://default:s3cret", "redis://…"),
            ("redis://default:12345", "redis://default:***"),
            ("redis://app:12345/2", "redis://app:***"),
            ("redis://redis:6379/2", "redis://redis:6379/2"),
            ("redis://cache.internal:7000", "redis://cache.internal:7000"),
            ("redis://app:12345@redis:7000", "redis://***@redis:7000"),
            ("rediss://[::1]:7000", "rediss://[::1]:7000"),
            ("redis://:s3cret%40h/0", "redis://…"),
            ("http://user:hunter2@host:1", "http://…"),
        ];
        for (url, expected) in rows {
            assert_eq!(redact_url(url), expected);
        }
        let address = RedisAddress::parse("redis://user:hunter2@host:1/0").expect("sound");
        assert_eq!(format!("{address} {address:?}"), "redis://***@host:1/0 redis://***@host:1/0");
    }

    #[test]
    fn what_is_not_supported_is_said() {
        let rows = [
            ("redis-cluster:h1:6379", "Redis Cluster"),
            ("redis://h1:6379,h2:6379", "Redis Cluster"),
            ("redis://h1:6379?cluster=true", "Redis Cluster"),
            ("rediss://h1:6379#insecure", "--redis-tls-ca"),
            ("redis://default:12345", "write redis://default:password@host"),
            ("http://h1:6379", "is no Redis URL"),
            ("h1:6379", "is no Redis URL"),
            ("", "is no Redis URL"),
        ];
        for (url, expected) in rows {
            let error = RedisAddress::parse(url).expect_err(url);
            assert!(error.contains(expected), "{url}: {error}");
        }
        for (url, tls) in
            [("redis+unix:///run/redis.sock", false), ("redis://h", false), ("rediss://h", true)]
        {
            assert_eq!(RedisAddress::parse(url).map(|address| address.is_tls()), Ok(tls), "{url}");
        }
    }
}
