//! Owns where the local shares lie: in the process's shared data, a slot each, so that all workers
//! spend from one. Decides nothing; what a slot's bytes mean is policy's.

use tidegate_policy::gcra::Instant;
use tidegate_policy::local_share::{Refused, ShareAnswer, ShareCall, Taking};

use crate::host;

/// Workers that write one slot at once get their turn within that many tries; who does not finds
/// the share spent.
const TRIES_MAX: usize = 16;
const NO_SHARE: ShareAnswer = ShareAnswer::Spent { retry_us: None };

/// Shares that were taken, to be given back if the request is denied.
#[derive(Debug, Default)]
pub(crate) struct Taken(Vec<(ShareCall, f64)>);

/// Takes each share for itself. A host that does not play along gives none.
pub(crate) fn take(calls: Vec<ShareCall>) -> (Vec<ShareAnswer>, Taken) {
    let mut taken = Taken::default();
    let Ok(now_us) = host::now_us() else {
        return (vec![NO_SHARE; calls.len()], taken);
    };
    let now = Instant::from_unix_us(now_us);
    let answers = calls
        .into_iter()
        .map(|call| match take_one(&call, now) {
            Ok(charged_us) => {
                taken.0.push((call, charged_us));
                ShareAnswer::Taken
            }
            Err(spent) => spent,
        })
        .collect();
    (answers, taken)
}

fn take_one(call: &ShareCall, now: Instant) -> Result<f64, ShareAnswer> {
    let key = key(call);
    for _ in 0..TRIES_MAX {
        let (slot, cas) = host::shared(&key).map_err(|_no_data| NO_SHARE)?;
        let (slot, said) = match call.take(&slot, now) {
            Ok(Taking { slot, charged_us }) => (slot, Ok(charged_us)),
            Err(Refused { answer, slot: Some(slot) }) => (slot, Err(answer)),
            Err(Refused { answer, slot: None }) => return Err(answer),
        };
        if host::set_shared(&key, &slot, cas).map_err(|_no_data| NO_SHARE)? {
            return said;
        }
    }
    Err(NO_SHARE)
}

fn key(call: &ShareCall) -> String {
    format!("tidegate.share.{}", call.slot)
}

// === impl Taken ===

impl Taken {
    /// So many more.
    pub(crate) fn and(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
    }

    /// Gives everything back. What cannot be given back is lost to its client, not to the limit.
    pub(crate) fn give_back(self) {
        if self.0.is_empty() {
            return;
        }
        let Ok(now_us) = host::now_us() else {
            return;
        };
        let now = Instant::from_unix_us(now_us);
        for (call, charged_us) in self.0 {
            let key = key(&call);
            for _ in 0..TRIES_MAX {
                let Ok((slot, cas)) = host::shared(&key) else {
                    break;
                };
                let Some(slot) = call.give_back(&slot, charged_us, now) else {
                    break;
                };
                if host::set_shared(&key, &slot, cas) != Ok(false) {
                    break;
                }
            }
        }
    }
}
