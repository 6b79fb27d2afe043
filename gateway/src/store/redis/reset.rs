//! Owns rl_reset as the gateway calls it. Knows neither keys' spelling nor connections.

use redis::{Cmd, Script};
use tidegate_policy::gcra::Quota;
use tidegate_policy::limit::refund::kept_us;

use super::script::Scripts;
use crate::store::keys;

/// The script itself; its header lists KEYS, ARGV and returns.
pub const RL_RESET: &str = include_str!("../../../../lua/rl_reset.lua");

/// Its SHA.
pub fn sha() -> String {
    Script::new(RL_RESET).get_hash().to_owned()
}

/// `EVALSHA` of it, by the server's own time.
pub fn command(scripts: &Scripts, key: &str, quota: Quota) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(scripts.reset()).arg(2).arg(key).arg(keys::given_back(key));
    command.arg("0").arg(kept_us(quota));
    command
}
