//! Streams that hang, and messages that slip past a pause. It must not move any of them.

use std::collections::{BTreeMap, BTreeSet};

use super::LintName;
use super::watch::word;
use crate::host::chain::Gate;
use crate::host::clock::VmId;
use crate::host::process::Process;
use crate::host::stream::{Direction, StreamId};

/// Filters that paused and were not looked at since: while their VM may be called, they may be freed.
#[derive(Default)]
pub(crate) struct Suspects {
    by_vm: BTreeMap<VmId, BTreeSet<(StreamId, usize)>>,
}

impl Suspects {
    pub(crate) fn add(&mut self, vm: VmId, id: StreamId, filter: usize) {
        self.by_vm.entry(vm).or_default().insert((id, filter));
    }

    /// The exchange is over.
    pub(crate) fn forget(&mut self, id: StreamId) {
        self.by_vm.retain(|_, paused| {
            while let Some(found) = paused.range((id, 0)..=(id, usize::MAX)).next().copied() {
                paused.remove(&found);
            }
            !paused.is_empty()
        });
    }
}

impl Process {
    /// All that was due has happened: whoever is paused now, in a VM that nothing will call, hangs.
    pub(crate) fn watch_hangs(&mut self) {
        let vms: Vec<VmId> = self.suspects.by_vm.keys().copied().collect();
        for vm_id in vms {
            let Some(vm) = self.threads.vm(vm_id) else {
                continue;
            };
            if vm.dead.is_none() && vm.state().will_be_called() {
                continue;
            }
            let paused = self.suspects.by_vm.remove(&vm_id).unwrap_or_default();
            for (id, filter) in paused {
                self.watch_hang(vm_id, id, filter);
            }
        }
    }

    fn watch_hang(&mut self, vm_id: VmId, id: StreamId, filter: usize) {
        let Some((context, direction)) = self.hanging(id, filter) else {
            return;
        };
        // A trap is told by the log.
        let Some(vm) = self.threads.vm(vm_id).filter(|vm| vm.dead.is_none()) else {
            return;
        };
        let state = vm.state_mut();
        let callback = state.streams.get(&context).map_or("", |stream| stream.watch.paused_in);
        state.lint(LintName::PauseWithoutCallout, context, callback, None, || {
            format!(
                "the {} waits, and its VM has no callout outstanding, no timer and no queue",
                word(direction)
            )
        });
    }

    /// The context and the direction that only a resume of this filter moves.
    fn hanging(&mut self, id: StreamId, filter: usize) -> Option<(u32, Direction)> {
        let chain = self.chain(id)?;
        let has_response = chain.http.borrow().response.started;
        let (can_request, can_response) =
            (chain.can_continue(Direction::Request), chain.can_continue(Direction::Response));
        let filter = chain.filters.get(filter)?;
        let context = filter.context?;
        let is_held = |gate, end_seen| match gate {
            Gate::Open => false,
            Gate::Single => end_seen,
            Gate::All => true,
        };
        let (request, response) = (filter.request, filter.response);
        if can_request && !has_response && is_held(request.gate, request.end_seen) {
            return Some((context, Direction::Request));
        }
        (can_response && is_held(response.gate, response.end_seen))
            .then_some((context, Direction::Response))
    }

    /// A body or trailers callback returned Continue at a filter that had paused before.
    pub(crate) fn watch_release(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
        is_trailers: bool,
    ) {
        let Some(chain) = self.chain(id) else {
            return;
        };
        let index = chain.turn(direction, position);
        let Some(filter) = chain.filters.get(index).copied() else {
            return;
        };
        let (Some((vm_id, _)), Some(context)) = (filter.home, filter.context) else {
            return;
        };
        let Some(vm) = self.threads.vm(vm_id).filter(|vm| vm.dead.is_none()) else {
            return;
        };
        let callback = match (direction, is_trailers) {
            (Direction::Request, false) => "proxy_on_request_body",
            (Direction::Request, true) => "proxy_on_request_trailers",
            (Direction::Response, false) => "proxy_on_response_body",
            (Direction::Response, true) => "proxy_on_response_trailers",
        };
        let state = vm.state_mut();
        if state.awaits(context, direction) {
            state.lint(LintName::ReleasedBeforeVerdict, context, callback, None, || {
                format!(
                    "the {} goes on while the callout that it paused for is outstanding",
                    word(direction)
                )
            });
        }
    }
}
