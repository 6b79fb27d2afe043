//! Owns what a VM does about leased units: spends them for requests, sends what their pools have to
//! say, takes the answers.

use std::collections::BTreeMap;
use std::mem::take;
use std::rc::Rc;

use tidegate_policy::exchange::{Answer, Event, Spend, Spent};
use tidegate_policy::wire::{
    self, DecisionId, LEASES_MAX, LeaseCall, LeaseGrant, MESSAGE_BYTES_MAX, SyncReply, SyncRequest,
};

use super::{Open, Vm, Waiter, or_log};
use crate::host;
use crate::leases::{Counted, Flight, Taken};
use crate::root::Root;

/// What one stream has of leased units.
pub(super) struct Leased {
    root: Rc<Root>,
    taken: Taken,
}

/// What streams have of leased units. Nearly always a request is decided within one callback: it comes and goes without
/// a place among those that wait.
pub(super) struct Takings {
    last: Option<(u32, Leased)>,
    others: BTreeMap<u32, Leased>,
}

// === impl Takings ===

impl Takings {
    pub(super) const fn new() -> Self {
        Self { last: None, others: BTreeMap::new() }
    }

    fn insert(&mut self, stream: u32, leased: Leased) {
        if let Some((before, leased)) = self.last.replace((stream, leased)) {
            self.others.insert(before, leased);
        }
        if !self.others.is_empty() {
            self.others.remove(&stream);
        }
    }

    fn remove(&mut self, stream: u32) -> Option<Leased> {
        match self.last.take_if(|(last, _)| *last == stream) {
            Some((_, leased)) => Some(leased),
            None if self.others.is_empty() => None,
            None => self.others.remove(&stream),
        }
    }

    fn get_mut(&mut self, stream: u32) -> Option<&mut Leased> {
        match &mut self.last {
            Some((last, leased)) if *last == stream => Some(leased),
            _ if self.others.is_empty() => None,
            _ => self.others.get_mut(&stream),
        }
    }
}

// === impl Vm ===

impl Vm {
    /// Takes units for a request; tells the time that it went by, too, in µs. What has to be fetched besides is sent at
    /// once; nobody waits for it.
    pub(super) fn spend(
        &mut self,
        stream: u32,
        root: &Rc<Root>,
        spends: &[Spend],
    ) -> (Vec<Spent>, Option<u64>) {
        let none = || (vec![Spent::Ask { leases: Vec::new() }; spends.len()], None);
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
        (answers, Some(now_us))
    }

    /// The request goes on: its units are spent.
    pub(super) fn commit(&mut self, stream: u32) {
        let Some(Leased { root, taken }) = self.leased.remove(stream) else { return };
        if let Some(leases) = &root.leases {
            leases.borrow_mut().commit(taken.reserved);
        }
        if !taken.flights.is_empty() {
            // Their message was never sent.
            self.granted(&root, &taken.flights, &[]);
        }
    }

    /// The request does not go on: its units are there again. An answer that its call still gets is
    /// for the holder all the same.
    pub(super) fn give_back(&mut self, stream: u32) {
        let Some(Leased { root, taken }) = self.leased.get_mut(stream) else { return };
        let reserved = take(&mut taken.reserved);
        if let Some(leases) = root.leases.as_ref().filter(|_| !reserved.is_empty())
            && let Ok(now_us) = host::now_us()
        {
            leases.borrow_mut().give_back(reserved, now_us);
        }
        if taken.flights.is_empty() {
            self.leased.remove(stream);
        }
    }

    /// Holds a request until another one's message is answered.
    pub(super) fn join(&mut self, stream: u32, open: Open) {
        let leased = self.leased.remove(stream);
        self.keep_open(stream, open);
        self.joined.insert(stream, leased.and_then(|leased| leased.taken.joins));
    }

    /// Lets requests go on whose wait is over.
    pub(super) fn wake(&mut self) {
        for stream in take(&mut self.woken) {
            // Who left meanwhile has no exchange.
            let Some(fresh) = self.fresh_id() else { continue };
            let Some(open) = self.take_open(stream) else { continue };
            let mut open = *open;
            if let Err(status) = host::set_effective_context(stream) {
                or_log(Err(status), "no context to go on in");
                continue;
            }
            let event = Event::Waited(fresh);
            let effects = open.exchange.on(&open.root.config, &open.root.overrides, event);
            self.carry_out(stream, open, effects, true);
        }
    }

    /// Those that wait for one of these wait no more.
    fn over(&mut self, is_over: impl Fn(Option<&Flight>) -> bool) {
        let over = self.joined.extract_if(.., |_, flight| is_over(flight.as_ref()));
        self.woken.extend(over.map(|(stream, _)| stream));
    }

    /// Lets those go on whose message nobody answers: a wait never outlasts the next look.
    pub(super) fn look_after_joined(&mut self) {
        if self.joined.is_empty() && self.woken.is_empty() {
            return;
        }
        let Ok(now_us) = host::now_us() else { return };
        let lost: Vec<u32> = self
            .joined
            .iter()
            .filter(|(stream, flight)| {
                let open = self.streams.get(stream).and_then(|stream| stream.exchange.as_ref());
                let leases = open.and_then(|open| open.root.leases.as_ref());
                let is_out = leases
                    .zip(flight.as_ref())
                    .is_some_and(|(leases, flight)| leases.borrow_mut().is_out(flight, now_us));
                !is_out
            })
            .map(|(stream, _)| *stream)
            .collect();
        for stream in &lost {
            self.joined.remove(stream);
        }
        self.woken.extend(lost);
        self.wake();
    }

    /// What a callout says of messages that went with it.
    pub(super) fn answered(&mut self, stream: u32, answer: &Answer<'_>) {
        let Some(leased) = self.leased.get_mut(stream) else { return };
        let (root, flights) = (Rc::clone(&leased.root), take(&mut leased.taken.flights));
        if leased.taken.is_empty() {
            self.leased.remove(stream);
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
        self.over(|joined| joined.is_some_and(|joined| flights.contains(joined)));
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

    fn sync(&mut self, root: &Rc<Root>, leases: Vec<LeaseCall>, mut flights: Vec<Flight>) {
        let Some(ids) = self.ids.as_mut() else { return };
        let id = ids.decision();
        let mut request = SyncRequest {
            v: wire::VERSION,
            id,
            scope: root.caller.clone(),
            timeout_ms: root.config.gateway.timeout_ms,
            leases,
        };
        let message = wire::encode(&request);
        let half = request.leases.len().div_euclid(2);
        if message.len() > MESSAGE_BYTES_MAX && half > 0 {
            // Subjects' names are their clients': long ones go in two messages, and keep no others from theirs.
            let leases = request.leases.split_off(half);
            let rest = flights.split_off(half.min(flights.len()));
            self.sync(root, request.leases, flights);
            return self.sync(root, leases, rest);
        }
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
