//! Owns what a decision of the filter's own tells the audit, and how one that has to be on record first is held:
//! its event goes to the gateway at once, and the answer, or that there is none, lets the decision take effect.

use std::rc::Rc;

use tidegate_policy::audit::Durability;
use tidegate_policy::audit::outbox::{Batch, Said, Urgent};
use tidegate_policy::audit::testimony::Testimony;
use tidegate_policy::config::SyncEvents;
use tidegate_policy::exchange::{Act, Answer, Effects, EventStanding, Refused};
use tidegate_policy::wire::DecisionId;
use tidegate_policy::wire::audit::{AuditNote, Kept};

use super::audit::{heard, message};
use super::calls::To;
use super::{Open, Vm, Waiter, or_log};
use crate::host::{self, Map};
use crate::root::Root;

// === impl Vm ===

impl Vm {
    /// Tells the audit of what follows. `true`: it is held until that is on record. Not a part of what decides inside
    /// Envoy, which it would make slower where nothing is told.
    #[inline(never)]
    pub(super) fn witness(&mut self, stream: u32, open: &mut Open, effects: &mut Effects) -> bool {
        if !open.root.waits_for_events {
            let whom = effects.whom.take();
            open.root.tell(|| open.exchange.testimony(&open.root.config, effects, whom));
            return false;
        }
        self.witness_first(stream, open, effects)
    }

    /// The same where some decisions wait.
    #[inline(never)]
    fn witness_first(&mut self, stream: u32, open: &mut Open, effects: &mut Effects) -> bool {
        loop {
            let whom = effects.whom.take();
            let Open { exchange, root, .. } = open;
            let config = &root.config;
            let Some(testimony) = exchange.testimony(config, effects, whom) else { return false };
            let (charged, has_waited) = match exchange.take_standing() {
                Some(EventStanding::Told) => return false,
                Some(EventStanding::Hurried) => (None, true),
                Some(EventStanding::Contradicts) => {
                    root.record_each(testimony);
                    return false;
                }
                Some(EventStanding::Charged(charged)) => (Some(charged), false),
                None => (None, false),
            };
            let sync = config.sync_events.filter(|_| !has_waited);
            let Some(sync) = sync.filter(|sync| sync.includes(testimony.action)) else {
                root.record(testimony);
                return false;
            };
            let names = testimony.names.clone();
            let is_void = sync.refuses && !matches!(effects.act, Act::Deny(_));
            let Some(is_sent) = self.tell_at_once(stream, root, testimony, sync, is_void) else {
                return false;
            };
            exchange.hold(effects, names, charged);
            // What stands whatever becomes of the event.
            root.count(std::mem::take(&mut effects.signals));
            if let Some(settlement) = effects.settlement.take() {
                self.settle(root, *settlement);
            }
            if is_sent {
                return true;
            }
            *effects = unrecorded(open, is_void, false);
        }
    }

    /// Hands an event over that its decision waits for; whether it is on its way. `None` if it is only counted: nothing
    /// waits for that.
    fn tell_at_once(
        &mut self,
        stream: u32,
        root: &Rc<Root>,
        mut testimony: Box<Testimony>,
        sync: SyncEvents,
        is_void: bool,
    ) -> Option<bool> {
        let (events, id) = (root.events.as_ref()?, self.fresh_id()?);
        (testimony.durability, testimony.config) = (Durability::Sync, Some(root.hash()));
        let note = match events.borrow_mut().record_urgent(testimony, id, is_void) {
            Urgent::Counted => return None,
            Urgent::NoRoom => return Some(false),
            Urgent::Send(note) => note,
        };
        let is_sent = self.send_urgent(stream, root, (id, *note), sync.timeout_ms, is_void);
        match is_sent {
            true => {}
            false if is_void => events.borrow_mut().withdraw(id),
            false => drop(events.borrow_mut().urgent_answered(id, Said::Nothing, false)),
        }
        Some(is_sent)
    }

    fn send_urgent(
        &mut self,
        stream: u32,
        root: &Rc<Root>,
        (id, note): (DecisionId, AuditNote),
        timeout_ms: u32,
        is_void: bool,
    ) -> bool {
        let batch = Batch { events: vec![note], briefs: Vec::new() };
        let message = message(root, id, (timeout_ms, true), batch);
        let waiter = Waiter::Record { stream, id, is_void };
        let to = To { home: None, timeout_ms };
        self.send_to(root, &root.audit_headers, &message, waiter, to).is_ok()
    }

    /// What the gateway says of an event that a decision waits for, if anything.
    pub(super) fn recorded(
        &mut self,
        root: &Rc<Root>,
        (stream, id, is_void): (u32, DecisionId, bool),
        answer: &Answer<'_>,
    ) {
        let heard = heard(root, (id, (1, 0)), answer);
        let said = Said::of(&heard);
        // Of what it will not have nothing is on record that could be contradicted.
        let is_refused =
            matches!(said, Said::Unreadable | Said::Each { kept: [Kept::Refused], .. });
        let is_kept = root
            .events
            .as_ref()
            .is_some_and(|events| events.borrow_mut().urgent_answered(id, said, is_void));
        root.count_events();
        let exchange = self.streams.get_mut(&stream).map(|stream| &mut stream.exchange);
        // Who left meanwhile is told nothing; the event waits with the others.
        let held = exchange.and_then(|exchange| exchange.take_if(|open| open.exchange.is_held()));
        let Some(open) = held else { return };
        let mut open = *open;
        if let Err(status) = host::set_effective_context(stream) {
            or_log(Err(status), "no context to carry a decision out in");
            open.taken.give_back();
            return;
        }
        let effects = match is_kept {
            true => open.exchange.let_go(),
            false => unrecorded(&mut open, is_void, !is_refused),
        };
        self.carry_out(stream, open, effects, true);
    }
}

/// What follows without a record; `is_told`: the message with the event left, and may have been heard.
fn unrecorded(open: &mut Open, is_void: bool, is_told: bool) -> Effects {
    let Open { exchange, root, .. } = open;
    let outcome = if is_void { "refused" } else { "late" };
    root.counters.borrow_mut().unrecorded(&root.config, outcome);
    if !is_void {
        return exchange.let_go();
    }
    let refused = Refused { now_us: host::now_us().ok(), grpc: is_grpc(), is_told };
    exchange.refuse(&root.config, refused)
}

/// Whether the request whose context is in force is gRPC.
fn is_grpc() -> bool {
    let content_type = host::header(Map::Request, "content-type").ok().flatten();
    tidegate_policy::exchange::is_grpc_type(content_type.as_deref())
}
