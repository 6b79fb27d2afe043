//! The lints of one run: each once, and not without end. It must not know what leads to one.

use std::collections::{BTreeMap, BTreeSet};

use super::{HOST_CALLS_MAX, Lint, LintMode, LintName, LintOptions};
use crate::host::clock::VmId;

/// A run that does one thing wrong a million times is reported a hundred times.
const FOUND_MAX_PER_NAME: usize = 100;

/// What was found in all VMs of a process.
#[derive(Default)]
pub(crate) struct Lints {
    options: LintOptions,
    found: Vec<Lint>,
    /// A name is reported once per VM and context.
    seen: BTreeSet<(LintName, VmId, u32)>,
    counts: BTreeMap<LintName, usize>,
    shared_keys: Growth,
    metric_names: Growth,
}

/// How many of something requests made.
#[derive(Default)]
pub(super) struct Growth {
    /// How many there were at the last look, whoever made them.
    pub(super) known: usize,
    by_requests: usize,
}

impl Default for LintOptions {
    fn default() -> Self {
        Self { mode: LintMode::default(), host_calls_max: HOST_CALLS_MAX }
    }
}

// === impl Lints ===

impl Lints {
    pub(crate) fn new(options: LintOptions) -> Self {
        Self { options, ..Self::default() }
    }

    pub(super) fn host_calls_max(&self) -> u64 {
        self.options.host_calls_max
    }

    pub(super) fn shared_keys(&mut self) -> &mut Growth {
        &mut self.shared_keys
    }

    pub(super) fn metric_names(&mut self) -> &mut Growth {
        &mut self.metric_names
    }

    /// Keeps what was not found before; only that is put into words.
    pub(super) fn add(
        &mut self,
        name: LintName,
        vm: VmId,
        context: u32,
        make: impl FnOnce() -> Lint,
    ) {
        if self.options.mode == LintMode::Off {
            return;
        }
        let count = self.counts.entry(name).or_default();
        if *count < FOUND_MAX_PER_NAME && self.seen.insert((name, vm, context)) {
            *count += 1;
            self.found.push(make());
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Lint> {
        std::mem::take(&mut self.found)
    }
}

// === impl Growth ===

impl Growth {
    /// One more; true for the one that passes the bound.
    pub(super) fn adds(&mut self, is_for_request: bool, max: usize) -> bool {
        self.by_requests += usize::from(is_for_request);
        is_for_request && self.by_requests == max + 1
    }
}
