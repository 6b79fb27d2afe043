//! Owns how a worker's audit events come together and go to the gateway: recorded without a call of the host,
//! sent on the tick, and only when there are any.

use std::cell::RefCell;
use std::rc::Rc;

use tidegate_policy::audit::Action;
use tidegate_policy::audit::outbox::{Batch, Counts, Outbox, Said};
use tidegate_policy::audit::testimony::Testimony;
use tidegate_policy::exchange::Answer;
use tidegate_policy::reason::Reason;
use tidegate_policy::wire::audit::{AuditReply, AuditRequest, Kept, common_config};
use tidegate_policy::wire::{self, DecisionId, Refusal};

use super::calls::To;
use super::{Vm, Waiter, or_log};
use crate::host::{self, Level};
use crate::ids::Ids;
use crate::root::{BEAT_MS, Root};

/// How long an acknowledgement is waited for at least: nobody is held meanwhile, and the gateway gathers and
/// stores first.
const TIMEOUT_MS: u32 = 1_000;

/// The events of one gateway's filters in this VM, and whoever shares them.
pub(crate) type Events = Rc<RefCell<Outbox>>;

// === impl Vm ===

impl Vm {
    /// Gives a new configuration the events that its predecessor left, or none. One that turns the audit off
    /// still hands over what was left, and that it does so.
    pub(super) fn equip(&mut self, root: &mut Root) {
        let mut others = self.roots.values().flatten();
        let left = others.find_map(|other| other.events.clone().filter(|_| other.is_beside(root)));
        let Some(ids) = self.ids.as_mut().filter(|_| root.config.audits || left.is_some()) else {
            return;
        };
        let now_ms = host::now_us().map_or(0, |now_us| now_us / 1_000);
        let events = left.unwrap_or_else(|| Rc::new(RefCell::new(Outbox::new(run(ids), now_ms))));
        events.borrow_mut().tick(now_ms);
        root.events = Some(events);
        root.waits_for_events = root.config.sync_events.is_some();
        if root.idle_tick_ms() == BEAT_MS {
            or_log(host::set_tick_period(BEAT_MS), "audit events stay here: no tick");
        }
    }

    /// Time has gone by for the events of a root.
    pub(super) fn hand_over(&mut self, context: u32) {
        let Some(root) = self.roots.get(&context).cloned().flatten() else { return };
        let Some(events) = &root.events else { return };
        // Without a clock they wait; what finds no room is counted.
        let Ok(now_us) = host::now_us() else { return };
        let is_ripe = {
            let mut events = events.borrow_mut();
            events.tick(now_us / 1_000);
            // Not when it was configured: a VM that only tries a configuration out hands nothing over.
            if let Some(text) = root.news() {
                let config = Some(root.hash());
                let own = Testimony::own(Action::Config, "ok", text);
                events.record(Testimony { config, ..own });
            }
            events.is_ripe()
        };
        if is_ripe {
            self.send_events(&root);
        }
        root.count_events();
    }

    /// A request may have brought about the last event of a whole message, which then goes at once. The answer comes to the
    /// configuration's own context, whoever sent it, also when the request is over.
    #[inline]
    pub(super) fn hand_over_whole(&mut self, root: &Rc<Root>) {
        if root.events.as_ref().is_some_and(|events| events.borrow().is_due()) {
            self.send_events(root);
        }
    }

    #[inline(never)]
    fn send_events(&mut self, root: &Rc<Root>) {
        let Some((events, ids)) = root.events.as_ref().zip(self.ids.as_mut()) else { return };
        let id = ids.decision();
        // Not shorter than what the gateway's own deadline is held against.
        let timeout_ms = root.config.gateway.timeout_ms.max(TIMEOUT_MS);
        let message = events.borrow_mut().batch(id).map(|batch| {
            let count = (batch.events.len(), batch.briefs.len());
            (message(root, id, (timeout_ms, false), batch), count)
        });
        let Some((message, count)) = message else { return };
        let waiter = Waiter::Events(id, count);
        let to = To { home: None, timeout_ms };
        let sent = self.send_to(root, &root.audit_headers, &message, waiter, to);
        // Why is in the log and in the counters of the way to the gateway.
        if sent.is_err() {
            events.borrow_mut().answered(id, Said::Nothing);
        }
    }

    /// What the gateway says of events.
    pub(super) fn events_told(
        &mut self,
        root: &Rc<Root>,
        (id, count): (DecisionId, (usize, usize)),
        answer: &Answer<'_>,
    ) {
        let Some(events) = &root.events else { return };
        let heard = heard(root, (id, count), answer);
        let is_more = events.borrow_mut().answered(id, Said::of(&heard));
        if is_more {
            self.send_events(root);
        }
        root.count_events();
    }

    /// A configuration goes; its events stay with the one that took them over, if one did.
    pub(super) fn leave_events(&self, root: &Root) {
        let Some(events) = &root.events else { return };
        let mut others = self.roots.values().flatten();
        let is_shared =
            others.any(|other| other.events.as_ref().is_some_and(|e| Rc::ptr_eq(e, events)));
        if !is_shared {
            events.borrow_mut().close();
            root.count_events();
        }
    }
}

/// 128 bits that no other worker's events have.
fn run(ids: &mut Ids) -> u128 {
    (u128::from(ids.worker()) << 64) | u128::from(ids.entropy())
}

/// The message that hands events over, with how long it is waited for and whether a decision is held for it.
pub(super) fn message(
    root: &Root,
    id: DecisionId,
    (timeout_ms, urgent): (u32, bool),
    batch: Batch<'_>,
) -> Vec<u8> {
    let Batch { mut events, briefs } = batch;
    let (v, scope) = (wire::VERSION, root.caller.clone());
    let config = common_config(&mut events);
    wire::encode(&AuditRequest { v, id, scope, timeout_ms, urgent, config, events, briefs })
}

/// What the gateway says of so many events, or why it says nothing; the log hears of what goes wrong.
pub(super) fn heard(
    root: &Root,
    (id, count): (DecisionId, (usize, usize)),
    answer: &Answer<'_>,
) -> Result<AuditReply, Reason> {
    let heard = match answer {
        Answer::Response { marked: true, status: b"200", body } => {
            AuditReply::decode(body, id, count).map_err(|_bad| Reason::CalloutMalformed)
        }
        Answer::Response { marked: true, body, .. } => Err(Refusal::decode(body)
            .ok()
            .and_then(|refusal| Reason::from_text(&refusal.reason))
            .unwrap_or(Reason::CalloutMalformed)),
        Answer::Response { .. } => Err(Reason::CalloutUnmarked),
        _ => Err(Reason::CalloutReset),
    };
    // Seldom: after a few failures the way to the gateway is shut for a while.
    if let Err(reason) = &heard {
        let count = count.0.saturating_add(count.1);
        let line = format!("tidegate: {count} audit events were not taken: {reason}");
        host::log(Level::Warn, &line);
    } else if heard.iter().flat_map(|r| &r.events).any(|fate| *fate == Kept::Refused)
        && !root.told_refused.replace(true)
    {
        host::log(
            Level::Warn,
            "tidegate: the gateway keeps no audit chain: audit events are refused (told once; docs/audit.md)",
        );
    }
    heard
}

// === impl Root ===

impl Root {
    /// Takes an event in; costs no call of the host.
    #[inline]
    pub(super) fn record(&self, mut testimony: Box<Testimony>) {
        if let Some(events) = &self.events {
            testimony.config = Some(self.hash());
            events.borrow_mut().record(testimony);
        }
    }

    /// The same for what is told each time.
    pub(super) fn record_each(&self, mut testimony: Box<Testimony>) {
        if let Some(events) = &self.events {
            testimony.config = Some(self.hash());
            events.borrow_mut().record_each(testimony);
        }
    }

    /// Takes in what happened, if anything is to be told; costs no call of the host.
    pub(crate) fn tell(&self, testimony: impl FnOnce() -> Option<Box<Testimony>>) {
        if self.events.is_some()
            && let Some(testimony) = testimony()
        {
            self.record(testimony);
        }
    }

    pub(super) fn count_events(&self) {
        let Some(events) = &self.events else { return };
        let Counts { kept, refused, lost } = events.borrow_mut().counts();
        let mut counters = self.counters.borrow_mut();
        for (fate, by) in [("kept", kept), ("refused", refused), ("lost", lost)] {
            counters.events(&self.config, fate, by);
        }
    }
}
