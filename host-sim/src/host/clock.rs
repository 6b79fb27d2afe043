//! Virtual time and what is due: events leave in order of time, then of entry. It must not know what an event does.

use std::collections::BTreeMap;

use super::callouts::CalloutAnswer;
use super::root_news::RootNews;
use super::service::Reply;

/// The place of a VM in the world's list; a reloaded VM gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VmId(pub(crate) usize);

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// A step of the scenario's timeline.
    Client(usize),
    /// The upstream's answer to an exchange.
    Upstream { exchange: usize, reply: Reply },
    /// The answer to a callout, for a root context.
    Callout { vm: VmId, root: u32, token: u32, answer: CalloutAnswer },
    /// Something else for a root.
    Root { vm: VmId, root: u32, news: RootNews },
    /// A root's timer.
    Tick { vm: VmId, root: u32, generation: u64 },
    /// A queue has a value, for the VM that registered last.
    QueueReady { vm: VmId, root: u32, queue: u32 },
}

/// The events still to come.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    due: BTreeMap<(u64, u64), Event>,
    next_seq: u64,
    /// Events other than ticks, which alone never end.
    work: usize,
}

impl EventQueue {
    pub(crate) fn push(&mut self, at_ns: u64, event: Event) {
        self.work += usize::from(!matches!(event, Event::Tick { .. }));
        self.due.insert((at_ns, self.next_seq), event);
        self.next_seq += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        let ((at_ns, _), event) = self.due.pop_first()?;
        self.work -= usize::from(!matches!(event, Event::Tick { .. }));
        Some((at_ns, event))
    }

    pub(crate) fn next_at_ns(&self) -> Option<u64> {
        self.due.first_key_value().map(|((at_ns, _), _)| *at_ns)
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
        queue.push(1, Event::Tick { vm: VmId(0), root: 1, generation: 0 });
        let mut order = Vec::new();
        while queue.has_work() {
            let (at_ns, event) = queue.pop().unwrap();
            order.push((at_ns, matches!(event, Event::Client(2))));
        }
        assert_eq!(order, [(1, false), (5, false), (5, true)]);
        assert!(queue.pop().is_none());
    }
}
