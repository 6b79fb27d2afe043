//! Owns rl_reset as the gateway calls it. Knows neither keys' spelling nor connections.

use redis::{Cmd, Script};
use tidegate_policy::gcra::Quota;
use tidegate_policy::limit::refund::kept_us;

use super::script::Scripts;
use super::servers::Servers;
use crate::store::{StoreFailure, keys};

/// The script itself; its header lists KEYS, ARGV and returns.
pub const RL_RESET: &str = include_str!("../../../../lua/rl_reset.lua");

/// Its SHA.
pub fn sha() -> String {
    Script::new(RL_RESET).get_hash().to_owned()
}

/// What resets one limit; owns it all.
pub struct Resetting {
    whole: Cmd,
    /// The two halves of it: the note, and then the limit.
    note: (String, Cmd),
    limit: (String, Cmd),
}

// === impl Resetting ===

impl Resetting {
    /// Forgets what is counted under this key, by the server's own time.
    pub fn of(scripts: &Scripts, key: String, quota: Quota) -> Self {
        let beside = keys::given_back(&key);
        let command = |names: &[&String]| {
            let mut command = redis::cmd("EVALSHA");
            command.arg(scripts.reset()).arg(names.len()).arg(names).arg("0").arg(kept_us(quota));
            command
        };
        let (whole, note) = (command(&[&key, &beside]), command(&[&beside]));
        let mut delete = redis::cmd("DEL");
        delete.arg(&key);
        Self { whole, note: (beside, note), limit: (key, delete) }
    }

    /// In one step; in two while its slot moves and both lie apart: what is given back in between is what was there before.
    pub async fn run(&self, servers: &Servers, scripts: &Scripts) -> Result<(), StoreFailure> {
        let (key, delete) = &self.limit;
        if servers.evaluate_whole(key, &self.whole, scripts).await?.is_none() {
            let (beside, note) = &self.note;
            servers.evaluate(beside, note, scripts).await?;
            servers.evaluate(key, delete, scripts).await?;
        }
        Ok(())
    }
}
