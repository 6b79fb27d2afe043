//! Owns how many threads answer. Knows not what they do.

use std::thread::available_parallelism;

use super::knob::{self, Resolver};

/// Beyond it more threads gain nothing that more gateways would not.
const CORES_MAX: usize = 256;

/// What is asked for; otherwise as many as the process may use, by its affinity and its control group.
pub fn cores(flag: Option<String>, resolver: &mut Resolver<'_>) -> Option<usize> {
    let usable = available_parallelism().map_or(1, |count| count.get().min(CORES_MAX));
    resolver.or_else(&knob::CORES, flag, usable, count)
}

fn count(text: &str) -> Result<usize, String> {
    match knob::count(text)? {
        count if count > CORES_MAX => {
            Err(format!("must be at most {CORES_MAX}: start more gateways instead"))
        }
        count => Ok(count),
    }
}
