//! Owns the part of a breaker that all workers of a process share: a value of shared data, read and
//! changed in turns.

use tidegate_policy::breaker::process::Process;

use crate::host;

/// Workers that write one breaker at once get their turn within that many tries.
pub(super) const TRIES_MAX: usize = 16;

fn key(name: &str) -> String {
    format!("tidegate.circuit.{name}")
}

/// The process's part; `None` if the host does not play along.
pub(super) fn read(name: &str) -> Option<Process> {
    let (octets, _) = host::shared(&key(name)).ok()?;
    Some(Process::from_bytes(&octets).unwrap_or_default())
}

/// Takes one step on the process's part. `None` if the host does not play along, or others were faster
/// each time.
pub(super) fn step<T>(name: &str, mut step: impl FnMut(&mut Process) -> T) -> Option<T> {
    let key = key(name);
    for _ in 0..TRIES_MAX {
        let (octets, cas) = host::shared(&key).ok()?;
        let before = Process::from_bytes(&octets).unwrap_or_default();
        let mut process = before.clone();
        let said = step(&mut process);
        if process == before || host::set_shared(&key, &process.to_bytes(), cas).ok()? {
            return Some(said);
        }
    }
    None
}
