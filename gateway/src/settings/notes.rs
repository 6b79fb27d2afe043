//! Owns what the log says of the settings at start: variables of a connection pool that have no
//! effect here, and doors that stand open. Source: product row A6 ("a setting without effect says so
//! in the log instead of being swallowed").

use tidegate_policy::config::nearest;

use super::Environment;
use super::audit::AuditSettings;
use super::knob::{self, Chosen};
use super::seal;

/// What the names of the gateway's variables begin with, and those of a Redis pool's.
const PREFIXES: [&str; 2] = ["TIDEGATE_", "REDIS_"];
/// So do others of the gateway's, and those of other programs: only what is nearly one of these is named.
const SHARED_PREFIXES: [&str; 2] = ["AUDIT_", "REVOKED_"];
/// The variables of audit keys; a larger version may stand in place of 1.
const AUDIT_KEYS: [&str; 6] = [
    "AUDIT_PRIVATE_KEY_V1",
    "AUDIT_PRIVATE_KEY_V1_FILE",
    "AUDIT_PRIVATE_KEY_DIR",
    "AUDIT_PUBLIC_KEY_V1",
    "AUDIT_PUBLIC_KEY_V1_FILE",
    "REVOKED_KEY_VERSIONS",
];
/// Variables that are no flags, too.
const SECRETS: [&str; 4] = [
    "TIDEGATE_TOKEN",
    "TIDEGATE_ADMIN_TOKENS",
    "TIDEGATE_AUDIT_CHECKPOINT_KEY",
    "TIDEGATE_AUDIT_SUBJECT_KEY",
];

/// A variable of a classic connection pool, and what does its work here.
const WITHOUT_EFFECT: [(&str, &str); 8] = [
    ("REDIS_POOL_TIMEOUT", "--pool-wait (TIDEGATE_POOL_WAIT) bounds the wait for a place"),
    (
        "REDIS_MIN_IDLE_CONNS",
        "--redis-connections (TIDEGATE_REDIS_CONNECTIONS) are always kept open",
    ),
    (
        "REDIS_MAX_CONN_AGE",
        "connections are supervised and replaced when they break or fall silent",
    ),
    ("REDIS_IDLE_TIMEOUT", "connections are shared by all calls and never idle out"),
    ("REDIS_IDLE_CHECK", "the store is probed every second"),
    ("REDIS_IDLE_CHECK_FREQUENCY", "the store is probed every second"),
    ("REDIS_IDLE_CHECK_FREQ", "the store is probed every second"),
    ("REDIS_MAX_RETRIES", "a call is never repeated: it might be charged twice"),
];

/// A variable that counts as unset when it is empty, its flag, and what follows: worth a line, since whoever set it
/// meant something else.
const EMPTY: [(&str, &str, &str); 4] = [
    ("TIDEGATE_REDIS_URL", "--redis-url", "the state is in memory and ends with the process"),
    ("TIDEGATE_TLS_CERT", "--tls-cert", "the listeners speak plain HTTP"),
    ("TIDEGATE_TLS_KEY", "--tls-key", "the listeners speak plain HTTP"),
    ("TIDEGATE_TLS_CLIENT_CA", "--tls-client-ca", "clients need no certificate"),
];

/// What was given, as far as the log says something of it.
pub struct Found<'a> {
    pub token: bool,
    pub admin_tokens: bool,
    pub dev: bool,
    pub audit: Option<&'a AuditSettings>,
    pub redis: bool,
}

/// The lines for the log.
pub fn notes(environment: &Environment, found: Found<'_>) -> Vec<String> {
    let Found { token, admin_tokens, dev, audit, redis } = found;
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let mut notes: Vec<String> = WITHOUT_EFFECT
        .iter()
        .filter_map(|(name, instead)| {
            let value = set(name)?;
            Some(format!("{name}={value} has no effect with multiplexed connections: {instead}"))
        })
        .collect();
    let unknown = environment.names().filter(|name| set(name).is_some_and(|v| unknown(name, v)));
    notes.extend(unknown.map(no_setting));
    notes.extend(environment.names().filter(|name| set(name).is_some()).filter_map(slip));
    if set("REDIS_POOL_SIZE").is_some() && set("TIDEGATE_MAX_IN_FLIGHT").is_some() {
        notes.push("REDIS_POOL_SIZE has no effect: TIDEGATE_MAX_IN_FLIGHT is set too".to_owned());
    }
    if set("CLOUD_RUN_REGION").is_some() && set("TIDEGATE_REGION").is_some() {
        notes.push("CLOUD_RUN_REGION has no effect: TIDEGATE_REGION is set too".to_owned());
    }
    if dev && !token {
        notes.push("--dev: every caller is accepted on the filter's listener".to_owned());
    }
    match (admin_tokens, dev) {
        (false, true) => {
            notes.push("--dev: metrics and status are open on the admin listener".to_owned());
        }
        (false, false) => notes.push(
            "no administrator can read metrics or status: set --admin-tokens-file (TIDEGATE_ADMIN_TOKENS_FILE) or TIDEGATE_ADMIN_TOKENS".to_owned(),
        ),
        (true, _) => {}
    }
    match audit {
        None => notes.push(
            "audit events go to the log only: to keep a chain, set AUDIT_PRIVATE_KEY_V1 (tidegate-audit keys generate) and --audit-dir (TIDEGATE_AUDIT_DIR)".to_owned(),
        ),
        Some(audit) => {
            if !redis {
                notes.push("the audit chain ends with the process: it is kept in memory".to_owned());
            }
            if audit.checkpoints.is_none() {
                notes.push("no audit checkpoints are written: a stolen key, or an end that is cut off, would not be found; set --audit-checkpoint-dir (TIDEGATE_AUDIT_CHECKPOINT_DIR)".to_owned());
            }
        }
    }
    notes
}

/// Variables that are empty, and whose setting nothing else gives.
pub fn empty(environment: &Environment, chosen: &[Chosen]) -> Vec<String> {
    let given = |flag: &str| chosen.iter().filter_map(Chosen::given).any(|(name, _)| name == flag);
    let empty = EMPTY
        .iter()
        .filter(|(name, flag, _)| environment.get(name).is_some_and(str::is_empty) && !given(flag));
    empty.map(|(name, _, then)| format!("{name} is empty and counts as unset: {then}")).collect()
}

/// Settings that were given and have no effect with this kind of store.
pub fn idle(chosen: &[Chosen], redis: bool) -> Vec<String> {
    // A store in memory neither fails nor keeps anybody waiting, so its guard has nothing to do.
    const OF_REDIS: [&str; 6] = [
        "--redis-connections",
        "--redis-response-timeout",
        "--key-style",
        "--store-breaker-failures",
        "--store-breaker-open",
        "--store-breaker-successes",
    ];
    let (idle, why) = if redis {
        (["--memory-keys-max"].as_slice(), "the state is in Redis")
    } else {
        let why = "there is no --redis-url (TIDEGATE_REDIS_URL), the state is in memory";
        (OF_REDIS.as_slice(), why)
    };
    let given = chosen.iter().filter_map(Chosen::given);
    given
        .filter(|(flag, _)| idle.contains(flag))
        .map(|(flag, from)| format!("{flag} (given by {from}) has no effect: {why}"))
        .collect()
}

/// Whether a variable is named as one of the gateway's.
pub fn ours(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn known() -> Vec<&'static str> {
    let settings = knob::ALL.iter().flat_map(|knob| knob.variables.iter().copied());
    settings.chain(SECRETS).chain(WITHOUT_EFFECT.map(|(name, _)| name)).collect()
}

/// Named like a setting, and none. An orchestrator names the addresses of its services the same way.
fn unknown(name: &str, value: &str) -> bool {
    let of_a_service = value.starts_with("tcp://")
        || value.starts_with("udp://")
        || ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_UDP"].iter().any(|n| name.contains(n));
    ours(name) && !of_a_service && !seal::known(name) && !known().contains(&name)
}

/// A variable that is nearly one of audit keys.
fn slip(name: &str) -> Option<String> {
    let shared = SHARED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let is_digit = |c: char| c.is_ascii_digit();
    let bare = |text: &str| (text.replace(is_digit, ""), text.contains(is_digit));
    let known = AUDIT_KEYS.iter().any(|known| bare(known) == bare(name));
    let meant = nearest(name, &AUDIT_KEYS).filter(|_| shared && !known)?;
    Some(format!("{name} is no setting of the gateway and has no effect: did you mean {meant}?"))
}

fn no_setting(name: &str) -> String {
    let known = known();
    let own = name.strip_prefix("REDIS_").map(|rest| format!("TIDEGATE_REDIS_{rest}"));
    let meant = known.iter().copied().find(|known| own.as_deref() == Some(*known));
    match meant.or_else(|| nearest(name, &known)) {
        Some(meant) => {
            format!("{name} is no setting of the gateway and has no effect: did you mean {meant}?")
        }
        None => format!("{name} is no setting of the gateway and has no effect: unset it"),
    }
}
