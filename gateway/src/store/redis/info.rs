//! Owns what a server says of itself, INFO. Knows not what follows from it.

use redis::{ErrorKind, RedisResult, ServerErrorKind};

use super::link::Live;

/// Of run_id and of the ids of replication.
const ID_LEN: usize = 40;

/// What it said.
#[derive(Debug, Clone, Default)]
pub struct Info(String);

// === impl Info ===

impl Info {
    /// Asks for it; nothing is in it where the server does not tell. An error where the connection is of no use.
    pub async fn of(live: &mut Live) -> RedisResult<Self> {
        match live.send(&redis::cmd("INFO")).await {
            Ok(reply) => Ok(Self(redis::from_redis_value(reply).unwrap_or_default())),
            Err(error) => match error.kind() {
                ErrorKind::Server(kind) => {
                    if kind == ServerErrorKind::NoPerm {
                        tracing::warn!(
                            redis = %live.target(),
                            "cannot see whether Redis began anew: one that did so from a snapshot, which lacks what was admitted since, goes unnoticed, and each new connection makes the audit chain wait; give the gateway's user +info"
                        );
                    }
                    Ok(Self::default())
                }
                _ => Err(error),
            },
        }
    }

    /// One of its lines.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// A field that is an id. What stands in for one in a service that hides it is none.
    pub fn id(&self, name: &str) -> Option<&str> {
        let is_id = |id: &&str| id.len() == ID_LEN && id.bytes().all(|b| b.is_ascii_hexdigit());
        self.field(name).filter(is_id).filter(|id| id.bytes().any(|byte| byte != b'0'))
    }
}

impl From<&str> for Info {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
