//! Owns the script of leases as the gateway calls it: its arguments and what its reply means. Knows
//! neither keys' spelling nor connections.

use redis::{Cmd, Script, Value};
use tidegate_policy::gcra::Quota;
use tidegate_policy::lease::bucket::DEMAND_MAX;
use tidegate_policy::lease::step::{Call as Said, Given, Times};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::Want;

use super::RedisStore;
use super::script::{Keys, integers};
use crate::store::leases::{Lease, Leased, Leases};
use crate::store::{Call, StoreFailure};

/// The script itself; its header lists KEYS, ARGV and returns.
pub const TEXT: &str = include_str!("../../../../lua/rl_lease.lua");
/// The script then takes the server's own TIME. Only tests of it give another.
const SERVER_TIME: &str = "0";

/// Its SHA.
pub fn sha() -> String {
    Script::new(TEXT).get_hash().to_owned()
}

fn command(sha: &str, cold_us: u64, keys: &Keys, quota: Quota, said: &Said) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(sha).arg(keys.limits.len().saturating_add(keys.marks.len()));
    command.arg(&keys.limits).arg(&keys.marks).arg(SERVER_TIME).arg(cold_us);
    let mut packed = said.holder.to_le_bytes().to_vec();
    for number in [said.seq, said.demand.min(DEMAND_MAX), said.left, said.back] {
        packed.extend(number.to_le_bytes());
    }
    packed.push(match said.want {
        Want::Nothing => 0,
        Want::Ahead => 1,
        Want::Now => 2,
    });
    let (warm, cold) = (quota.pace(), quota.cold_pace());
    let numbers = [warm.interval, warm.span, cold.interval, cold.span];
    packed.extend(numbers.map(f64::to_le_bytes).as_flattened());
    let times = Times::of(quota);
    for us in [times.generation_us, times.short_us, times.hold_us] {
        packed.extend(us.to_le_bytes());
    }
    command.arg(packed);
    if let Some(began) = keys.began {
        command.arg(began);
    }
    command
}

/// The reply of rl_lease and whether the region is cold.
fn given(reply: &Value) -> Option<(Given, bool)> {
    let numbers = integers(reply)?;
    let &[heard, granted, ttl_us, deny_us, remaining, scarce, cold] = numbers.as_slice() else {
        return None;
    };
    let truth = |number| match number {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
    let given = Given {
        stale: !truth(heard)?,
        granted: u32::try_from(granted).ok()?,
        ttl_us: u64::try_from(ttl_us).ok()?,
        deny_us: u64::try_from(deny_us).ok()?,
        remaining: u64::try_from(remaining).ok()?,
        scarce: truth(scarce)?,
    };
    Some((given, truth(cold)?))
}

impl Leases for RedisStore {
    fn lease(&self, scope: &Scope, lease: &Lease<'_>) -> Call<Leased> {
        let (asker, keys) = (self.asker(scope), self.asker(scope).keys(&[lease.bucket()]));
        let Lease { quota, said, .. } = *lease;
        let cold_limit = quota.cold_limit();
        Box::pin(async move {
            let (servers, scripts) = (&asker.servers, &asker.scripts);
            let key = keys.limits.first().map(String::as_str).unwrap_or_default();
            let asked =
                |keys: &Keys| command(scripts.lease(), scripts.cold_us(), keys, quota, &said);
            let reply = match servers.evaluate_whole(key, &asked(&keys), scripts).await? {
                Some(reply) => reply,
                None => {
                    let began = asker.began(&keys).await?;
                    servers.evaluate(key, &asked(&keys.told(began)), scripts).await?
                }
            };
            let (given, cold) = given(&reply)
                .ok_or_else(|| StoreFailure::Garbled("rl_lease: no reply of its".to_owned()))?;
            Ok(Leased { given, reduced: cold.then_some(cold_limit) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_or_refused_never_repaired() {
        let ints = |numbers: &[i64]| Value::Array(numbers.iter().map(|&n| Value::Int(n)).collect());
        let (read, cold) = given(&ints(&[1, 8, 1_000_000, 50, 12, 1, 0])).expect("sound");
        assert_eq!((read.granted, read.deny_us, read.scarce, cold), (8, 50, true, false));
        assert!(given(&ints(&[0, 0, 0, 0, 0, 0, 1])).expect("sound").0.stale);
        for bad in [
            &[1, 8, 1, 0, 0, 0][..],
            &[2, 8, 1, 0, 0, 0, 0],
            &[1, -1, 1, 0, 0, 0, 0],
            &[1, 1, -1, 0, 0, 0, 0],
            &[1, 1, 1, 0, 0, 2, 0],
            &[1, 1, 1, 0, 0, 0, 7],
        ] {
            assert_eq!(given(&ints(bad)), None, "{bad:?}");
        }
        assert_eq!(given(&Value::Nil), None);
    }
}
