//! Owns the part of a breaker that all workers of a process share: a value of shared data, read and
//! changed in turns. The host never forgets a key, so that those for each of many lie in a table of fixed
//! size, and a value says whose it is.

use std::rc::Rc;

use tidegate_policy::breaker::kept::Kept;
use tidegate_policy::breaker::process::Process;

use crate::host;

/// Workers that write one breaker at once get their turn within that many tries.
pub(super) const TRIES_MAX: usize = 16;

/// That somebody's is used is written down again after that long, in ms.
const USED_AGAIN_MS: u64 = 1_000;

/// Where a breaker lies, and whose it has to be; `None`: nobody else's ever lies there.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) key: String,
    pub(super) whose: Option<Rc<str>>,
}

/// Why there is nothing to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// It is another's by now.
    Taken,
    /// The host does not play along, or others were faster each time.
    Host,
}

// === impl Lost ===

impl From<host::Status> for Lost {
    fn from(_status: host::Status) -> Self {
        Self::Host
    }
}

/// The process's part.
pub(super) fn read(home: &Home) -> Result<Process, Lost> {
    let (octets, _) = host::shared(&home.key)?;
    let Some(whose) = &home.whose else {
        return Ok(Process::from_bytes(&octets).unwrap_or_default());
    };
    let kept = Kept::from_bytes(&octets).filter(|kept| kept.whose == *whose);
    kept.map(|kept| kept.process).ok_or(Lost::Taken)
}

/// Takes one step on the process's part. `used_ms`: it is used now.
pub(super) fn step<T>(
    home: &Home,
    used_ms: Option<u64>,
    mut step: impl FnMut(&mut Process) -> T,
) -> Result<T, Lost> {
    for _ in 0..TRIES_MAX {
        let (octets, cas) = host::shared(&home.key)?;
        let kept = match &home.whose {
            None => None,
            Some(whose) => {
                let kept = Kept::from_bytes(&octets).filter(|kept| kept.whose == *whose);
                Some(kept.ok_or(Lost::Taken)?)
            }
        };
        let before = match &kept {
            None => Process::from_bytes(&octets).unwrap_or_default(),
            Some(kept) => kept.process.clone(),
        };
        let mut process = before.clone();
        let said = step(&mut process);
        let is_used = kept
            .as_ref()
            .zip(used_ms)
            .is_some_and(|(kept, used_ms)| used_ms.abs_diff(kept.used_ms) >= USED_AGAIN_MS);
        if process == before && !is_used {
            return Ok(said);
        }
        let octets = match kept {
            None => process.to_bytes(),
            Some(kept) => {
                let used_ms = used_ms.unwrap_or(kept.used_ms);
                Kept { used_ms, process, ..kept }.to_bytes()
            }
        };
        if host::set_shared(&home.key, &octets, cas)? {
            return Ok(said);
        }
    }
    Err(Lost::Host)
}

/// What lies at a key of a table, with the number that writing needs.
pub(super) fn kept(key: &str) -> Option<(Option<Kept>, u32)> {
    let (octets, cas) = host::shared(key).ok()?;
    Some((Kept::from_bytes(&octets), cas))
}

/// Puts something into a table, or nothing; `false` if somebody was faster.
pub(super) fn put(key: &str, kept: Option<&Kept>, cas: u32) -> bool {
    let octets = kept.map(Kept::to_bytes).unwrap_or_default();
    host::set_shared(key, &octets, cas).unwrap_or(false)
}
