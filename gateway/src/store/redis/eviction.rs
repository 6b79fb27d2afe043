//! Owns the look at whether a server throws keys away once its memory is full. Knows no keys.
//!
//! A limit's key that is thrown away while the marks of its region stay is a full bucket in a region that is
//! old: no guard can notice. A record of an idempotency key would be a second run. So this has to be said,
//! whatever the server does for now.

use redis::{ErrorKind, RedisResult, ServerErrorKind};

use super::link::Live;

/// Says so in the log and in a metric if the server would; what it does not tell is no failure of the call.
pub async fn look(live: &mut Live) {
    match policy(live).await {
        Ok(Some(policy)) => {
            live.counters().evicting.inc();
            tracing::error!(
                critical = true,
                redis = %live.target(),
                maxmemory_policy = policy,
                "Redis throws keys away when its memory is full: limits would be forgotten and idempotent requests run again; set maxmemory-policy to noeviction"
            );
        }
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
            tracing::warn!(
                redis = %live.target(),
                "cannot see whether Redis throws keys away when its memory is full: give the gateway's user +info"
            );
        }
        Err(error) => tracing::debug!(%error, "INFO memory"),
    }
}

/// What it throws away by, if it does.
async fn policy(live: &mut Live) -> RedisResult<Option<String>> {
    let reply = live.send(redis::cmd("INFO").arg("memory")).await?;
    let text: String = redis::from_redis_value(reply)?;
    Ok(evicting(&text).map(str::to_owned))
}

fn evicting(info: &str) -> Option<&str> {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let limited = field("maxmemory").is_some_and(|octets| octets != "0");
    field("maxmemory_policy").filter(|policy| limited && *policy != "noeviction")
}

#[cfg(test)]
mod tests {
    use super::evicting;

    #[test]
    fn only_a_server_with_a_bound_throws_away_and_not_by_noeviction() {
        let info = |max: &str, policy: &str| {
            format!(
                "# Memory\r\nused_memory:1\r\nmaxmemory:{max}\r\nmaxmemory_human:x\r\nmaxmemory_policy:{policy}\r\n"
            )
        };
        assert_eq!(evicting(&info("100", "volatile-lru")), Some("volatile-lru"));
        assert_eq!(evicting(&info("100", "allkeys-random")), Some("allkeys-random"));
        assert_eq!(evicting(&info("0", "volatile-lru")), None);
        assert_eq!(evicting(&info("100", "noeviction")), None);
        assert_eq!(evicting(""), None);
    }
}
