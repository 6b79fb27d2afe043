//! What one VM and its streams are watched for, at callbacks and host calls. It must not call the plugin.

use std::collections::BTreeMap;

use super::memory::MemoryWatch;
use super::{Lint, LintName, METRIC_NAMES_MAX, SHARED_KEYS_MAX};
use crate::abi::codes::Status;
use crate::host::metrics::MetricKind;
use crate::host::stream::Direction;
use crate::host::vm::Vm;
use crate::host::vm_state::VmState;

/// What is remembered of a VM.
#[derive(Default)]
pub(crate) struct Watch {
    /// The callback that runs, or ran last.
    pub(crate) callback: &'static str,
    /// The host call that runs, or ran last.
    pub(crate) host_call: &'static str,
    /// Callouts that are not answered yet, and whether a stream sent them.
    outstanding: BTreeMap<u32, bool>,
    /// Callouts that the running callback sent, with their contexts.
    sent_now: Vec<(u32, u32)>,
    /// The answer that was told last is for a callout that a stream sent.
    answers_stream: bool,
    /// It opened a call of another kind, whose answer may free a stream.
    has_other_calls: bool,
    memory: MemoryWatch,
}

/// What is remembered of a stream.
#[derive(Debug, Default)]
pub(crate) struct StreamWatch {
    /// Headers that the running host call found closed.
    pub(crate) refused: Option<Direction>,
    /// The last callback that paused.
    pub(super) paused_in: &'static str,
    /// Callouts that a pause waits for.
    awaited: Vec<(Direction, u32)>,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn begin_callback(&mut self, name: &'static str) {
        self.callback = name;
        self.sent_now.clear();
    }

    pub(crate) fn answered(&mut self, token: u32) {
        self.answers_stream = self.outstanding.remove(&token) == Some(true);
    }
}

// === impl VmState ===

impl VmState {
    /// Keeps a lint about the running host call.
    pub(crate) fn lint_call(
        &mut self,
        name: LintName,
        context: u32,
        detail: impl FnOnce() -> String,
    ) {
        let (callback, host_call) = (self.watch.callback, self.watch.host_call);
        self.lint(name, context, callback, Some(host_call), detail);
    }

    pub(super) fn lint(
        &mut self,
        name: LintName,
        context: u32,
        callback: &'static str,
        host_call: Option<&'static str>,
        detail: impl FnOnce() -> String,
    ) {
        let mut shared = self.shared.borrow_mut();
        let at_ns = shared.now_ns;
        shared.lints.add(name, self.vm, context, || Lint {
            name,
            at_ns,
            vm: self.label.clone(),
            context,
            callback,
            host_call,
            detail: detail(),
        });
    }

    /// A callout is on its way.
    pub(crate) fn watch_callout(&mut self, token: u32, has_timeout: bool) {
        let context = self.current;
        let is_stream = self.stream().is_some();
        self.watch.outstanding.insert(token, is_stream);
        self.watch.sent_now.push((context, token));
        if !has_timeout {
            self.lint_call(LintName::CalloutWithoutTimeout, context, || {
                "a timeout of 0".to_owned()
            });
        }
    }

    /// Looks at a host call that is over.
    pub(crate) fn watch_host_call(&mut self, context: u32, name: &'static str, status: Status) {
        self.watch_refused_write(context, name);
        self.watch_number_of_calls(context);
        if status != Status::Ok {
            return;
        }
        match name {
            // Where gRPC ends, it is the only way to the message.
            "proxy_get_status" if !self.watch.callback.starts_with("proxy_on_grpc_") => {
                self.lint_call(LintName::GetStatus, context, || {
                    "its code was asked for".to_owned()
                });
            }
            "proxy_set_shared_data" => self.watch_shared_keys(context),
            "proxy_grpc_call" | "proxy_grpc_stream" | "envoy_resolve_dns" => {
                self.watch.has_other_calls = true;
            }
            _ => {}
        }
    }

    fn watch_refused_write(&mut self, context: u32, name: &'static str) {
        let refused = self.streams.get_mut(&context).and_then(|stream| stream.watch.refused.take());
        // The size is refused the same way, and is no write.
        if let (Some(direction), true) = (refused, name != "proxy_get_header_map_size") {
            self.lint_call(LintName::WriteAfterResume, context, || {
                format!("the {} headers had gone on", word(direction))
            });
        }
    }

    fn watch_number_of_calls(&mut self, context: u32) {
        let Some(count) = self.streams.get(&context).map(|stream| stream.usage.host_calls) else {
            return;
        };
        let max = self.shared.borrow().lints.host_calls_max();
        if count > max {
            self.lint_call(LintName::TooManyHostCalls, context, || {
                format!("more than {max} for one request")
            });
        }
    }

    fn watch_shared_keys(&mut self, context: u32) {
        let is_for_request = self.is_for_request();
        let mut shared = self.shared.borrow_mut();
        let known = shared.data.len();
        let keys = shared.lints.shared_keys();
        let is_new = std::mem::replace(&mut keys.known, known) < known;
        let passes = is_new && keys.adds(is_for_request, SHARED_KEYS_MAX);
        drop(shared);
        if passes {
            self.lint_call(LintName::SharedKeysGrow, context, || {
                format!("requests created more than {SHARED_KEYS_MAX} keys")
            });
        }
    }

    /// A metric was defined that nobody had defined before.
    pub(crate) fn watch_definition(&mut self) {
        let is_for_request = self.is_for_request();
        let mut shared = self.shared.borrow_mut();
        let passes = shared.lints.metric_names().adds(is_for_request, METRIC_NAMES_MAX);
        drop(shared);
        if passes {
            self.lint_call(LintName::MetricNamesGrow, self.current, || {
                format!("requests defined more than {METRIC_NAMES_MAX} metrics")
            });
        }
    }

    /// A counter goes up.
    pub(crate) fn watch_count(&mut self, kind: MetricKind, name: &str) {
        let is_start = match self.watch.callback {
            "proxy_on_vm_start" | "proxy_on_configure" => true,
            "proxy_on_context_create" => self.stream().is_none(),
            _ => false,
        };
        if is_start && kind == MetricKind::Counter {
            self.lint_call(LintName::CounterInConfigure, self.current, || {
                format!("the counter {name}")
            });
        }
    }

    /// A stream's own callbacks, and the answers to what it asked, whichever context they run in.
    fn is_for_request(&self) -> bool {
        let is_answer = self.watch.callback == "proxy_on_http_call_response";
        self.stream().is_some() || (is_answer && self.watch.answers_stream)
    }

    /// A callback of a stream paused: what it sent is what it waits for.
    pub(crate) fn watch_pause(&mut self, context: u32, direction: Direction) {
        if let Some(stream) = self.streams.get_mut(&context) {
            stream.watch.paused_in = self.watch.callback;
            let sent = self.watch.sent_now.iter().filter(|(sender, _)| *sender == context);
            stream.watch.awaited.extend(sent.map(|(_, token)| (direction, *token)));
        }
    }

    /// The running context resumes: it waits for nothing that it sent before.
    pub(crate) fn watch_resume(&mut self, direction: Direction) {
        let current = self.current;
        self.watch.sent_now.retain(|(sender, _)| *sender != current);
        if let Some(stream) = self.streams.get_mut(&current) {
            stream.watch.awaited.retain(|(other, _)| *other != direction);
        }
    }

    /// Whether a message goes on although its stream waits for an answer.
    pub(super) fn awaits(&self, context: u32, direction: Direction) -> bool {
        self.streams.get(&context).is_some_and(|stream| {
            stream.watch.awaited.iter().any(|(other, token)| {
                *other == direction && self.watch.outstanding.contains_key(token)
            })
        })
    }

    /// Whether the VM will be called again without a client's doing.
    pub(super) fn will_be_called(&self) -> bool {
        !self.watch.outstanding.is_empty()
            || self.watch.has_other_calls
            || self.roots.values().any(|root| root.tick_period_ms > 0)
            || self.shared.borrow().queues.has_owner(self.vm)
    }
}

// === impl Vm ===

impl Vm {
    /// A request ends; its stream is still there.
    pub(crate) fn watch_memory(&mut self) {
        let Some(memory) = self.state().guest.memory else {
            return;
        };
        let bytes = memory.data_size(&self.store);
        let state = self.state_mut();
        let open = state.streams.len();
        if let Some(grown) = state.watch.memory.request_ended(bytes, open) {
            const KIB: usize = 1024;
            state.lint(LintName::MemoryGrows, 0, "", None, || {
                let (from, to) = (grown.from_bytes / KIB, grown.to_bytes / KIB);
                format!(
                    "from {from} KiB to {to} KiB, still growing after {} requests",
                    grown.requests
                )
            });
        }
    }
}

pub(super) fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Request => "request",
        Direction::Response => "response",
    }
}
