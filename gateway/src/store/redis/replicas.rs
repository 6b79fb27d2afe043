//! Owns waiting for replicas over one connection: WAIT, one for all that wait at a time. Knows no keys.
//!
//! **WAIT answers for its own connection alone**: it counts the replicas that have what this
//! connection wrote last. Over another one, or over one that was opened anew, it answers at once for
//! nothing. So the state lies with the connection, and a claim is written over it before it is
//! waited for. And **WAIT keeps its connection waiting**, with all that stands behind it: so the
//! connection is one apart ([`super::pool::Pool::pick_apart`]), and one WAIT serves everybody whose
//! write was answered before it was sent. What was sent and stands behind a WAIT runs when that ends, also of a caller
//! that gave up meanwhile: so it is a step that makes no claim.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, Value};
use tidegate_policy::wire::REPLICAS_WITHIN_MS_MAX;
use tokio::sync::Mutex;

use super::link::Live;

/// The most that a policy asks for; who asks for more shares a connection with those who ask for so many.
pub const REPLICAS_MAX: usize = 8;
/// The longest that is waited.
pub const REPLICAS_WITHIN_MAX: Duration = Duration::from_millis(REPLICAS_WITHIN_MS_MAX as u64);

/// What one connection was told of its replicas.
#[derive(Debug, Default)]
pub struct Replicas {
    /// How many writes were answered and waited for.
    written: AtomicU64,
    told: Mutex<Told>,
}

/// What the last WAIT said.
#[derive(Debug, Default)]
struct Told {
    /// It was sent behind that many writes.
    written: u64,
    replicas: u8,
    within: Duration,
    acknowledged: u8,
}

// === impl Replicas ===

impl Replicas {
    /// To be called once the write was answered.
    pub(super) async fn acknowledged(
        &self,
        live: &mut Live,
        replicas: u8,
        within: Duration,
    ) -> RedisResult<u8> {
        let own = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        // Whoever has it sends a WAIT; the others find out whether that was for them, too.
        let mut told = self.told.lock().await;
        if told.serves(own, replicas, within) {
            return Ok(told.acknowledged);
        }
        let written = self.written.load(Ordering::SeqCst);
        let mut wait = redis::cmd("WAIT");
        // 0 would be for ever.
        wait.arg(replicas).arg(within.as_millis().max(1));
        let acknowledged = match live.send(&wait).await? {
            Value::Int(count) => u8::try_from(count).unwrap_or(u8::MAX),
            _ => return Err(RedisError::from((ErrorKind::Parse, "WAIT: no number"))),
        };
        *told = Told { written, replicas, within, acknowledged };
        Ok(acknowledged)
    }
}

// === impl Told ===

impl Told {
    /// Whether it says enough for the write `own`: that there are replicas enough, or that as many were
    /// waited for as long in vain.
    fn serves(&self, own: u64, replicas: u8, within: Duration) -> bool {
        let in_vain = self.replicas >= replicas && self.within >= within;
        self.written >= own && (self.acknowledged >= replicas || in_vain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wait_serves_those_that_it_was_sent_behind() {
        let ms = Duration::from_millis;
        let told = Told { written: 3, replicas: 2, within: ms(50), acknowledged: 1 };
        let rows = [
            (3, 1, 900, true),
            (4, 1, 1, false),
            (3, 2, 50, true),
            (3, 2, 51, false),
            (3, 3, 50, false),
        ];
        for (own, replicas, within, serves) in rows {
            let told = told.serves(own, replicas, ms(within));
            assert_eq!(told, serves, "{own} {replicas} {within}");
        }
    }
}
