//! Owns when contexts come and go: roots with their configurations, and streams; and what of them has to end with them.

use std::rc::Rc;

use tidegate_policy::exchange::Answer;

use super::{BODIES, Call, Stream, Vm, Waiter};
use crate::host::{self, Level};
use crate::ids::Ids;
use crate::root::Root;

// === impl Vm ===

impl Vm {
    pub(crate) fn create(&mut self, context: u32, parent: u32) {
        if parent == 0 {
            self.roots.insert(context, None);
        } else {
            let stream =
                Stream { root: parent, seen: 0, is_over: false, has_body: false, exchange: None };
            self.streams.insert(context, stream);
        }
    }

    pub(crate) fn delete(&mut self, context: u32) {
        let stream = self.streams.remove(&context);
        let is_stream = stream.is_some();
        let over = match stream {
            Some(stream) if !stream.is_over => {
                // Nobody told of its end: over HTTP/3 Envoy logs most requests without a word to filters.
                self.streams.insert(context, stream);
                self.response_end(context);
                self.streams.remove(&context)
            }
            over => over,
        };
        if let Some(open) = over.and_then(|stream| stream.exchange) {
            open.taken.give_back();
        }
        self.give_back(context);
        if !self.joined.is_empty() {
            self.joined.remove(&context);
        }
        if !is_stream && let Some(root) = self.roots.remove(&context).flatten() {
            self.wait_over(context);
            Self::leave(&root);
            // The host ends its calls with it and says nothing of them: each would be kept for ever.
            let is_gone = |call: &Call| match call.told_by {
                Some(root) => root == context,
                None => Rc::ptr_eq(&call.root, &root),
            };
            let gone = self.calls.extract_if(|_token, call| is_gone(call));
            for (_, Call { waiter, root, .. }) in gone.collect::<Vec<_>>() {
                match waiter {
                    Waiter::Settlement(end) | Waiter::Stored(_, end) => self.unanswered(&root, end),
                    // Its event may be with another configuration by now, and its stream with its host.
                    Waiter::Record { stream, id, is_void } => {
                        self.recorded(&root, (stream, id, is_void), &Answer::Reset);
                    }
                    _ => {}
                }
            }
            // What was just refused is told, too.
            self.leave_events(&root);
            self.give_up_untold();
        }
    }

    /// `false` makes the host refuse the configuration.
    pub(crate) fn configure(&mut self, context: u32, size: usize) -> bool {
        if self.ids.is_none() {
            match Ids::draw() {
                Ok(ids) => self.ids = Some(ids),
                Err(error) => {
                    host::log(
                        Level::Error,
                        &format!("tidegate: error: the host gives no randomness: {error}"),
                    );
                    return false;
                }
            }
        }
        // Several roots of one VM report one by one.
        let me = self.ids.as_ref().map_or(0, Ids::vm).wrapping_add(u64::from(context));
        let root = Root::configure(size, me).map(|mut root| {
            self.equip(&mut root);
            Rc::new(root)
        });
        let taken = root.is_some();
        if root.as_ref().is_some_and(|root| root.is_idempotent) {
            BODIES.set(true);
        }
        if taken {
            self.roots.insert(context, root);
        }
        taken
    }
}
