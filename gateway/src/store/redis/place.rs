//! Owns what kind of Redis an operator names: one server, a Cluster, or a master that Sentinels know.
//! Opens nothing.

use std::fmt;

use super::address::{RedisAddress, redact_url};

/// Where the state lies.
#[derive(Debug, Clone)]
pub enum Place {
    /// One server.
    Single(RedisAddress),
    /// A Redis Cluster, by some of its nodes; the others are learnt from them.
    Cluster(Vec<RedisAddress>),
    /// A master that Sentinels name.
    Sentinel(Sentinels),
}

/// Who is asked for the master, and how the master is then reached.
#[derive(Debug, Clone)]
pub struct Sentinels {
    /// The Sentinels, with their own credentials; asked in turn.
    pub asked: Vec<RedisAddress>,
    /// The master's name.
    pub master: String,
    /// The master's credentials and database; its host and port are the Sentinels' word.
    pub pattern: RedisAddress,
}

const CLUSTER: &str = "redis-cluster://";
const CLUSTER_TLS: &str = "rediss-cluster://";
const SENTINEL: &str = "redis-sentinel://";
const SENTINEL_TLS: &str = "rediss-sentinel://";

// === impl Place ===

impl Place {
    /// Reads a URL: that of one server (see [`RedisAddress::parse`]),
    /// `redis-cluster://[user:password@]host:port[,host:port]…`, or
    /// `redis-sentinel://[user:password@]sentinel:port[,sentinel:port]…/master[/db]`; with `rediss-`
    /// under TLS. The credentials are those of the servers that hold the state; those of the Sentinels,
    /// and whether they are asked under TLS, may follow as
    /// `?sentinel_tls=true&sentinel_user=…&sentinel_password=…`.
    pub fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim();
        let kinds = [
            (CLUSTER, "redis", false),
            (CLUSTER_TLS, "rediss", false),
            (SENTINEL, "redis", true),
            (SENTINEL_TLS, "rediss", true),
        ];
        for (prefix, scheme, sentinel) in kinds {
            let Some(rest) = url.strip_prefix(prefix) else { continue };
            return if sentinel { sentinels(scheme, rest) } else { cluster(scheme, rest) };
        }
        RedisAddress::parse(url).map(Self::Single)
    }

    /// Whether connections to the servers are under TLS.
    pub fn is_tls(&self) -> bool {
        match self {
            Self::Single(address) => address.is_tls(),
            Self::Cluster(nodes) => nodes.iter().any(RedisAddress::is_tls),
            Self::Sentinel(Sentinels { asked, pattern, .. }) => {
                pattern.is_tls() || asked.iter().any(RedisAddress::is_tls)
            }
        }
    }
}

fn cluster(scheme: &str, rest: &str) -> Result<Place, String> {
    let (credentials, hosts) = split_credentials(rest);
    if hosts.contains('/') {
        return Err("a Redis Cluster has one database: leave out what follows the hosts".to_owned());
    }
    let nodes = hosts.split(',').map(|host| node(scheme, credentials, host));
    nodes.collect::<Result<_, _>>().map(Place::Cluster)
}

fn sentinels(scheme: &str, rest: &str) -> Result<Place, String> {
    // The last one: a password may hold a `?`, a master's name or a database cannot.
    let (rest, query) = match rest.rsplit_once('?') {
        Some((before, query)) if !query.contains('@') => (before, query),
        Some(_) | None => (rest, ""),
    };
    let (credentials, place) = split_credentials(rest);
    let malformed =
        "names no master: write redis-sentinel://sentinel:port,sentinel:port/master[/db]";
    let Some((hosts, master)) = place.split_once('/') else {
        return Err(malformed.to_owned());
    };
    let (master, db) = master.split_once('/').unwrap_or((master, "0"));
    if master.is_empty() {
        return Err(malformed.to_owned());
    }
    let (own_scheme, own_credentials) = of_sentinels(query)?;
    let asked = hosts.split(',').map(|host| node(own_scheme, &own_credentials, host));
    let asked: Vec<RedisAddress> = asked.collect::<Result<_, _>>()?;
    let pattern =
        RedisAddress::parse(&format!("{scheme}://{credentials}master.invalid:6379/{db}"))?;
    Ok(Place::Sentinel(Sentinels { asked, master: master.to_owned(), pattern }))
}

/// The scheme and credentials of the Sentinels themselves: none of the servers' unless told, and plain.
fn of_sentinels(query: &str) -> Result<(&'static str, String), String> {
    let (mut scheme, mut user, mut password) = ("redis", "", "");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_tls", "true")) => scheme = "rediss",
            Some(("sentinel_tls", "false")) => scheme = "redis",
            Some(("sentinel_user", value)) => user = value,
            Some(("sentinel_password", value)) => password = value,
            // Neither name nor value is shown: a mistyped one may be the password.
            _ => {
                return Err("holds something unknown behind the question mark: write sentinel_tls=true, sentinel_user=… and sentinel_password=…, joined by &".to_owned());
            }
        }
    }
    let credentials = match (user, password) {
        ("", "") => String::new(),
        (user, password) => format!("{user}:{password}@"),
    };
    Ok((scheme, credentials))
}

/// What stands before the hosts, with its `@`.
fn split_credentials(rest: &str) -> (&str, &str) {
    rest.rfind('@').map_or(("", rest), |at| rest.split_at(at.saturating_add(1)))
}

fn node(scheme: &str, credentials: &str, host: &str) -> Result<RedisAddress, String> {
    if host.is_empty() {
        return Err("lacks a host: write host:port, host:port, … without spaces".to_owned());
    }
    let address = RedisAddress::parse(&format!("{scheme}://{credentials}{host}"))?;
    // A host of one word and a port looks like a password; here it is known to be none.
    match host.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => Ok(address.at(host.trim_matches(['[', ']']), port)),
        _ => Ok(address),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(address) => write!(f, "{address}"),
            Self::Cluster(nodes) => {
                f.write_str("Cluster")?;
                nodes.iter().try_for_each(|node| write!(f, " {node}"))
            }
            Self::Sentinel(sentinels) => {
                write!(f, "master {} of Sentinels", sentinels.master)?;
                sentinels.asked.iter().try_for_each(|address| write!(f, " {address}"))
            }
        }
    }
}

/// Any of these URLs without its credentials.
pub fn redact(url: &str) -> String {
    for prefix in [CLUSTER, CLUSTER_TLS, SENTINEL, SENTINEL_TLS] {
        if let Some(rest) = url.trim().strip_prefix(prefix) {
            let (rest, query) = match rest.split_once('?') {
                // It may be a password with a `?` in it.
                Some((_, behind)) if behind.contains('@') => return format!("{prefix}…"),
                Some((before, _)) => (before, "?***"),
                None => (rest, ""),
            };
            let (credentials, hosts) = split_credentials(rest);
            let sound =
                hosts.bytes().all(|b| b.is_ascii_alphanumeric() || b".:,/-_[]".contains(&b));
            let shown = if credentials.is_empty() { "" } else { "***@" };
            return format!("{prefix}{shown}{}{query}", if sound { hosts } else { "…" });
        }
    }
    redact_url(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_shows_no_credentials() {
        let rows = [
            ("redis://u:hunter2@h:1", "redis://***@h:1", "redis://***@h:1"),
            (
                "redis-cluster://u:hunter2@a:1,b:2",
                "Cluster redis://a:1 redis://b:2",
                "redis-cluster://***@a:1,b:2",
            ),
            (
                "rediss-sentinel://:hunter2@a:1,b:2/main/3",
                "master main of Sentinels redis://a:1 redis://b:2",
                "rediss-sentinel://***@a:1,b:2/main/3",
            ),
            (
                "redis-sentinel://u:p@a:1/main?sentinel_tls=true&sentinel_user=s&sentinel_password=hunter2",
                "master main of Sentinels rediss://a:1",
                "redis-sentinel://***@a:1/main?***",
            ),
        ];
        for (url, place, shown) in rows {
            assert_eq!(Place::parse(url).expect(url).to_string(), place);
            assert_eq!(redact(url), shown);
        }
        let tls = |url: &str| Place::parse(url).expect(url).is_tls();
        assert!(tls("rediss-cluster://a:1") && tls("rediss-sentinel://a:1/m"));
        assert!(tls("redis-sentinel://a:1/m?sentinel_tls=true"), "the Sentinels");
        let shown = redact("redis-sentinel://u:hun?ter2@a:1/main?sentinel_password=hunter2");
        assert_eq!(shown, "redis-sentinel://…");
        assert!(!tls("redis-cluster://a:1") && !tls("redis-sentinel://a:1/m"));
        for (url, expected) in [
            ("redis-cluster://a:1/2", "one database"),
            ("redis-sentinel://a:1", "names no master"),
            ("redis-sentinel://a:1/", "names no master"),
            ("redis-sentinel://a:1/m?sentinel_tls=maybe", "behind the question mark"),
            ("redis-sentinel://a:1/m?db=3", "behind the question mark"),
            ("redis-cluster://", "lacks a host"),
            ("redis-cluster://a:1,", "lacks a host"),
            ("redis://a:1,b:2", "redis-cluster://"),
        ] {
            let error = Place::parse(url).expect_err(url);
            assert!(error.contains(expected), "{url}: {error}");
        }
    }
}
