//! Owns what the gateway is told at start: flags, environment, defaults, and the checks between
//! them. Knows neither sockets nor stores; reads no process state, only what it is handed.
//!
//! A flag beats its environment variable, which beats the default. Every problem is reported at
//! once, each with the flag, the variable, the value and the remedy. An empty variable counts as
//! unset, except for secrets and for the environment's name, which the filter reads as well.

pub mod audit;
mod cli;
mod cores;
mod doors;
mod knob;
mod notes;
pub mod seal;
mod tls;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tidegate_policy::breaker::alone;
use tidegate_policy::scope::Region;
use zeroize::Zeroizing;

use self::cli::{Cli, Command, ServeArgs};
use self::doors::{refuse_open_door, secret};
use self::knob::{Chosen, Resolver};
use crate::logging::LogFormat;
use crate::secret::SecretSource;
use crate::service::ServiceSettings;
use crate::service::admission::AdmissionSettings;
use crate::store::keys::KeyStyle;
use crate::store::redis::place::Place;
use crate::store::redis::{self, RedisSettings};
use crate::tls::TlsFiles;

/// A region is cold for that long where Redis keeps its state, if nothing else is said (product row
/// A2).
const COLD_START: Duration = Duration::from_secs(300);

/// The process environment as a value: what is text, and the names of what is none. Some of it is keys, so all of it is
/// wiped when it is dropped.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    texts: BTreeMap<String, Zeroizing<String>>,
    garbled: Vec<String>,
}

/// Everything the gateway is told, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The filter's listener.
    pub listen: SocketAddr,
    /// The operators' listener.
    pub admin_listen: SocketAddr,
    /// TLS of the filter's listener.
    pub tls: Option<TlsFiles>,
    /// TLS of the operators' listener.
    pub admin_tls: Option<TlsFiles>,
    /// Redis; `None` keeps state in memory.
    pub redis: Option<RedisSettings>,
    /// How many threads answer the filter.
    pub cores: usize,
    /// What seals stored answers in Redis; `None` stores them as they are.
    pub seal: seal::Sealing,
    /// The most keys of the memory store.
    pub memory_keys_max: usize,
    /// How long the memory store is cold after its start; `None` exempts it.
    pub memory_cold: Option<Duration>,
    /// The service's part.
    pub service: ServiceSettings,
    /// The filter's tokens; `None` only with `dev`.
    pub token: Option<SecretSource>,
    /// The administrators' tokens.
    pub admin_tokens: Option<SecretSource>,
    /// Opens what has no token configured.
    pub dev: bool,
    /// How often the statistics of store calls are logged.
    pub pool_log_interval: Duration,
    /// How long calls under way may take to finish at the end.
    pub drain_timeout: Duration,
    /// Where to write the bound addresses once they are known.
    pub addresses_file: Option<PathBuf>,
    /// The audit chain; `None` keeps none.
    pub audit: Option<audit::AuditSettings>,
    /// The form of the log.
    pub log_format: LogFormat,
    /// The log's filter.
    pub log_filter: String,
    /// What the log says at start: settings without effect, and the like.
    pub notes: Vec<String>,
    /// Every setting as it was chosen, for the log at start.
    pub chosen: Vec<Chosen>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The command line asks for help, or cannot be read.
    #[error("{0}")]
    Usage(#[from] clap::Error),
    /// Values that cannot be, all of them.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

// === impl Environment ===

impl Environment {
    /// From pairs.
    pub fn new(pairs: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => drop(environment.texts.insert(name, Zeroizing::new(value))),
                Err(_no_text) => environment.garbled.push(name),
            }
        }
        environment
    }

    /// The variables whose values are no text.
    fn garbled(&self) -> &[String] {
        &self.garbled
    }

    /// Those variables alone.
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.texts.iter().filter(|(name, _)| keep(name));
        let texts = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { texts, garbled: self.garbled.clone() }
    }

    /// Every variable's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    /// A variable's value, also if it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(|value| value.as_str())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        let texts =
            pairs.map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned()))).into();
        Self { texts, garbled: Vec::new() }
    }
}

// === impl SettingsError ===

impl SettingsError {
    /// The process's exit code: 0 if help was asked for.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) if error.exit_code() == 0 => 0,
            Self::Usage(_) | Self::Values(_) => 2,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Reads a command line, the program's name first, and an environment.
    pub fn parse<I, A>(arguments: I, environment: &Environment) -> Result<Self, SettingsError>
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString> + Clone,
    {
        let Cli { command: Command::Serve(arguments) } = Cli::try_parse_from(arguments)?;
        let mut resolver = Resolver::new(environment);
        let settings = resolve(*arguments, &mut resolver);
        match (settings, resolver.finish()) {
            (Some(mut settings), Ok(chosen)) => {
                settings.notes.extend(notes::idle(&chosen, settings.redis.is_some()));
                settings.notes.extend(notes::empty(environment, &chosen));
                settings.chosen = chosen;
                Ok(settings)
            }
            (_, Err(problems)) => Err(SettingsError::Values(problems)),
            (None, Ok(_)) => {
                Err(SettingsError::Values(vec!["the settings are incomplete".to_owned()]))
            }
        }
    }
}

/// `None` only after the resolver has noted why.
fn resolve(arguments: ServeArgs, resolver: &mut Resolver<'_>) -> Option<Settings> {
    for name in resolver.environment().garbled().iter().filter(|name| notes::ours(name)) {
        resolver.problem(format!("{name} is no text: write it in UTF-8 or unset it"));
    }
    let listen = resolver.take(&knob::LISTEN, arguments.listen, knob::address);
    let admin_listen = resolver.take(&knob::ADMIN_LISTEN, arguments.admin_listen, knob::address);
    let tls = tls::listeners(arguments.tls, resolver);
    let redis = resolver.maybe(&knob::REDIS_URL, arguments.redis_url, knob::redis_url);
    let redis_tls = tls::redis(arguments.redis_tls, redis.as_ref(), resolver);
    let cores = cores::cores(arguments.cores, resolver);
    let connections = resolver.or_else(
        &knob::REDIS_CONNECTIONS,
        arguments.redis_connections,
        cores.unwrap_or(1),
        knob::count,
    );
    let response_timeout = resolver.take(
        &knob::REDIS_RESPONSE_TIMEOUT,
        arguments.redis_response_timeout,
        knob::duration,
    );
    let max_in_flight = resolver.take(&knob::MAX_IN_FLIGHT, arguments.max_in_flight, knob::count);
    let pool_wait = resolver.take(&knob::POOL_WAIT, arguments.pool_wait, knob::duration);
    let pool_log_interval =
        resolver.take(&knob::POOL_LOG_INTERVAL, arguments.pool_log_interval, knob::duration);
    let deadline = resolver.take(&knob::DEADLINE, arguments.deadline, knob::duration);
    let failures =
        resolver.take(&knob::STORE_BREAKER_FAILURES, arguments.store_breaker_failures, knob::count);
    let open =
        resolver.take(&knob::STORE_BREAKER_OPEN, arguments.store_breaker_open, knob::duration);
    let successes = resolver.take(
        &knob::STORE_BREAKER_SUCCESSES,
        arguments.store_breaker_successes,
        knob::octet,
    );
    let region = resolver.maybe(&knob::REGION, arguments.region, knob::region);
    if arguments.environment.is_none()
        && resolver.environment().get("TIDEGATE_ENVIRONMENT") == Some("")
    {
        resolver.problem(
            "TIDEGATE_ENVIRONMENT is empty: write the environment's name into it or unset it"
                .to_owned(),
        );
    }
    let environment = resolver.take(&knob::ENVIRONMENT, arguments.environment, knob::environment);
    let cold = resolver.maybe(&knob::COLD_START, arguments.cold_start, knob::cold_start);
    let style = resolver.take(&knob::KEY_STYLE, arguments.key_style, knob::key_style);
    let token_file = resolver.maybe(&knob::TOKEN_FILE, arguments.token_file, knob::path);
    let admin_file =
        resolver.maybe(&knob::ADMIN_TOKENS_FILE, arguments.admin_tokens_file, knob::path);
    let dev = resolver.switch(&knob::DEV, arguments.dev);
    let drain_timeout =
        resolver.take(&knob::DRAIN_TIMEOUT, arguments.drain_timeout, knob::duration);
    let memory_keys_max =
        resolver.take(&knob::MEMORY_KEYS_MAX, arguments.memory_keys_max, knob::count);
    let audit = audit::audit(arguments.audit, resolver);
    let log_format = resolver.take(&knob::LOG_FORMAT, arguments.log_format, knob::log_format);
    let log_filter = resolver.take(&knob::LOG_FILTER, None, knob::log_filter);
    let addresses_file =
        resolver.maybe(&knob::ADDRESSES_FILE, arguments.addresses_file, knob::path);

    if let (Some(pool_wait), Some(deadline)) = (pool_wait, deadline)
        && pool_wait >= deadline
    {
        resolver.problem(format!(
            "--pool-wait (TIDEGATE_POOL_WAIT) is {pool_wait:?}, but must be shorter than --deadline (TIDEGATE_DEADLINE), which is {deadline:?}: a caller must know that there is no place before its time is up; lower the first or raise the second"
        ));
    }
    let token = secret(resolver, "TIDEGATE_TOKEN", "--token-file", token_file);
    let admin_tokens = secret(resolver, "TIDEGATE_ADMIN_TOKENS", "--admin-tokens-file", admin_file);
    if token.is_none() && dev == Some(false) {
        resolver.problem(
            "no token for the filter: set --token-file (TIDEGATE_TOKEN_FILE) or TIDEGATE_TOKEN, or pass --dev (TIDEGATE_DEV=1) to accept every caller on this machine".to_owned(),
        );
    }
    if dev == Some(true) {
        let tokens = "--token-file (TIDEGATE_TOKEN_FILE) or TIDEGATE_TOKEN";
        refuse_open_door(resolver, &knob::LISTEN, listen, token.as_ref(), tokens);
        let tokens = "--admin-tokens-file (TIDEGATE_ADMIN_TOKENS_FILE) or TIDEGATE_ADMIN_TOKENS";
        refuse_open_door(
            resolver,
            &knob::ADMIN_LISTEN,
            admin_listen,
            admin_tokens.as_ref(),
            tokens,
        );
    }
    let (deadline, max_in_flight, cores) = (deadline?, max_in_flight?, cores?);
    let ((tls, admin_tls), redis_tls) = (tls?, redis_tls?);
    let audit = audit?;
    if let (Some(Place::Cluster(_)), Some(KeyStyle::Plain)) = (&redis, style) {
        resolver.problem(
            "--key-style (TIDEGATE_KEY_STYLE) is plain, but --redis-url (TIDEGATE_REDIS_URL) names a Redis Cluster: plain keys of one subject share no slot there; write sharded".to_owned(),
        );
    }
    let service = ServiceSettings {
        region_configured: region.is_some(),
        region: region.unwrap_or_else(Region::fallback),
        environment: environment.unwrap_or_default(),
        admission: AdmissionSettings { max_in_flight, pool_wait: pool_wait?, deadline },
        breaker: alone::Settings {
            failures: small(failures?),
            open_ms: u32::try_from(open?.as_millis()).unwrap_or(u32::MAX),
            successes: successes?,
            ..alone::Settings::default()
        },
    };
    let region = redis::Region {
        name: service.region.clone(),
        environment: service.environment.clone(),
        style: style?,
        cold: cold.unwrap_or(Some(COLD_START)),
    };
    let stored = redis.is_some();
    let redis = redis.map(|place| RedisSettings {
        place,
        tls: redis_tls,
        connections: connections.unwrap_or(cores),
        response_timeout: response_timeout.unwrap_or(deadline),
        pipeline_len_max: max_in_flight,
        region,
    });
    Some(Settings {
        listen: listen?,
        admin_listen: admin_listen?,
        tls,
        admin_tls,
        redis,
        cores,
        seal: seal::seal(resolver),
        memory_keys_max: memory_keys_max?,
        memory_cold: cold.flatten(),
        service,
        notes: notes::notes(
            resolver.environment(),
            notes::Found {
                token: token.is_some(),
                admin_tokens: admin_tokens.is_some(),
                dev: dev?,
                audit: audit.as_ref(),
                redis: stored,
            },
        ),
        audit,
        token,
        admin_tokens,
        dev: dev?,
        pool_log_interval: pool_log_interval?,
        drain_timeout: drain_timeout?,
        addresses_file,
        log_format: log_format?,
        log_filter: log_filter?,
        chosen: Vec::new(),
    })
}

/// What exceeds four thousand million counts as that.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, chosen) in self.chosen.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{chosen}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
