//! Owns rl_grant as the gateway calls it. Knows neither keys' spelling nor connections.

use std::time::Duration;

use redis::{Cmd, Script};
use tidegate_policy::limit::Algorithm;

use super::script::Scripts;
use crate::clock::whole_us;

/// The script itself; its header lists KEYS, ARGV and returns.
pub const RL_GRANT: &str = include_str!("../../../../lua/rl_grant.lua");

/// Its SHA.
pub fn sha() -> String {
    Script::new(RL_GRANT).get_hash().to_owned()
}

/// `EVALSHA` of it, by the server's own time.
pub fn command(
    scripts: &Scripts,
    key: &str,
    algorithm: Algorithm,
    units: u32,
    lasts: Duration,
) -> Cmd {
    let letter = match algorithm {
        Algorithm::Gcra => "g",
        Algorithm::Window => "w",
    };
    let mut command = redis::cmd("EVALSHA");
    command.arg(scripts.grant()).arg(1).arg(key);
    command.arg("0").arg(letter).arg(units).arg(whole_us(lasts));
    command
}
