//! Virtual time and what is due: events leave in order of time, then of entry. It must not know what an event does.

use std::collections::BTreeMap;

use super::callouts::{Call, CalloutAnswer};
use super::headers::HeaderMap;
use super::root_news::RootNews;
use super::service::Reply;

/// Where a VM lives: a seat of the crew and a place in its list; a reloaded VM gets a new place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VmId {
    pub(crate) seat: usize,
    pub(crate) index: usize,
}

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client's step of the scenario's timeline.
    Client(usize),
    /// A step that concerns every thread.
    Update(usize),
    /// A piece of the upstream's answer to an exchange.
    Upstream { exchange: usize, piece: UpstreamPiece },
    /// The answer to a callout, for a root context.
    Callout { vm: VmId, root: u32, token: u32, answer: CalloutAnswer },
    /// A callout is sent again.
    Retry(Box<Call>),
    /// Something else for a root.
    Root { vm: VmId, root: u32, news: RootNews },
    /// A root's timer.
    Tick { vm: VmId, root: u32, generation: u64 },
    /// A queue has a value, for the VM that registered last.
    QueueReady { vm: VmId, root: u32, queue: u32 },
    /// A root of a replaced configuration has drained.
    Drained { vm: VmId, root: u32 },
}

/// What an upstream sends, piece by piece.
#[derive(Debug)]
pub(crate) enum UpstreamPiece {
    /// Headers and what comes at once with them, or a fault.
    Reply(Reply),
    Data {
        bytes: Vec<u8>,
        end: bool,
    },
    Trailers(HeaderMap),
}

/// The events still to come.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    due: BTreeMap<(u64, u64), Event>,
    next_seq: u64,
    /// Events that keep a run going.
    work: usize,
}

impl Event {
    /// Timers alone never end, and a drain is waited for only where a scenario says how long.
    fn is_work(&self) -> bool {
        !matches!(self, Self::Tick { .. } | Self::Drained { .. })
    }
}

impl EventQueue {
    pub(crate) fn push(&mut self, at_ns: u64, event: Event) {
        self.work += usize::from(event.is_work());
        self.due.insert((at_ns, self.next_seq), event);
        self.next_seq += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        let ((at_ns, _), event) = self.due.pop_first()?;
        self.work -= usize::from(event.is_work());
        Some((at_ns, event))
    }

    pub(crate) fn next_at_ns(&self) -> Option<u64> {
        self.due.first_key_value().map(|((at_ns, _), _)| *at_ns)
    }

    /// Whether the next event is no single thread's.
    pub(crate) fn next_concerns_all(&self) -> bool {
        matches!(self.due.first_key_value(), Some((_, Event::Update(_))))
    }

    /// Whether anything but timers is left.
    pub(crate) fn has_work(&self) -> bool {
        self.work > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_leave_by_time_then_by_entry_and_ticks_are_no_work() {
        let mut queue = EventQueue::default();
        queue.push(5, Event::Client(1));
        queue.push(5, Event::Client(2));
        queue.push(1, Event::Tick { vm: VmId { seat: 0, index: 0 }, root: 1, generation: 0 });
        let mut order = Vec::new();
        while queue.has_work() {
            let (at_ns, event) = queue.pop().unwrap();
            order.push((at_ns, matches!(event, Event::Client(2))));
        }
        assert_eq!(order, [(1, false), (5, false), (5, true)]);
        assert!(queue.pop().is_none());
    }
}
