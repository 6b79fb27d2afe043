//! Owns the table of settings (flag, variables, default) and how a value is found and checked.
//! Knows nothing of how settings depend on one another.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_policy::scope::{Environment as ScopeEnvironment, Region};

use super::Environment;
use crate::logging::{self, LogFormat};
use crate::secret::shown;
use crate::store::keys::KeyStyle;
use crate::store::redis::place::{self, Place};

/// One setting.
#[derive(Debug)]
pub struct Knob {
    /// The flag, or the variable's name where there is no flag.
    pub flag: &'static str,
    /// Variables, the first that is set wins.
    pub variables: &'static [&'static str],
    /// The default's text; `None` if absence means something.
    pub default: Option<&'static str>,
    /// How a value is shown.
    pub show: fn(&str) -> String,
}

macro_rules! knobs {
    ($($name:ident: $flag:literal, [$($variable:literal),*], $default:expr, $show:expr;)*) => {
        $(pub const $name: Knob = Knob {
            flag: $flag,
            variables: &[$($variable),*],
            default: $default,
            show: $show,
        };)*
        /// Every setting.
        pub const ALL: &[&Knob] = &[$(&$name,)* &REDIS_URL];
    };
}

knobs! {
    LISTEN: "--listen", ["TIDEGATE_LISTEN"], Some("127.0.0.1:10080"), plain;
    ADMIN_LISTEN: "--admin-listen", ["TIDEGATE_ADMIN_LISTEN"], Some("127.0.0.1:10081"), plain;
    TLS_CERT: "--tls-cert", ["TIDEGATE_TLS_CERT"], None, shown;
    TLS_KEY: "--tls-key", ["TIDEGATE_TLS_KEY"], None, shown;
    TLS_CLIENT_CA: "--tls-client-ca", ["TIDEGATE_TLS_CLIENT_CA"], None, shown;
    ADMIN_TLS: "--admin-tls", ["TIDEGATE_ADMIN_TLS"], None, plain;
    REDIS_TLS_CA: "--redis-tls-ca", ["TIDEGATE_REDIS_TLS_CA"], None, shown;
    REDIS_TLS_CERT: "--redis-tls-cert", ["TIDEGATE_REDIS_TLS_CERT"], None, shown;
    REDIS_TLS_KEY: "--redis-tls-key", ["TIDEGATE_REDIS_TLS_KEY"], None, shown;
    CORES: "--cores", ["TIDEGATE_CORES"], None, plain;
    REDIS_CONNECTIONS: "--redis-connections", ["TIDEGATE_REDIS_CONNECTIONS"], None, plain;
    REDIS_RESPONSE_TIMEOUT: "--redis-response-timeout", ["TIDEGATE_REDIS_RESPONSE_TIMEOUT"], Some("250ms"), plain;
    MAX_IN_FLIGHT: "--max-in-flight", ["TIDEGATE_MAX_IN_FLIGHT", "REDIS_POOL_SIZE"], Some("100"), plain;
    POOL_WAIT: "--pool-wait", ["TIDEGATE_POOL_WAIT"], Some("15ms"), plain;
    POOL_LOG_INTERVAL: "--pool-log-interval", ["TIDEGATE_POOL_LOG_INTERVAL"], Some("60s"), plain;
    STORE_BREAKER_FAILURES: "--store-breaker-failures", ["TIDEGATE_STORE_BREAKER_FAILURES"], Some("5"), plain;
    STORE_BREAKER_OPEN: "--store-breaker-open", ["TIDEGATE_STORE_BREAKER_OPEN"], Some("10s"), plain;
    STORE_BREAKER_SUCCESSES: "--store-breaker-successes", ["TIDEGATE_STORE_BREAKER_SUCCESSES"], Some("3"), plain;
    DEADLINE: "--deadline", ["TIDEGATE_DEADLINE"], Some("30ms"), plain;
    REGION: "--region", ["TIDEGATE_REGION", "CLOUD_RUN_REGION"], None, plain;
    ENVIRONMENT: "--environment", ["TIDEGATE_ENVIRONMENT"], Some("default"), plain;
    TOKEN_FILE: "--token-file", ["TIDEGATE_TOKEN_FILE"], None, shown;
    ADMIN_TOKENS_FILE: "--admin-tokens-file", ["TIDEGATE_ADMIN_TOKENS_FILE"], None, shown;
    COLD_START: "--cold-start", ["TIDEGATE_COLD_START"], None, plain;
    KEY_STYLE: "--key-style", ["TIDEGATE_KEY_STYLE"], Some("sharded"), plain;
    DEV: "--dev", ["TIDEGATE_DEV"], None, plain;
    DRAIN_TIMEOUT: "--drain-timeout", ["TIDEGATE_DRAIN_TIMEOUT"], Some("10s"), plain;
    MEMORY_KEYS_MAX: "--memory-keys-max", ["TIDEGATE_MEMORY_KEYS_MAX"], Some("1000000"), plain;
    LOG_FORMAT: "--log-format", ["TIDEGATE_LOG_FORMAT"], Some("text"), plain;
    LOG_FILTER: "RUST_LOG", ["RUST_LOG"], Some("info"), plain;
    ADDRESSES_FILE: "--addresses-file", ["TIDEGATE_ADDRESSES_FILE"], None, plain;
    AUDIT_DIR: "--audit-dir", ["TIDEGATE_AUDIT_DIR"], None, plain;
    AUDIT_TICK: "--audit-tick", ["TIDEGATE_AUDIT_TICK"], Some("50ms"), plain;
    AUDIT_SPOOL_MAX: "--audit-spool-max", ["TIDEGATE_AUDIT_SPOOL_MAX"], Some("100000000"), plain;
    AUDIT_WHEN_FULL: "--audit-when-full", ["TIDEGATE_AUDIT_WHEN_FULL"], Some("refuse"), plain;
    AUDIT_SYNC: "--audit-sync", ["TIDEGATE_AUDIT_SYNC"], Some("admin"), plain;
    AUDIT_CHECKPOINT_DIR: "--audit-checkpoint-dir", ["TIDEGATE_AUDIT_CHECKPOINT_DIR"], None, plain;
    AUDIT_CHECKPOINT_NAME: "--audit-checkpoint-name", ["TIDEGATE_AUDIT_CHECKPOINT_NAME"], None, plain;
    AUDIT_CHECKPOINT_KEY_FILE: "--audit-checkpoint-key-file", ["TIDEGATE_AUDIT_CHECKPOINT_KEY_FILE"], None, shown;
    AUDIT_SUBJECT_KEY_FILE: "--audit-subject-key-file", ["TIDEGATE_AUDIT_SUBJECT_KEY_FILE"], None, shown;
}

pub const REDIS_URL: Knob = Knob {
    flag: "--redis-url",
    variables: &["TIDEGATE_REDIS_URL"],
    default: None,
    show: place::redact,
};

/// A setting's value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    name: &'static str,
    value: String,
    from: &'static str,
}

/// Finds values and gathers what is wrong with them.
pub struct Resolver<'a> {
    environment: &'a Environment,
    chosen: Vec<Chosen>,
    problems: Vec<String>,
}

// === impl Knob ===

impl Knob {
    /// The flag and the variables, for messages.
    pub fn name(&self) -> String {
        match self.variables {
            [variable] if *variable == self.flag => self.flag.to_owned(),
            variables => format!("{} ({})", self.flag, variables.join(" or ")),
        }
    }
}

// === impl Chosen ===

impl Chosen {
    /// The setting's name and where its value came from, unless that is the default.
    pub fn given(&self) -> Option<(&'static str, &'static str)> {
        (self.from != "default").then_some((self.name, self.from))
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} ({})", self.name.trim_start_matches('-'), self.value, self.from)
    }
}

// === impl Resolver ===

impl<'a> Resolver<'a> {
    pub fn new(environment: &'a Environment) -> Self {
        Self { environment, chosen: Vec::new(), problems: Vec::new() }
    }

    pub fn environment(&self) -> &'a Environment {
        self.environment
    }

    /// The value of a setting that has a default; `None` after a problem was noted.
    pub fn take<T>(
        &mut self,
        knob: &Knob,
        flag: Option<String>,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, from) =
            self.find(knob, flag).or(knob.default.map(|d| (d.to_owned(), "default")))?;
        self.parse(knob, &text, from, parse)
    }

    /// The value of a setting whose default depends on others or on the machine.
    pub fn or_else(
        &mut self,
        knob: &Knob,
        flag: Option<String>,
        default: usize,
        parse: fn(&str) -> Result<usize, String>,
    ) -> Option<usize> {
        let (text, from) = self.find(knob, flag).unwrap_or((default.to_string(), "default"));
        self.parse(knob, &text, from, parse)
    }

    /// The value of a setting that may be absent.
    pub fn maybe<T>(
        &mut self,
        knob: &Knob,
        flag: Option<String>,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, from) = self.find(knob, flag)?;
        self.parse(knob, &text, from, parse)
    }

    /// A switch: the flag, or a variable that says yes or no.
    pub fn switch(&mut self, knob: &Knob, flag: bool) -> Option<bool> {
        let flag = flag.then(|| "1".to_owned());
        match self.find(knob, flag) {
            Some((text, from)) => self.parse(knob, &text, from, yes_or_no),
            None => Some(false),
        }
    }

    pub fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub fn finish(self) -> Result<Vec<Chosen>, Vec<String>> {
        if self.problems.is_empty() { Ok(self.chosen) } else { Err(self.problems) }
    }

    fn find(&self, knob: &Knob, flag: Option<String>) -> Option<(String, &'static str)> {
        if let Some(text) = flag {
            return Some((text, knob.flag));
        }
        knob.variables.iter().find_map(|&variable| {
            let text = self.environment.get(variable)?;
            (!text.is_empty()).then(|| (text.to_owned(), variable))
        })
    }

    fn parse<T>(
        &mut self,
        knob: &Knob,
        text: &str,
        from: &'static str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => {
                let value_text = (knob.show)(text);
                self.chosen.push(Chosen { name: knob.flag, value: value_text, from });
                Some(value)
            }
            Err(problem) => {
                self.problem(format!("{} is {:?}: {problem}", knob.name(), (knob.show)(text)));
                None
            }
        }
    }
}

pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|error| {
        format!("{error}: write an IP address and a port, such as 127.0.0.1:10080 or [::]:10080")
    })
}

pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number @ 1..=1_000_000_000) => Ok(number),
        Ok(_) => Err("must be at most 1000000000".to_owned()),
        Err(error) => Err(format!("{error}: write a whole number")),
    }
}

/// A whole number from 1 to 255.
pub fn octet(text: &str) -> Result<u8, String> {
    u8::try_from(count(text)?).ok().ok_or_else(|| "must be at most 255".to_owned())
}

/// `15ms`, `2s`, `1m`; a bare number has no unit and is refused.
pub fn duration(text: &str) -> Result<Duration, String> {
    let hint = "write a whole number and a unit, such as 15ms, 2s or 1m";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("is no duration: {hint}")),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}: {hint}"))?;
    match number.checked_mul(scale_ms) {
        Some(0) => Err("must be longer than nothing".to_owned()),
        Some(ms @ 1..=3_600_000) => Ok(Duration::from_millis(ms)),
        Some(_) | None => Err("must be at most 60m".to_owned()),
    }
}

/// A duration, or `off`.
pub fn cold_start(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    duration(text).map(Some).map_err(|error| format!("{error}; or off"))
}

pub fn key_style(text: &str) -> Result<KeyStyle, String> {
    match text {
        "sharded" => Ok(KeyStyle::Sharded),
        "plain" => Ok(KeyStyle::Plain),
        _ => Err("must be sharded or plain".to_owned()),
    }
}

pub fn region(text: &str) -> Result<Region, String> {
    Region::new(text).map_err(|error| error.to_string())
}

pub fn environment(text: &str) -> Result<ScopeEnvironment, String> {
    ScopeEnvironment::new(text).map_err(|error| error.to_string())
}

pub fn redis_url(text: &str) -> Result<Place, String> {
    Place::parse(text)
}

pub fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

pub fn log_filter(text: &str) -> Result<String, String> {
    match logging::filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(format!("{error}: write directives such as info or tidegate_gateway=debug"))
        }
    }
}

fn plain(text: &str) -> String {
    text.to_owned()
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err("must be 1 or 0".to_owned()),
    }
}
