//! One Envoy process: the VMs of its threads and the exchanges under way. It must not know clients, upstreams or scenarios.

use super::callouts::CalloutAnswer;
use super::chain::{Chain, Filter, Iteration};
use super::clock::VmId;
use super::failures::Failure;
use super::headers::HeaderMap;
use super::iterate::Piece;
use super::lints::hangs::Suspects;
use super::reply::LocalReply;
use super::root_news::RootNews;
use super::settings::ListenerSettings;
use super::shared::SharedCell;
use super::stream::{Direction, Http, Sent, StreamId};
use super::threads::{Admission, Threads};
use super::vm_state::After;

/// The process of a run.
pub(crate) struct Process {
    pub(crate) threads: Threads,
    pub(crate) shared: SharedCell,
    pub(super) chains: Vec<Option<Box<Chain>>>,
    /// Exchanges that moved since the world last looked.
    touched: Vec<StreamId>,
    pub(super) suspects: Suspects,
    pub(super) listener: ListenerSettings,
}

impl Process {
    pub(crate) fn new(threads: Threads, shared: SharedCell, listener: ListenerSettings) -> Self {
        Self {
            threads,
            shared,
            chains: Vec::new(),
            touched: Vec::new(),
            suspects: Suspects::default(),
            listener,
        }
    }

    // === what comes from outside ===

    /// A request's headers arrive at a worker.
    pub(crate) fn open(
        &mut self,
        id: StreamId,
        worker: usize,
        mut http: Http,
        headers: HeaderMap,
        end: bool,
    ) {
        let mut filters = Vec::new();
        for plugin in 0..self.threads.plugin_count() {
            match self.threads.admit(worker, plugin) {
                Admission::Home(home, is_fail_open) => {
                    filters.push(Filter::new(Some(home), is_fail_open));
                }
                Admission::Bypass => {}
                Admission::Closed => filters.push(Filter::new(None, false)),
            }
        }
        http.begin_unix_ns = self.now().1;
        http.is_http3 = self.listener.is_http3;
        http.request.started = true;
        http.request.headers = headers;
        http.request.ended = end;
        if self.chains.len() <= id.0 {
            self.chains.resize_with(id.0 + 1, || None);
        }
        if let Some(slot) = self.chains.get_mut(id.0) {
            *slot = Some(Box::new(Chain::new(http, filters)));
        }
        self.touch(id);
        self.pass_headers(id, Direction::Request, 0, end);
    }

    /// A piece of a request's body arrives.
    pub(crate) fn request_data(&mut self, id: StreamId, bytes: Vec<u8>, end: bool) {
        if self.is_gone(id) {
            return;
        }
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.with_http(id, |http| {
            http.request.ended |= end;
            http.request.size = http.request.size.saturating_add(size);
        });
        self.pass_data(id, Direction::Request, 0, Piece::Chunk(bytes), end);
    }

    /// A request's trailers arrive; no body callback is told of the end then.
    pub(crate) fn request_trailers(&mut self, id: StreamId, trailers: HeaderMap) {
        if self.is_gone(id) {
            return;
        }
        self.with_http(id, |http| http.request.trailers = Some(trailers));
        self.pass_trailers(id, Direction::Request, 0);
        // Only now has the request been read: a reply from within still cuts it short.
        self.with_http(id, |http| http.request.ended = true);
    }

    /// The upstream's headers arrive, or a reply's of the proxy's own.
    pub(crate) fn response_headers(&mut self, id: StreamId, headers: HeaderMap, end: bool) {
        if self.is_gone(id) {
            return;
        }
        self.with_http(id, |http| {
            http.response.started = true;
            http.response.headers = headers;
        });
        self.set_local_complete(id, end);
        self.pass_headers(id, Direction::Response, 0, end);
    }

    pub(crate) fn response_data(&mut self, id: StreamId, bytes: Vec<u8>, end: bool) {
        if self.is_gone(id) {
            return;
        }
        self.set_local_complete(id, end);
        self.pass_data(id, Direction::Response, 0, Piece::Chunk(bytes), end);
    }

    pub(crate) fn response_trailers(&mut self, id: StreamId, trailers: HeaderMap) {
        if self.is_gone(id) {
            return;
        }
        self.with_http(id, |http| http.response.trailers = Some(trailers));
        self.set_local_complete(id, true);
        self.pass_trailers(id, Direction::Response, 0);
    }

    /// Ends an exchange without the plugin's word: the client's connection breaks.
    pub(crate) fn reset(&mut self, id: StreamId, details: &str) {
        let now_ns = self.now_ns();
        if self.is_gone(id) {
            return;
        }
        self.with_http(id, |http| {
            if http.details.is_empty() {
                details.clone_into(&mut http.details);
            }
            http.response.sent.reset = true;
            http.response.sent.ended_at_ns = Some(now_ns);
        });
        self.touch(id);
    }

    /// The answer goes to the root, also when the stream that asked is gone.
    pub(crate) fn callout_answered(
        &mut self,
        vm_id: VmId,
        root: u32,
        token: u32,
        answer: CalloutAnswer,
    ) {
        if let Some(vm) = self.threads.vm(vm_id) {
            vm.callout_answered(root, token, answer);
            self.run_deferred(vm_id);
        }
    }

    /// Something else for a root.
    pub(crate) fn root_news(&mut self, vm_id: VmId, root: u32, news: RootNews) {
        if let Some(vm) = self.threads.vm(vm_id) {
            vm.root_news(root, news);
            self.run_deferred(vm_id);
        }
    }

    pub(crate) fn tick(&mut self, vm_id: VmId, root: u32, generation: u64) {
        if let Some(vm) = self.threads.vm(vm_id) {
            vm.tick(root, generation);
            self.run_deferred(vm_id);
        }
    }

    pub(crate) fn queue_ready(&mut self, vm_id: VmId, root: u32, queue: u32) {
        if let Some(vm) = self.threads.vm(vm_id) {
            vm.queue_ready(root, queue);
            self.run_deferred(vm_id);
        }
    }

    /// Carries out what the last callback of a VM deferred, for whichever exchanges.
    pub(super) fn run_deferred(&mut self, vm_id: VmId) {
        loop {
            let Some(vm) = self.threads.vm(vm_id) else {
                return;
            };
            let deferred = std::mem::take(&mut vm.state_mut().after);
            if deferred.is_empty() {
                vm.delete_finished_roots();
                return;
            }
            for (context, after) in deferred {
                let Some(id) = self.stream_of(vm_id, context) else {
                    continue;
                };
                match after {
                    After::Continue(direction) => {
                        if let Some(position) = self.position_of(id, vm_id, context, direction) {
                            self.resume(id, direction, position);
                        }
                    }
                    After::Close => self.reset(id, "wasm_close_stream"),
                    After::Reply(reply) => self.send_local_reply(id, reply),
                }
            }
        }
    }

    fn stream_of(&mut self, vm_id: VmId, context: u32) -> Option<StreamId> {
        Some(self.threads.vm(vm_id)?.state().streams.get(&context)?.id)
    }

    fn position_of(
        &mut self,
        id: StreamId,
        vm_id: VmId,
        context: u32,
        direction: Direction,
    ) -> Option<usize> {
        let chain = self.chain(id)?;
        let index = chain.filters.iter().position(|filter| {
            filter.context == Some(context) && filter.home.is_some_and(|(vm, _)| vm == vm_id)
        })?;
        Some(chain.turn(direction, index))
    }

    // === looking at chains ===

    pub(super) fn chain(&mut self, id: StreamId) -> Option<&mut Chain> {
        self.chains.get_mut(id.0)?.as_deref_mut()
    }

    /// Whether the client got all it will get, or the exchange was never opened.
    pub(crate) fn is_gone(&mut self, id: StreamId) -> bool {
        self.chain(id).is_none_or(|chain| chain.is_over())
    }

    pub(crate) fn with_http<R>(
        &mut self,
        id: StreamId,
        work: impl FnOnce(&mut Http) -> R,
    ) -> Option<R> {
        let chain = self.chain(id)?;
        let mut http = chain.http.borrow_mut();
        Some(work(&mut http))
    }

    /// Whether the upstream's answer is wanted: no reply of the proxy's own took its place.
    pub(crate) fn wants_upstream(&mut self, id: StreamId) -> bool {
        self.chain(id).is_some_and(|chain| !chain.has_replied)
    }

    /// What left the filters towards the upstream since the last time.
    pub(crate) fn take_sent_request(&mut self, id: StreamId) -> Option<Sent> {
        self.chain(id)
            .filter(|chain| !chain.has_replied)
            .map(|chain| std::mem::take(&mut chain.http.borrow_mut().request.sent))
    }

    /// The upstream failed before it answered.
    pub(crate) fn upstream_failed(&mut self, id: StreamId, failure: &Failure) {
        let mut reply = LocalReply::text(failure.status, failure.text, failure.details);
        if failure.is_overload {
            reply.headers.push((b"x-envoy-overloaded".to_vec(), b"true".to_vec()));
        }
        self.with_http(id, |http| http.flags |= failure.flags);
        self.send_local_reply(id, reply);
    }

    pub(super) fn filter_count(&mut self, id: StreamId) -> usize {
        self.chain(id).map_or(0, |chain| chain.filters.len())
    }

    pub(super) fn iteration(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
    ) -> Option<Iteration> {
        self.chain(id)?.iteration(direction, position).copied()
    }

    pub(super) fn with_iteration(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
        work: impl FnOnce(&mut Iteration),
    ) {
        if let Some(iteration) =
            self.chain(id).and_then(|chain| chain.iteration(direction, position))
        {
            work(iteration);
        }
    }

    pub(super) fn set_end_seen(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
        end: bool,
    ) {
        self.with_iteration(id, direction, position, |iteration| iteration.end_seen = end);
    }

    pub(super) fn set_calling(&mut self, id: StreamId, direction: Direction, is_calling: bool) {
        if let Some(chain) = self.chain(id) {
            chain.set_calling(direction, is_calling);
        }
    }

    pub(super) fn is_aborted(&mut self, id: StreamId, direction: Direction) -> bool {
        self.chain(id).is_some_and(|chain| chain.is_aborted(direction))
    }

    pub(super) fn has_trailers(&mut self, id: StreamId, direction: Direction) -> bool {
        self.with_http(id, |http| http.message(direction).trailers.is_some()).unwrap_or(false)
    }

    pub(super) fn has_buffer(&mut self, id: StreamId, direction: Direction) -> bool {
        self.with_http(id, |http| http.message(direction).buffered.is_some()).unwrap_or(false)
    }

    fn set_local_complete(&mut self, id: StreamId, end: bool) {
        if let Some(chain) = self.chain(id) {
            chain.is_local_complete |= end;
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.shared.borrow().now_ns
    }

    /// Since the run began, and since 1970.
    pub(super) fn now(&self) -> (u64, u64) {
        let shared = self.shared.borrow();
        (shared.now_ns, shared.now_unix_ns())
    }

    pub(super) fn touch(&mut self, id: StreamId) {
        self.touched.push(id);
    }

    /// Exchanges that moved since the last time, each once, in order.
    pub(crate) fn take_touched(&mut self) -> Vec<StreamId> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched
    }
}
