//! Contexts from creation to deletion: roots, streams, timers, queues, callout answers. It must not know headers or bodies.
//!
//! What a callback defers is carried out by the process once the callback has returned.

use std::sync::Arc;

use super::callouts::CalloutAnswer;
use super::clock::Event;
use super::load::StartError;
use super::settings::PluginSettings;
use super::stream::Stream;
use super::vm::{Called, Vm};
use super::vm_state::Root;

impl Vm {
    /// Creates the root context and configures it.
    pub(crate) fn start_root(&mut self, settings: Arc<PluginSettings>) -> Result<u32, StartError> {
        let root = self.state_mut().next_context();
        let sizes = (size(&settings.vm_config), size(&settings.config));
        self.state_mut().roots.insert(root, Root::new(settings));
        self.state_mut().config_open = true;
        let created = self.create_context(root, 0);
        self.state_mut().config_open = false;
        self.require(created.map_bool(), "proxy_on_context_create")?;
        let (vm_size, size) = sizes;
        let function = self.exports.vm_start.clone();
        let started = self.call("proxy_on_vm_start", root, function, (root, vm_size), || {
            format!("{vm_size} bytes")
        });
        self.require(started, "proxy_on_vm_start")?;
        let function = self.exports.configure.clone();
        self.state_mut().config_open = true;
        let configured = self
            .call("proxy_on_configure", root, function, (root, size), || format!("{size} bytes"));
        self.state_mut().config_open = false;
        self.state_mut().after.clear();
        self.require(configured, "proxy_on_configure")?;
        Ok(root)
    }

    fn require(&self, called: Called<u32>, callback: &'static str) -> Result<(), StartError> {
        match called {
            Called::Returned(0) => Err(StartError::Refused { callback }),
            Called::Returned(_) | Called::Absent => Ok(()),
            Called::Dead => {
                let why = self.dead.clone().unwrap_or_default();
                let why = why
                    .strip_prefix(callback)
                    .and_then(|rest| rest.strip_prefix(": "))
                    .unwrap_or(&why)
                    .to_owned();
                Err(StartError::Trap { callback: callback.to_owned(), why })
            }
        }
    }

    pub(crate) fn create_context(&mut self, context: u32, parent: u32) -> Called<()> {
        let function = self.exports.context_create.clone();
        self.call("proxy_on_context_create", context, function, (context, parent), || {
            format!("parent {parent}")
        })
    }

    /// The stream's end, for the log.
    pub(crate) fn log_stream(&mut self, context: u32) {
        self.set_ending(context, true);
        let log = self.exports.log.clone();
        self.call("proxy_on_log", context, log, context, String::new);
        self.set_ending(context, false);
    }

    /// Done and delete; the stream is gone whatever `on_done` answers.
    pub(crate) fn delete_stream(&mut self, context: u32) -> Option<Stream> {
        self.set_ending(context, false);
        let done = self.exports.done.clone();
        self.call("proxy_on_done", context, done, context, String::new);
        let delete = self.exports.delete.clone();
        self.call("proxy_on_delete", context, delete, context, String::new);
        self.state_mut().after.clear();
        self.watch_memory();
        self.state_mut().streams.remove(&context)
    }

    /// A root's configuration was replaced and its streams are gone. `on_done` with false keeps it until `proxy_done`.
    pub(crate) fn end_root(&mut self, root: u32) {
        let done = self.exports.done.clone();
        if self.call("proxy_on_done", root, done, root, String::new) == Called::Returned(0) {
            if let Some(root) = self.state_mut().roots.get_mut(&root) {
                root.is_waiting_for_done = true;
            }
            return;
        }
        self.delete_root(root);
    }

    /// The root said `proxy_done`, or had nothing to wait for.
    pub(crate) fn delete_root(&mut self, root: u32) {
        let delete = self.exports.delete.clone();
        self.call("proxy_on_delete", root, delete, root, String::new);
        self.state_mut().roots.remove(&root);
    }

    fn set_ending(&mut self, context: u32, logging: bool) {
        if let Some(stream) = self.state_mut().streams.get_mut(&context) {
            stream.logging = logging;
            stream.ending = true;
        }
    }

    /// A timer of a current generation fires and is set again, unless the plugin changed it meanwhile.
    pub(crate) fn tick(&mut self, root_id: u32, generation: u64) {
        if !self.is_tick_current(root_id, generation) {
            return;
        }
        let function = self.exports.tick.clone();
        self.call("proxy_on_tick", root_id, function, root_id, String::new);
        if self.dead.is_none() && self.is_tick_current(root_id, generation) {
            let state = self.state();
            let period_ms = state.roots.get(&root_id).map_or(0, |root| root.tick_period_ms);
            let tick = Event::Tick { vm: state.vm, root: root_id, generation };
            state.shared.borrow_mut().after(u64::from(period_ms) * 1_000_000, tick);
        }
    }

    fn is_tick_current(&self, root_id: u32, generation: u64) -> bool {
        self.state()
            .roots
            .get(&root_id)
            .is_some_and(|root| root.tick_generation == generation && root.tick_period_ms > 0)
    }

    pub(crate) fn queue_ready(&mut self, root: u32, queue: u32) {
        if !self.state().roots.contains_key(&root) {
            return;
        }
        let function = self.exports.queue_ready.clone();
        self.call("proxy_on_queue_ready", root, function, (root, queue), || {
            format!("queue {queue}")
        });
    }

    /// The answer goes to the root, also when the stream that asked is gone.
    pub(crate) fn callout_answered(&mut self, root: u32, token: u32, answer: CalloutAnswer) {
        self.state_mut().watch.answered(token);
        // The calls of a root that is gone were cancelled with it.
        if !self.state().roots.contains_key(&root) {
            return;
        }
        let (headers, body, trailers) = self.state_mut().callouts.begin(answer);
        let function = self.exports.http_call_response.clone();
        let params = (root, token, headers, body, trailers);
        let args =
            || format!("token {token}, {headers} headers, {body} bytes, {trailers} trailers");
        self.call("proxy_on_http_call_response", root, function, params, args);
        self.state_mut().callouts.end();
    }
}

impl Called<()> {
    fn map_bool(self) -> Called<u32> {
        match self {
            Called::Returned(()) => Called::Returned(1),
            Called::Absent => Called::Absent,
            Called::Dead => Called::Dead,
        }
    }
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
