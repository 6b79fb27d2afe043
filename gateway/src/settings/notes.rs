//! Owns what the log says of the settings at start: variables of a connection pool that have no
//! effect here, and doors that stand open. Source: product row A6 ("a setting without effect says so
//! in the log instead of being swallowed").

use super::Environment;

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

/// The lines for the log.
pub fn notes(
    environment: &Environment,
    without_token: bool,
    without_admin_tokens: bool,
    dev: bool,
) -> Vec<String> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let mut notes: Vec<String> = WITHOUT_EFFECT
        .iter()
        .filter_map(|(name, instead)| {
            let value = set(name)?;
            Some(format!("{name}={value} has no effect with multiplexed connections: {instead}"))
        })
        .collect();
    if set("REDIS_POOL_SIZE").is_some() && set("TIDEGATE_MAX_IN_FLIGHT").is_some() {
        notes.push("REDIS_POOL_SIZE has no effect: TIDEGATE_MAX_IN_FLIGHT is set too".to_owned());
    }
    if set("CLOUD_RUN_REGION").is_some() && set("TIDEGATE_REGION").is_some() {
        notes.push("CLOUD_RUN_REGION has no effect: TIDEGATE_REGION is set too".to_owned());
    }
    if dev && without_token {
        notes.push("--dev: every caller is accepted on the filter's listener".to_owned());
    }
    match (without_admin_tokens, dev) {
        (true, true) => {
            notes.push("--dev: metrics and status are open on the admin listener".to_owned());
        }
        (true, false) => notes.push(
            "no administrator can read metrics or status: set --admin-tokens-file (TIDEGATE_ADMIN_TOKENS_FILE) or TIDEGATE_ADMIN_TOKENS".to_owned(),
        ),
        (false, _) => {}
    }
    notes
}
