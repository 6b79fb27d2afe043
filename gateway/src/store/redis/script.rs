//! Owns the scripts as the gateway calls them: a command's arguments, packed, and the meaning of its
//! reply. Knows neither keys' spelling nor connections.

use redis::{Cmd, Script, Value};
use tidegate_policy::gcra::{Quota, Reading, Retry};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::limit::refund::REMEMBERED_US;
use tidegate_policy::window::Grain;

use super::breakers::{self, BreakerScripts};
use super::idempotency::{self, ClaimScripts};
use super::{audit, grant, leases, reset};
use crate::store::{Adjustment, Charge, Checked, Standing, StoreFailure};

/// The scripts themselves; their headers list KEYS, ARGV and returns.
const RL_CHECK: &str = include_str!("../../../../lua/rl_check.lua");
const RL_SETTLE: &str = include_str!("../../../../lua/rl_settle.lua");
/// A script then takes the server's own TIME. Only tests of the scripts give another.
const SERVER_TIME: &str = "0";
/// How long a decision is remembered as settled: longer than any message is repeated, and longer than a decision's deadlines.
pub const SETTLED_TTL_MS: u64 = REMEMBERED_US / 1_000;
const REPLY_HEAD_LEN: usize = 2;
const REPLY_ROW_LEN: usize = 5;

/// The scripts by their SHAs.
#[derive(Debug, Clone)]
pub struct Scripts {
    check: String,
    settle: String,
    lease: String,
    audit_append: String,
    breakers: BreakerScripts,
    claims: ClaimScripts,
    grant: String,
    reset: String,
    /// How long a region is cold after its mark; 0 without a guard.
    cold_us: u64,
}

/// The keys of one call. All of them lie in one slot where that matters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keys {
    /// One per limit.
    pub limits: Vec<String>,
    /// One per limit that is settled: where it is remembered that it was.
    pub settled: Vec<String>,
    /// And where what was given back of each lately.
    pub given_back: Vec<String>,
    /// The marks of the limits' shards, each once; none without a guard.
    pub marks: Vec<String>,
    /// Per limit the number of its mark, from 1; 0 without one.
    pub mark_of: Vec<u8>,
    /// What the marks say where no key names them.
    pub began: Option<f64>,
}

/// What a reply is read by.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    quota: Quota,
    alone: bool,
    charges: bool,
}

// === impl Asked ===

impl From<&Charge<'_>> for Asked {
    fn from(charge: &Charge<'_>) -> Self {
        Self { quota: charge.quota, alone: charge.alone, charges: charge.cost > 0 }
    }
}

// === impl Scripts ===

impl Scripts {
    /// Computes the SHAs.
    pub fn new(cold_us: u64) -> Self {
        let sha = |text: &str| Script::new(text).get_hash().to_owned();
        Self {
            check: sha(RL_CHECK),
            settle: sha(RL_SETTLE),
            lease: leases::sha(),
            audit_append: audit::sha(),
            breakers: BreakerScripts::new(),
            claims: ClaimScripts::new(),
            grant: grant::sha(),
            reset: reset::sha(),
            cold_us,
        }
    }

    /// The SHA of rl_grant.
    pub fn grant(&self) -> &str {
        &self.grant
    }

    /// The SHA of rl_reset.
    pub fn reset(&self) -> &str {
        &self.reset
    }

    /// The SHA of audit_append.
    pub fn audit_append(&self) -> &str {
        &self.audit_append
    }

    /// The SHA of rl_lease.
    pub fn lease(&self) -> &str {
        &self.lease
    }

    /// How long a region is cold after its mark, in µs.
    pub fn cold_us(&self) -> u64 {
        self.cold_us
    }

    /// Those of breakers.
    pub fn breakers(&self) -> &BreakerScripts {
        &self.breakers
    }

    /// Those of claims.
    pub fn claims(&self) -> &ClaimScripts {
        &self.claims
    }

    /// `SCRIPT LOAD`, each.
    pub fn load_commands(&self) -> impl Iterator<Item = Cmd> {
        let own =
            [RL_CHECK, RL_SETTLE, grant::RL_GRANT, reset::RL_RESET, leases::TEXT, audit::TEXT];
        own.into_iter().chain(idempotency::TEXTS).chain(breakers::TEXTS).map(|text| {
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(text);
            command
        })
    }

    /// `EVALSHA` of rl_check for these keys and charges, which belong together one by one.
    pub fn check_command(&self, keys: &Keys, charges: &[Charge<'_>]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.check).arg(keys.limits.len().saturating_add(keys.marks.len()));
        command.arg(&keys.limits).arg(&keys.marks).arg(SERVER_TIME).arg(self.cold_us);
        for (charge, mark) in charges.iter().zip(&keys.mark_of) {
            let letter = algorithm(charge.algorithm);
            let letter = if charge.alone { letter.to_ascii_uppercase() } else { letter };
            let mut packed = vec![letter, *mark];
            packed.extend(f64::from(charge.cost).to_le_bytes());
            pack_terms(&mut packed, charge.algorithm, charge.quota);
            packed.extend(keys.began.map(f64::to_le_bytes).as_slice().as_flattened());
            command.arg(packed);
        }
        command
    }

    /// `EVALSHA` of rl_settle.
    pub fn settle_command(&self, keys: &Keys, adjustments: &[Adjustment<'_>]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        let all = [&keys.limits, &keys.settled, &keys.given_back, &keys.marks];
        command.arg(&self.settle).arg(all.map(Vec::len).iter().sum::<usize>());
        for keys in all {
            command.arg(keys);
        }
        command.arg(SERVER_TIME).arg(self.cold_us).arg(SETTLED_TTL_MS);
        for (adjustment, mark) in adjustments.iter().zip(&keys.mark_of) {
            let cold = u8::from(adjustment.charged_cold);
            let mut packed = vec![algorithm(adjustment.algorithm), *mark, cold];
            packed.extend(double(adjustment.by).to_le_bytes());
            packed.extend(whole(adjustment.age_us).to_le_bytes());
            let receipt = adjustment.receipt.map_or([0.0; 2], |one| [one.at(), one.tat()]);
            packed.extend(receipt.map(f64::to_le_bytes).as_flattened());
            pack_terms(&mut packed, adjustment.algorithm, adjustment.quota);
            packed.extend(keys.began.map(f64::to_le_bytes).as_slice().as_flattened());
            command.arg(packed);
        }
        command
    }

    /// Reads the reply of rl_check to a call for `asked`.
    pub fn read(&self, reply: &Value, asked: &[Asked]) -> Result<Checked, StoreFailure> {
        let garbled = |what: &str| StoreFailure::Garbled(format!("rl_check: {what}"));
        let numbers = integers(reply).ok_or_else(|| garbled("no array of integers"))?;
        if numbers.len() != REPLY_HEAD_LEN + asked.len() * REPLY_ROW_LEN {
            return Err(garbled("of another length"));
        }
        let (head, rows) = numbers.split_at(REPLY_HEAD_LEN);
        let (allowed, now_us) = match *head {
            [0, now_us] => (false, now_us),
            [1, now_us] => (true, now_us),
            _ => return Err(garbled("neither allowed nor denied")),
        };
        let rows = rows.chunks_exact(REPLY_ROW_LEN).zip(asked);
        let charged_us = u64::try_from(now_us).ok().filter(|_| allowed);
        let limits: Option<Vec<Standing>> =
            rows.map(|(row, asked)| standing(row, asked, charged_us)).collect();
        let limits = limits.ok_or_else(|| garbled("a number is out of range"))?;
        let mut verdicts = limits.iter().zip(asked);
        if allowed != verdicts.all(|(one, asked)| asked.alone || one.reading.retry == Retry::Fits) {
            return Err(garbled("the verdict contradicts its limits"));
        }
        Ok(Checked { allowed, limits })
    }
}

fn algorithm(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Gcra => b'g',
        Algorithm::Window => b'w',
    }
}

/// x, y and both again for a cold region, as the scripts' headers say.
fn pack_terms(packed: &mut Vec<u8>, algorithm: Algorithm, quota: Quota) {
    let numbers = match algorithm {
        Algorithm::Gcra => {
            let (warm, cold) = (quota.pace(), quota.cold_pace());
            [warm.interval, warm.span, cold.interval, cold.span]
        }
        Algorithm::Window => {
            let period = whole(quota.period_us());
            [f64::from(quota.limit()), period, f64::from(quota.cold_limit()), period]
        }
    };
    packed.extend(numbers.map(f64::to_le_bytes).as_flattened());
    if algorithm == Algorithm::Window {
        let grain = Grain::of(quota.limit(), quota.period_us());
        packed.push(grain.exponent);
        packed.extend(whole(grain.slot_us).to_le_bytes());
    }
}

/// A number of µs, all of which are below 2^53.
#[expect(clippy::cast_precision_loss, reason = "below 2^53: quotas and ages are bounded")]
fn whole(us: u64) -> f64 {
    us as f64
}

#[expect(clippy::cast_precision_loss, reason = "messages bound it by a thousand million")]
fn double(units: i64) -> f64 {
    units as f64
}

/// An array of nothing but integers.
pub fn integers(reply: &Value) -> Option<Vec<i64>> {
    let Value::Array(items) = reply else {
        return None;
    };
    items
        .iter()
        .map(|item| if let Value::Int(number) = item { Some(*number) } else { None })
        .collect()
}

fn standing(row: &[i64], asked: &Asked, charged_us: Option<u64>) -> Option<Standing> {
    let &[remaining, next_us, reset_us, retry_us, flags] = row else {
        return None;
    };
    let retry = match retry_us {
        -1 => Retry::Never,
        0 => Retry::Fits,
        wait_us => Retry::AfterUs(u64::try_from(wait_us).ok()?),
    };
    let reading = Reading {
        remaining: u64::try_from(remaining).ok()?,
        next_us: u64::try_from(next_us).ok()?,
        reset_us: u64::try_from(reset_us).ok()?,
        retry,
    };
    let (cold, beside) = match flags {
        0..=3 => (flags & 1 == 1, flags & 2 == 2),
        _ => return None,
    };
    let reduced = cold.then(|| asked.quota.cold_limit());
    let is_charged = asked.charges && !beside && reading.retry == Retry::Fits;
    Some(Standing {
        reading,
        reduced,
        unread: false,
        charged_us: charged_us.filter(|_| is_charged),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_policy::gcra::EPOCH_US;
    use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
    use tidegate_policy::limit::refund::Receipt;

    const QUOTA: (u32, u64, u32) = (10, 60_000_000, 5);

    fn quota() -> Quota {
        Quota::new(QUOTA.0, QUOTA.1, QUOTA.2).expect("a quota")
    }

    fn asked() -> Asked {
        Asked { quota: quota(), alone: false, charges: true }
    }

    fn arguments(command: &Cmd) -> Vec<Vec<u8>> {
        let bytes = |argument: redis::Arg<&[u8]>| match argument {
            redis::Arg::Simple(bytes) => bytes.to_vec(),
            _ => b"?".to_vec(),
        };
        command.args_iter().map(bytes).collect()
    }

    #[test]
    fn the_gateway_always_asks_for_the_servers_time() {
        let subject = Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(b"a") };
        let scripts = Scripts::new(300_000_000);
        let keys = Keys {
            limits: vec!["k1".to_owned()],
            settled: vec!["s1".to_owned()],
            given_back: vec!["g1".to_owned()],
            marks: vec!["m".to_owned()],
            mark_of: vec![1],
            began: None,
        };
        let charge = Charge {
            subject: &subject,
            limit_id: "p.l",
            quota: quota(),
            algorithm: Algorithm::Gcra,
            cost: 3,
            alone: false,
        };
        let numbers = |numbers: &[f64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let packed: Vec<u8> = numbers(&[3.0, 6e6, 30e6, 15_000_000.062_5, 30_000_000.125]);
        let check = arguments(&scripts.check_command(&keys, &[charge]));
        let expected: Vec<&[u8]> =
            vec![b"EVALSHA", scripts.check.as_bytes(), b"2", b"k1", b"m", b"0", b"300000000"];
        assert_eq!(check[..7], expected);
        assert_eq!(check[7], [b"g\x01", packed.as_slice()].concat());
        let alone = arguments(&scripts.check_command(&keys, &[Charge { alone: true, ..charge }]));
        assert_eq!(alone[7], [b"G\x01", packed.as_slice()].concat());
        let told = arguments(&scripts.check_command(&keys.told(Some(9.0)), &[charge]));
        assert_eq!(told[2..6], [b"1".as_slice(), b"k1", b"0", b"300000000"]);
        assert_eq!(told[6], [b"g\xff", packed.as_slice(), &9f64.to_le_bytes()].concat());
        let unguarded = arguments(&scripts.check_command(&keys.told(None), &[charge]));
        assert_eq!(unguarded[6], [b"g\x00", packed.as_slice()].concat());
        let adjustment = Adjustment {
            subject: &subject,
            limit_id: "p.l",
            quota: quota(),
            algorithm: Algorithm::Window,
            by: -2,
            age_us: 7,
            charged_cold: true,
            receipt: Some(Receipt { at_us: EPOCH_US + 70, full_us: 30, cold: true }),
        };
        let mut packed: Vec<u8> = numbers(&[-2.0, 7.0, 70.0, 99.0625, 10.0, 60e6, 5.0, 60e6]);
        packed.push(18);
        packed.extend(6_029_312f64.to_le_bytes());
        let settle = arguments(&scripts.settle_command(&keys, &[adjustment]));
        let expected: Vec<&[u8]> = vec![
            b"EVALSHA",
            scripts.settle.as_bytes(),
            b"4",
            b"k1",
            b"s1",
            b"g1",
            b"m",
            b"0",
            b"300000000",
            b"60000",
        ];
        assert_eq!(settle[..10], expected);
        assert_eq!(settle[10], [b"w\x01\x01", packed.as_slice()].concat());
    }

    fn ints(numbers: &[i64]) -> Value {
        Value::Array(numbers.iter().map(|&number| Value::Int(number)).collect())
    }

    #[test]
    fn a_reply_is_read_or_refused_never_repaired() {
        let script = Scripts::new(0);
        let reply = ints(&[0, 9, 4, 3, 2, 0, 0, 0, 3, 2, -1, 1]);
        let good = script.read(&reply, &[asked(), asked()]).expect("sound");
        let first = Reading { remaining: 4, next_us: 3, reset_us: 2, retry: Retry::Fits };
        let second = Reading { remaining: 0, next_us: 3, reset_us: 2, retry: Retry::Never };
        let limits = vec![
            Standing { reading: first, reduced: None, unread: false, charged_us: None },
            Standing { reading: second, reduced: Some(5), unread: false, charged_us: None },
        ];
        assert_eq!(good, Checked { allowed: false, limits });
        let alone = [asked(), Asked { alone: true, ..asked() }];
        assert!(script.read(&reply, &alone).is_err(), "nothing denies");
        let reply = ints(&[1, 9, 4, 3, 2, 0, 0, 0, 3, 2, -1, 1]);
        assert!(script.read(&reply, &alone).is_ok_and(|checked| checked.allowed));
        // Only what was charged has a time, and only where nothing beside it hides what that came to.
        let reply = ints(&[1, 9, 4, 3, 2, 0, 1, 4, 3, 2, 0, 3, 4, 3, 2, 0, 0]);
        let look = Asked { charges: false, ..asked() };
        let checked = script.read(&reply, &[asked(), asked(), look]).expect("sound");
        let charged: Vec<_> = checked.limits.iter().map(|one| one.charged_us).collect();
        assert_eq!(charged, [Some(9), None, None]);
        let bad = [
            Value::Nil,
            Value::Int(1),
            ints(&[1, 9]),
            ints(&[1, 9, 4, 3, 2, 0]),
            ints(&[1, 9, 4, 3, 2, 0, 0, 7]),
            ints(&[2, 9, 4, 3, 2, 0, 0]),
            ints(&[1, 9, -4, 3, 2, 0, 0]),
            ints(&[1, 9, 4, 3, 2, -2, 0]),
            ints(&[1, 9, 4, 3, 2, 5, 0]),
            ints(&[0, 9, 4, 3, 2, 0, 0]),
            ints(&[1, 9, 4, 3, 2, 0, 4]),
            Value::Array(vec![Value::Int(1), Value::Nil]),
        ];
        for reply in bad {
            let read = script.read(&reply, &[asked()]);
            assert!(matches!(read, Err(StoreFailure::Garbled(_))), "{reply:?} {read:?}");
        }
    }
}
