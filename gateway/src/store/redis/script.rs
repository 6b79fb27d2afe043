//! Owns `rl_check` as the gateway calls it: the command's arguments and the meaning of its reply.
//! Knows neither keys' spelling nor connections.

use redis::{Cmd, Script, Value};
use tidegate_policy::gcra::{Reading, Retry};

use crate::store::{Charge, Checked, StoreFailure};

/// The script itself; its header lists KEYS, ARGV and returns.
const RL_CHECK: &str = include_str!("../../../../lua/rl_check.lua");
/// The script then takes the server's own TIME. Only tests of the script give another.
const SERVER_TIME: &str = "0";
const REPLY_HEAD_LEN: usize = 2;
const REPLY_ROW_LEN: usize = 4;

/// A script by its SHA.
#[derive(Debug, Clone)]
pub struct RlCheck {
    sha: String,
}

// === impl RlCheck ===

impl RlCheck {
    /// Computes the SHA.
    pub fn new() -> Self {
        Self { sha: Script::new(RL_CHECK).get_hash().to_owned() }
    }

    /// `SCRIPT LOAD`.
    pub fn load_command(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(RL_CHECK);
        command
    }

    /// `EVALSHA` for these keys and charges, which belong together pairwise.
    pub fn call_command(&self, keys: &[String], charges: &[Charge<'_>]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha).arg(keys.len()).arg(keys).arg(SERVER_TIME);
        for charge in charges {
            let quota = charge.quota;
            command.arg(quota.limit()).arg(quota.period_us()).arg(quota.burst()).arg(charge.cost);
        }
        command
    }

    /// Reads the reply to a call with `charge_count` charges.
    pub fn read(&self, reply: &Value, charge_count: usize) -> Result<Checked, StoreFailure> {
        let garbled = |what: &str| StoreFailure::Garbled(format!("rl_check: {what}"));
        let Value::Array(items) = reply else {
            return Err(garbled("no array"));
        };
        let numbers: Option<Vec<i64>> = items
            .iter()
            .map(|item| if let Value::Int(number) = item { Some(*number) } else { None })
            .collect();
        let Some(numbers) = numbers else {
            return Err(garbled("a member is no integer"));
        };
        if numbers.len() != REPLY_HEAD_LEN + charge_count * REPLY_ROW_LEN {
            return Err(garbled("of another length"));
        }
        let (head, rows) = numbers.split_at(REPLY_HEAD_LEN);
        let allowed = match head.first() {
            Some(0) => false,
            Some(1) => true,
            Some(_) | None => return Err(garbled("neither allowed nor denied")),
        };
        let readings: Option<Vec<Reading>> =
            rows.chunks_exact(REPLY_ROW_LEN).map(reading).collect();
        let readings = readings.ok_or_else(|| garbled("a number is out of range"))?;
        if allowed != readings.iter().all(|reading| reading.retry == Retry::Fits) {
            return Err(garbled("the verdict contradicts its limits"));
        }
        Ok(Checked { allowed, readings })
    }
}

impl Default for RlCheck {
    fn default() -> Self {
        Self::new()
    }
}

fn reading(row: &[i64]) -> Option<Reading> {
    let &[remaining, next_us, reset_us, retry_us] = row else {
        return None;
    };
    let retry = match retry_us {
        -1 => Retry::Never,
        0 => Retry::Fits,
        wait_us => Retry::AfterUs(u64::try_from(wait_us).ok()?),
    };
    Some(Reading {
        remaining: u64::try_from(remaining).ok()?,
        next_us: u64::try_from(next_us).ok()?,
        reset_us: u64::try_from(reset_us).ok()?,
        retry,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_policy::gcra::Quota;
    use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};

    #[test]
    fn the_gateway_always_asks_for_the_servers_time() {
        let subject = Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(b"a") };
        let quota = Quota::new(10, 60_000_000, 5).expect("a quota");
        let charge = Charge { subject: &subject, limit_id: "p.l", quota, cost: 3 };
        let script = RlCheck::new();
        let command = script.call_command(&["k1".to_owned(), "k2".to_owned()], &[charge, charge]);
        let arguments: Vec<_> = command
            .args_iter()
            .map(|argument| match argument {
                redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                _ => "?".to_owned(),
            })
            .collect();
        let numbers = ["10", "60000000", "5", "3"];
        let mut expected = vec!["EVALSHA", script.sha.as_str(), "2", "k1", "k2", "0"];
        expected.extend(numbers);
        expected.extend(numbers);
        assert_eq!(arguments, expected);
    }

    fn ints(numbers: &[i64]) -> Value {
        Value::Array(numbers.iter().map(|&number| Value::Int(number)).collect())
    }

    #[test]
    fn a_reply_is_read_or_refused_never_repaired() {
        let script = RlCheck::new();
        let good = script.read(&ints(&[0, 9, 4, 3, 2, 0, 0, 3, 2, -1]), 2).expect("sound");
        let first = Reading { remaining: 4, next_us: 3, reset_us: 2, retry: Retry::Fits };
        let second = Reading { remaining: 0, next_us: 3, reset_us: 2, retry: Retry::Never };
        assert_eq!(good, Checked { allowed: false, readings: vec![first, second] });
        let bad = [
            Value::Nil,
            Value::Int(1),
            ints(&[1, 9]),
            ints(&[1, 9, 4, 3, 2]),
            ints(&[1, 9, 4, 3, 2, 0, 7]),
            ints(&[2, 9, 4, 3, 2, 0]),
            ints(&[1, 9, -4, 3, 2, 0]),
            ints(&[1, 9, 4, 3, 2, -2]),
            ints(&[1, 9, 4, 3, 2, 5]),
            ints(&[0, 9, 4, 3, 2, 0]),
            Value::Array(vec![Value::Int(1), Value::Nil]),
        ];
        for reply in bad {
            let read = script.read(&reply, 1);
            assert!(matches!(read, Err(StoreFailure::Garbled(_))), "{reply:?} {read:?}");
        }
    }
}
