//! Owns the script of chains as the gateway calls it, and what its reply means. Knows neither records'
//! content nor connections.

use redis::{Cmd, Script, Value};
use tidegate_policy::audit::append::{Append, Noted, Outcome, Place};
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::record::{ChainName, Head};

use super::RedisStore;
use crate::store::chains::{Chains, head_key, ids_key, looked_up, segment_key};
use crate::store::{Call, StoreFailure};

/// The script itself; its header lists KEYS, ARGV and returns.
pub const TEXT: &str = include_str!("../../../../lua/audit_append.lua");

const DONE: i64 = 1;
const MOVED: i64 = 0;
const DUPLICATES: i64 = 2;
const TORN: i64 = 3;

/// Its SHA.
pub fn sha() -> String {
    Script::new(TEXT).get_hash().to_owned()
}

impl Chains for RedisStore {
    fn append(&self, chain: &ChainName, append: &Append<'_>) -> Call<Outcome> {
        let command = command(self.scripts.audit_append(), chain, append);
        let (key, count) = (head_key(chain), append.lines.len());
        let (servers, scripts) = (self.servers.clone(), std::sync::Arc::clone(&self.scripts));
        Box::pin(async move {
            let reply = servers.evaluate(&key, &command, &scripts).await?;
            outcome(&reply, count).ok_or_else(|| garbled("audit_append", &reply))
        })
    }

    fn memory(&self, chain: &ChainName) -> Option<u64> {
        self.servers.memory(&head_key(chain))
    }

    fn place(&self, chain: &ChainName) -> Call<Place> {
        let key = head_key(chain);
        let mut command = redis::cmd("HMGET");
        command.arg(&key).arg(&["seq", "hash", "seg", "seg_first"]);
        let (servers, scripts) = (self.servers.clone(), std::sync::Arc::clone(&self.scripts));
        Box::pin(async move {
            let reply = servers.evaluate(&key, &command, &scripts).await?;
            match &reply {
                Value::Array(parts) if parts.iter().all(|part| *part == Value::Nil) => {
                    Ok(Place::GENESIS)
                }
                Value::Array(parts) => place(parts).ok_or_else(|| garbled("a head", &reply)),
                _ => Err(garbled("a head", &reply)),
            }
        })
    }

    fn records(
        &self,
        chain: &ChainName,
        segment: u64,
        from: u64,
        count: u64,
    ) -> Call<Vec<Vec<u8>>> {
        if count == 0 {
            return Box::pin(std::future::ready(Ok(Vec::new())));
        }
        let key = segment_key(chain, segment);
        let mut command = redis::cmd("LRANGE");
        command.arg(&key).arg(from).arg(from.saturating_add(count - 1));
        let (servers, scripts) = (self.servers.clone(), std::sync::Arc::clone(&self.scripts));
        Box::pin(async move {
            let reply = servers.evaluate(&key, &command, &scripts).await?;
            redis::from_redis_value_ref(&reply).map_err(|error| {
                StoreFailure::Garbled(format!("records of segment {segment}: {error}"))
            })
        })
    }
}

fn command(sha: &str, chain: &ChainName, append: &Append<'_>) -> Cmd {
    let ids: Vec<String> = looked_up(append).map(|segment| ids_key(chain, segment)).collect();
    let Append { expected, segment, hash, lines, refuted, .. } = append;
    let mut command = redis::cmd("EVALSHA");
    command.arg(sha).arg(ids.len().saturating_add(2));
    command.arg(head_key(chain)).arg(segment_key(chain, *segment)).arg(ids);
    command.arg(expected.head.seq).arg(expected.head.hash.to_string()).arg(expected.segment);
    command.arg(*segment).arg(hash.to_string());
    for line in *lines {
        command.arg(&line.id);
    }
    for line in *lines {
        command.arg(&line.bytes);
    }
    if !refuted.is_empty() {
        let pair = |one: &Noted| format!("{}:{} ", one.index.saturating_add(1), one.seq);
        command.arg(format!(" {}", refuted.iter().map(pair).collect::<String>()));
    }
    command
}

fn outcome(reply: &Value, count: usize) -> Option<Outcome> {
    let Value::Array(parts) = reply else { return None };
    let (code, rest) = parts.split_first()?;
    let (head, rest) = rest.split_at_checked(4)?;
    let place = place(head)?;
    let Value::Int(code) = code else { return None };
    if *code == MOVED {
        let [last] = rest else { return None };
        return Some(Outcome::Moved(place, redis::from_redis_value_ref(last).ok()?));
    }
    if *code == TORN {
        let [Value::Int(held)] = rest else { return None };
        return Some(Outcome::Torn(place, u64::try_from(*held).ok()?));
    }
    let (pairs, []) = rest.as_chunks() else { return None };
    let noted = pairs.iter().map(|[index, seq]| {
        let Value::Int(index) = index else { return None };
        let index = usize::try_from(*index).ok()?.checked_sub(1).filter(|index| *index < count)?;
        let seq = redis::from_redis_value_ref::<String>(seq).ok()?.parse().ok()?;
        Some(Noted { index, seq })
    });
    let noted: Vec<Noted> = noted.collect::<Option<_>>()?;
    match (*code, noted.is_empty()) {
        (DONE, true) => Some(Outcome::Done(place)),
        (DUPLICATES, false) => Some(Outcome::Duplicates(place, noted)),
        _ => None,
    }
}

fn place(parts: &[Value]) -> Option<Place> {
    let text = |part: &Value| redis::from_redis_value_ref::<String>(part).ok();
    let [seq, hash, segment, first] = parts else { return None };
    Some(Place {
        head: Head { seq: text(seq)?.parse().ok()?, hash: Hash::from_hex(&text(hash)?)? },
        segment: text(segment)?.parse().ok()?,
        segment_first: text(first)?.parse().ok()?,
    })
}

fn garbled(what: &str, reply: &Value) -> StoreFailure {
    StoreFailure::Garbled(format!("{what}: {reply:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_or_refused_never_repaired() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let hash = "0".repeat(64);
        let reply = |code: i64, seq: &str, hash: &str, twice: &[i64]| {
            let mut parts = vec![Value::Int(code), text(seq), text(hash), text("2"), text("3")];
            parts.extend(twice.iter().map(|index| Value::Int(*index)));
            Value::Array(parts)
        };
        let moved = |last: &[Value]| {
            let Value::Array(mut parts) = reply(0, "9", &hash, &[]) else { unreachable!() };
            parts.extend(last.iter().cloned());
            Value::Array(parts)
        };
        let noted = |pairs: &[(i64, &str)]| {
            let Value::Array(mut parts) = reply(2, "9", &hash, &[]) else { unreachable!() };
            parts.extend(pairs.iter().flat_map(|(index, seq)| [Value::Int(*index), text(seq)]));
            Value::Array(parts)
        };
        let both = vec![Noted { index: 0, seq: 5 }, Noted { index: 2, seq: 0 }];
        let place =
            Place { head: Head { seq: 9, hash: Hash::GENESIS }, segment: 2, segment_first: 3 };
        for (reply, expected) in [
            (reply(1, "9", &hash, &[]), Some(Outcome::Done(place))),
            (moved(&[text("r")]), Some(Outcome::Moved(place, b"r".to_vec()))),
            (moved(&[text("")]), Some(Outcome::Moved(place, vec![]))),
            (moved(&[]), None),
            (moved(&[text("r"), text("s")]), None),
            (noted(&[(1, "5"), (3, "0")]), Some(Outcome::Duplicates(place, both))),
            (noted(&[(1, "-5")]), None),
            (noted(&[(1, "x")]), None),
            (noted(&[(0, "5")]), None),
            (noted(&[(4, "5")]), None),
            (reply(2, "9", &hash, &[1, 5, 3]), None),
            (reply(2, "9", &hash, &[]), None),
            (reply(1, "9", &hash, &[1]), None),
            (reply(3, "9", &hash, &[57]), Some(Outcome::Torn(place, 57))),
            (reply(3, "9", &hash, &[]), None),
            (reply(3, "9", &hash, &[-1]), None),
            (reply(4, "9", &hash, &[]), None),
            (reply(1, "-9", &hash, &[]), None),
            (reply(1, "9", "0", &[]), None),
            (Value::Array(vec![Value::Int(1)]), None),
            (Value::Nil, None),
        ] {
            assert_eq!(outcome(&reply, 3), expected, "{reply:?}");
        }
    }
}
