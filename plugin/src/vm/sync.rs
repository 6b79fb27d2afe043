//! Owns what a VM does about leased units: spends them for requests, sends what their pools have to
//! say, takes the answers.

use std::mem::take;
use std::rc::Rc;

use tidegate_policy::exchange::{Answer, Spend, Spent};
use tidegate_policy::wire::{
    self, DecisionId, LEASES_MAX, LeaseCall, LeaseGrant, SyncReply, SyncRequest,
};

use super::{Vm, Waiter};
use crate::host;
use crate::leases::{Counted, Flight, Taken};
use crate::root::Root;

/// What one stream has of leased units.
pub(super) struct Leased {
    root: Rc<Root>,
    taken: Taken,
}

// === impl Vm ===

impl Vm {
    /// Takes units for a request. What has to be fetched besides is sent at once; nobody waits for it.
    pub(super) fn spend(&mut self, stream: u32, root: &Rc<Root>, spends: Vec<Spend>) -> Vec<Spent> {
        let count = spends.len();
        let none = || vec![Spent::Ask { leases: Vec::new() }; count];
        let Some((leases, ids)) = root.leases.as_ref().zip(self.ids.as_mut()) else {
            return none();
        };
        let Ok(now_us) = host::now_us() else { return none() };
        let mut counted = Counted::new();
        let (answers, mut taken) =
            leases.borrow_mut().spend(&root.config, spends, now_us, ids, &mut counted);
        root.counters.borrow_mut().leases(&root.config, counted);
        let ahead = take(&mut taken.ahead);
        if !ahead.is_empty() {
            let of = |flight: &Flight| ahead.iter().any(|call| flight.is_of(call));
            let (flights, others) = taken.flights.iter().partition(|flight| of(flight));
            taken.flights = others;
            self.sync(root, ahead, flights);
        }
        self.leased.insert(stream, Leased { root: Rc::clone(root), taken });
        answers
    }

    /// The request goes on: its units are spent.
    pub(super) fn commit(&mut self, stream: u32) {
        if let Some(Leased { root, taken }) = self.leased.remove(&stream)
            && let Some(leases) = &root.leases
        {
            leases.borrow_mut().commit(taken.reserved);
        }
    }

    /// The request does not go on: its units are there again. An answer that its call still gets is
    /// for the holder all the same.
    pub(super) fn give_back(&mut self, stream: u32) {
        let Some(Leased { root, taken }) = self.leased.get_mut(&stream) else { return };
        let reserved = take(&mut taken.reserved);
        if let Some(leases) = root.leases.as_ref().filter(|_| !reserved.is_empty())
            && let Ok(now_us) = host::now_us()
        {
            leases.borrow_mut().give_back(reserved, now_us);
        }
        if taken.flights.is_empty() {
            self.leased.remove(&stream);
        }
    }

    /// What a callout says of messages that went with it.
    pub(super) fn answered(&mut self, stream: u32, answer: &Answer<'_>) {
        let Some(leased) = self.leased.get_mut(&stream) else { return };
        let (root, flights) = (Rc::clone(&leased.root), take(&mut leased.taken.flights));
        if leased.taken.is_empty() {
            self.leased.remove(&stream);
        }
        if flights.is_empty() {
            return;
        }
        let grants = match answer {
            Answer::Response { marked: true, status: b"200", body } => {
                SyncReply::beside_verdict(body)
            }
            _ => Vec::new(),
        };
        self.granted(&root, &flights, &grants);
    }

    fn granted(&mut self, root: &Root, flights: &[Flight], grants: &[LeaseGrant]) {
        let Some((leases, ids)) = root.leases.as_ref().zip(self.ids.as_mut()) else { return };
        // Without a clock nothing is taken: nobody knows how long it lives.
        let Ok(now_us) = host::now_us() else { return };
        let mut counted = Counted::new();
        leases.borrow_mut().answered(flights, grants, now_us, ids, &mut counted);
        root.counters.borrow_mut().leases(&root.config, counted);
    }

    /// Looks after leased units: of two configurations for the same gateway in one VM the newer one
    /// speaks for the process; the other gives its slices back.
    pub(super) fn look_after(&mut self, context: u32) {
        let Some(root) = self.roots.get(&context).cloned().flatten() else { return };
        let Some((leases, worker)) = root.leases.as_ref().zip(self.ids.as_ref()) else { return };
        let worker = worker.worker();
        let Ok(now_us) = host::now_us() else { return };
        if !leases.borrow_mut().is_due(now_us) {
            return;
        }
        let mut counted = Counted::new();
        leases.borrow_mut().settle(now_us, false, &mut counted);
        let is_newest = self.roots.range(context.saturating_add(1)..).all(|(_, newer)| {
            let newer = newer.as_ref().and_then(|newer| newer.leases.as_ref());
            newer.is_none_or(|newer| !newer.borrow().is_of(&leases.borrow()))
        });
        let said = match is_newest {
            true => leases.borrow_mut().tick(now_us, worker, &mut counted),
            false => Vec::new(),
        };
        root.counters.borrow_mut().leases(&root.config, counted);
        for said in said.chunks(LEASES_MAX) {
            let (calls, flights) = said.iter().cloned().unzip();
            self.sync(&root, calls, flights);
        }
    }

    /// The configuration goes: its slices go back to the process.
    pub(super) fn leave(root: &Root) {
        if let Some(leases) = &root.leases
            && let Ok(now_us) = host::now_us()
        {
            leases.borrow_mut().settle(now_us, true, &mut Counted::new());
        }
    }

    fn sync(&mut self, root: &Rc<Root>, leases: Vec<LeaseCall>, flights: Vec<Flight>) {
        let Some(ids) = self.ids.as_mut() else { return };
        let id = ids.decision();
        let message = SyncRequest {
            v: wire::VERSION,
            id,
            scope: root.caller.clone(),
            timeout_ms: root.config.gateway.timeout_ms,
            leases,
        };
        let message = wire::encode(&message);
        let waiter = Waiter::Sync(id, flights);
        if let Err((_, Waiter::Sync(_, flights))) =
            self.send(root, &root.sync_headers, &message, waiter)
        {
            self.granted(root, &flights, &[]);
        }
    }

    /// The answer to a tick's message.
    pub(super) fn synced(
        &mut self,
        root: &Root,
        id: DecisionId,
        flights: &[Flight],
        answer: &Answer<'_>,
    ) {
        let grants = match answer {
            Answer::Response { marked: true, status: b"200", body } => {
                SyncReply::decode(body, id).map_or_else(|_| Vec::new(), |reply| reply.leases)
            }
            _ => Vec::new(),
        };
        self.granted(root, flights, &grants);
    }
}
