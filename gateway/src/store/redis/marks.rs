//! Owns the marks of a region's shards: setting those that are missing, and making a region cold or
//! warm at an operator's word. Knows no limits.
//!
//! A script sets the mark of the one shard that it touches; all others are set here, at each connect
//! and every 30 s, so that a quiet shard of an old region does not count as new at its first touch.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tidegate_policy::gcra::EPOCH_US;

use super::eviction;
use super::link::Live;
use crate::store::Temperature;

/// Between two rounds over all marks.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// What a region's mark says that an operator declared warm: it began in 2024.
const LONG_AGO: u64 = 0;

/// What is done to marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marking {
    /// Those that are missing begin now.
    Missing,
    /// All are set.
    All(Temperature),
}

/// Carries it out on the server of one connection, by that server's clock.
pub async fn mark(live: &mut Live, marks: &Arc<[String]>, marking: Marking) -> RedisResult<()> {
    if marking == Marking::Missing {
        // Marks guard nothing on a server that throws away what they guard.
        eviction::look(live).await;
    }
    if marks.is_empty() {
        return Ok(());
    }
    let began_us = began_us(live, marking).await?;
    let mut pipeline = Pipeline::with_capacity(marks.len());
    for mark in marks.iter() {
        pipeline.add_command(command(mark, began_us, marking));
    }
    live.send_all(&pipeline, marks.len()).await
}

/// What marks say then, by the server's clock.
pub async fn began_us(live: &mut Live, marking: Marking) -> RedisResult<u64> {
    match marking {
        Marking::All(Temperature::Warm) => Ok(LONG_AGO),
        Marking::Missing | Marking::All(Temperature::Cold) => {
            server_us(&live.send(&redis::cmd("TIME")).await?)
        }
    }
}

/// Sets one mark; it may be repeated.
pub fn command(mark: &str, began_us: u64, marking: Marking) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(mark).arg(began_us);
    if marking == Marking::Missing {
        command.arg("NX");
    }
    command
}

/// A reply of TIME as µs since 2024.
pub fn server_us(reply: &Value) -> RedisResult<u64> {
    let (seconds, us): (u64, u64) = redis::from_redis_value_ref(reply)
        .map_err(|error| RedisError::from((ErrorKind::Parse, "TIME", error.to_string())))?;
    Ok((seconds.saturating_mul(1_000_000).saturating_add(us)).saturating_sub(EPOCH_US))
}
