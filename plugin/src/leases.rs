//! Owns where leased units lie: in the process's shared data, a slot each, so that all workers of an
//! Envoy are one holder; a worker's slices in its own memory. Where the host has no shared data the
//! worker is a holder itself. Decides nothing; what pools and slices do is policy's.

use tidegate_policy::config::Config;
use tidegate_policy::exchange::{LeaseName, Spend, Spent};
use tidegate_policy::lease::holder::TICK_US;
use tidegate_policy::lease::round::Rounds;
use tidegate_policy::lease::slice::{Offer, Reserved, Slice};
use tidegate_policy::lease::slot::{Place, Room, Slot};
use tidegate_policy::wire::{LeaseCall, LeaseGrant, Want};

use crate::ids::Ids;
use crate::lease_home::Home;

mod events;
mod slices;

use events::count;
pub(crate) use events::{Counted, LeaseEvent};
use slices::{Local, Slices};

/// The most keys that a worker has slices of. Who comes beyond them is decided by the gateway.
const KEYS_MAX: usize = 4_096;
/// A clock that is further back than that was set back.
const CLOCK_SLACK_US: u64 = 10_000;

/// The leased units that one configuration knows of in this worker.
#[derive(Debug)]
pub(crate) struct Leases {
    home: Home,
    slices: Slices,
    seen_us: u64,
    timeout_us: u64,
    /// When it was last looked after.
    looked_us: u64,
    rounds: Rounds,
}

/// A message of a pool that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight {
    place: Place,
    holder: u64,
    seq: u32,
}

/// What a request took, and what there is to send for it.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// With the places of their slices.
    pub reserved: Vec<(usize, Reserved)>,
    /// Of the messages in the answers, or in `ahead`.
    pub flights: Vec<Flight>,
    /// Of another request's message that this one may wait for.
    pub joins: Option<Flight>,
    /// To be sent by itself: units that will be needed soon, and those of a key that had to go.
    pub ahead: Vec<LeaseCall>,
}

/// What became of a request's wish.
struct Refill {
    offer: Offer,
    calls: Vec<(LeaseCall, Flight)>,
    /// The message of this worker that is out and will bring some.
    joins: Option<Flight>,
    expired: u32,
}

// === impl Flight ===

impl Flight {
    /// Whether it waits for the answer to this.
    pub(crate) fn is_of(&self, call: &LeaseCall) -> bool {
        (self.holder, self.seq) == (call.holder.0, call.seq)
    }
}

// === impl Taken ===

impl Taken {
    pub(crate) fn is_empty(&self) -> bool {
        self.reserved.is_empty()
    }
}

// === impl Leases ===

impl Leases {
    pub(crate) fn new(home: Home, timeout_ms: u32) -> Self {
        let timeout_us = u64::from(timeout_ms).saturating_mul(1_000);
        let (slices, rounds) = (Slices::default(), Rounds::default());
        Self { home, slices, seen_us: 0, timeout_us, looked_us: 0, rounds }
    }

    /// Takes each for itself.
    pub(crate) fn spend(
        &mut self,
        config: &Config,
        spends: &[Spend],
        now_us: u64,
        ids: &mut Ids,
        counted: &mut Counted,
    ) -> (Vec<Spent>, Taken) {
        self.see(now_us);
        let mut answers = Vec::with_capacity(spends.len());
        let reserved = Vec::with_capacity(spends.len());
        let mut taken = Taken { reserved, ..Taken::default() };
        // One limit that denies ends it: nothing is begun for the others, since nobody would send it.
        let mut denies = spends.len() > 1 && spends.iter().any(|spend| self.denies(spend, now_us));
        for Spend { name, cost, joins: may_join } in spends {
            let (cost, known) = (*cost, self.slices.find(name));
            if let Some(at) = known
                && let Some(local) = self.slices.get_mut(at)
            {
                match local.slice.take(now_us, cost) {
                    Offer::Taken(reserved) => {
                        let (remaining, reduced) = local.slice.stands();
                        answers.push(Spent::Taken { remaining, reduced });
                        taken.reserved.push((at, reserved));
                        continue;
                    }
                    Offer::Denied { wait_us } => {
                        answers.push(Spent::Denied { wait_us, reduced: local.slice.stands().1 });
                        continue;
                    }
                    Offer::Empty => {}
                }
            }
            if denies {
                answers.push(Spent::Ask { leases: Vec::new() });
                continue;
            }
            let refill = self.refill(config, (name, known), cost, now_us, ids);
            let Some((at, Refill { offer, calls, joins, expired })) = refill else {
                answers.push(Spent::Ask { leases: Vec::new() });
                continue;
            };
            count(counted, LeaseEvent::Expired, expired.into());
            let (calls, flights): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
            taken.flights.extend(flights);
            let local = self.slices.get_mut(at);
            let (remaining, reduced) = local.map_or((0, None), |local| local.slice.stands());
            match offer {
                Offer::Taken(reserved) => {
                    taken.reserved.push((at, reserved));
                    count(counted, LeaseEvent::Ahead, u64::from(!calls.is_empty()));
                    taken.ahead.extend(calls);
                    answers.push(Spent::Taken { remaining, reduced });
                }
                Offer::Denied { wait_us } => {
                    denies = true;
                    taken.ahead.extend(calls);
                    answers.push(Spent::Denied { wait_us, reduced });
                }
                Offer::Empty if *may_join && joins.is_some() => {
                    taken.joins = joins;
                    count(counted, LeaseEvent::Join, 1);
                    answers.push(Spent::Join);
                }
                Offer::Empty => {
                    let is_asking = !calls.iter().any(|call| call.want == Want::Now);
                    count(counted, LeaseEvent::Miss, 1);
                    count(counted, LeaseEvent::MissWhileAsking, u64::from(is_asking));
                    answers.push(Spent::Ask { leases: calls });
                }
            }
        }
        if denies {
            // What was begun before goes by itself.
            for answer in &mut answers {
                if let Spent::Ask { leases } = answer {
                    taken.ahead.append(leases);
                }
            }
        }
        (answers, taken)
    }

    fn denies(&mut self, spend: &Spend, now_us: u64) -> bool {
        let known = self.slices.find(&spend.name).and_then(|at| self.slices.get_mut(at));
        known.is_some_and(|local| local.slice.denies(now_us, spend.cost))
    }

    /// Fills a slice from the pool, and begins the pool's message if there is too little in it. `None`:
    /// there is no room for this key.
    fn refill(
        &mut self,
        config: &Config,
        (name, known): (&LeaseName, Option<usize>),
        cost: u32,
        now_us: u64,
        ids: &mut Ids,
    ) -> Option<(usize, Refill)> {
        let key = name.key(config)?;
        if known.is_none() && self.slices.len() >= KEYS_MAX {
            return None;
        }
        let timeout_us = self.timeout_us;
        let at = known.unwrap_or_else(|| {
            let mut slice = Slice::default();
            // Counts what was asked.
            slice.take(now_us, cost);
            self.slices.insert(name.clone(), Local { slice, place: key.place(), asked: None })
        });
        let local = self.slices.get_mut(at)?;
        let place = local.place;
        let fresh = ids.entropy();
        let done = self.home.update(place.slot, |slot| {
            // Anew at each try: another worker may have been faster.
            let mut slice = local.slice.clone();
            let Room::Found(record, gone) = slot.room(place, &key, fresh, now_us) else {
                return None;
            };
            let offer = record.pool.meet(now_us, &mut slice, cost);
            let want = match offer {
                Offer::Taken(_) if record.pool.runs_low(now_us) => Some(Want::Ahead),
                Offer::Empty => Some(Want::Now),
                Offer::Taken(_) | Offer::Denied { .. } => None,
            };
            let report = want.and_then(|want| record.pool.begin(now_us, want, timeout_us));
            let holder = record.pool.holder();
            let joins = local.asked.filter(|asked| {
                asked.holder == holder && report.is_none() && record.pool.brings(now_us, asked.seq)
            });
            let expired = std::mem::take(&mut record.pool.expired);
            let own = report.map(|report| {
                (key.call(holder, report), Flight { place, holder, seq: report.seq })
            });
            let others = gone.and_then(|mut gone| {
                let report = gone.pool.return_all(now_us, timeout_us)?;
                let (place, holder) = (gone.place(place.slot), gone.pool.holder());
                Some((gone.call(report)?, Flight { place, holder, seq: report.seq }))
            });
            let asked = own.as_ref().map(|(_, flight)| *flight);
            let calls = own.into_iter().chain(others).collect();
            Some((slice, asked, Refill { offer, calls, joins, expired }))
        });
        let (slice, asked, refill) = done.flatten()?;
        local.slice = slice;
        local.asked = asked.or(local.asked);
        Some((at, refill))
    }

    /// The request goes on.
    pub(crate) fn commit(&mut self, taken: Vec<(usize, Reserved)>) {
        for (at, reserved) in taken {
            if let Some(local) = self.slices.get_mut(at) {
                local.slice.spend(reserved);
            }
        }
    }

    /// The request does not go on.
    pub(crate) fn give_back(&mut self, taken: Vec<(usize, Reserved)>, now_us: u64) {
        for (at, reserved) in taken {
            if let Some(local) = self.slices.get_mut(at) {
                local.slice.give_back(reserved, now_us);
            }
        }
    }

    /// Takes the answers to messages; one without an answer is not waited for any more.
    pub(crate) fn answered(
        &mut self,
        flights: &[Flight],
        grants: &[LeaseGrant],
        now_us: u64,
        ids: &mut Ids,
        counted: &mut Counted,
    ) {
        self.see(now_us);
        let entropy = ids.entropy();
        for flight in flights {
            let Flight { place, holder, seq } = *flight;
            let grant = grants.iter().find(|grant| grant.holder.0 == holder && grant.seq == seq);
            let done = self.home.update(place.slot, |slot| {
                let pool = slot.pool(place).filter(|pool| pool.holder() == holder)?;
                let taken = match grant {
                    Some(grant) => pool.finish(now_us, grant, entropy),
                    None => {
                        pool.give_up(seq);
                        true
                    }
                };
                Some((taken, std::mem::take(&mut pool.expired)))
            });
            let (is_taken, expired) = done.flatten().unwrap_or((grant.is_none(), 0));
            count(counted, LeaseEvent::Expired, expired.into());
            match grant {
                Some(grant) if is_taken => {
                    count(counted, LeaseEvent::Granted, grant.granted.into());
                }
                Some(_) => count(counted, LeaseEvent::Void, 1),
                None => {}
            }
        }
    }

    /// Whether an answer to this is still waited for.
    pub(crate) fn is_out(&mut self, flight: &Flight, now_us: u64) -> bool {
        let Flight { place, holder, seq } = *flight;
        let looked = self.home.update(place.slot, |slot| {
            let pool = slot.pool(place).filter(|pool| pool.holder() == holder)?;
            Some(pool.is_out(now_us, seq))
        });
        looked.flatten().unwrap_or(false)
    }

    /// What slices owe their pools is told; idle ones go back. `whole`: all of them, for good.
    pub(crate) fn settle(&mut self, now_us: u64, whole: bool, counted: &mut Counted) {
        self.see(now_us);
        let home = &mut self.home;
        self.slices.retain(|local| {
            let (owes, idle) = local.slice.rest();
            if owes || whole {
                let told = home.update(local.place.slot, |slot| {
                    let mut slice = local.slice.clone();
                    let pool = slot.pool(local.place)?;
                    pool.settle(now_us, &mut slice, idle || whole);
                    Some((slice, std::mem::take(&mut pool.expired)))
                });
                match told.flatten() {
                    Some((slice, expired)) => {
                        local.slice = slice;
                        count(counted, LeaseEvent::Expired, expired.into());
                    }
                    // Its pool had to go for another key; the units live on in the slice alone.
                    None => local.slice.orphan(now_us),
                }
            }
            !(idle && local.slice.is_empty())
        });
    }

    /// The messages of all pools of the process, if this worker leads it now.
    pub(crate) fn tick(
        &mut self,
        now_us: u64,
        worker: u64,
        counted: &mut Counted,
    ) -> Vec<(LeaseCall, Flight)> {
        let mut calls = Vec::new();
        let timeout_us = self.timeout_us;
        self.rounds.tick(now_us);
        for slot_number in self.home.led_slots(now_us, worker) {
            let reached = self.rounds.reaches(slot_number);
            let done = self.home.update(slot_number, |slot: &mut Slot| {
                slot.sweep(now_us).then_some(())?;
                let mut said = Vec::new();
                let (mut expired, mut asked) = (0u64, 0);
                for record in slot.records() {
                    let mut report = record.pool.tick(now_us, timeout_us);
                    if report.is_none() && reached {
                        report = record.pool.ask_again(now_us, timeout_us);
                        asked += usize::from(report.is_some());
                    }
                    expired += u64::from(std::mem::take(&mut record.pool.expired));
                    let Some(report) = report else { continue };
                    let (place, holder) = (record.place(slot_number), record.pool.holder());
                    let flight = Flight { place, holder, seq: report.seq };
                    said.extend(record.call(report).map(|call| (call, flight)));
                }
                Some((said, expired, asked))
            });
            if let Some((said, expired, asked)) = done.flatten() {
                self.rounds.asked(asked);
                calls.extend(said);
                count(counted, LeaseEvent::Expired, expired);
            }
        }
        calls
    }

    /// Whether it is time for a tick: a root may be called more often for others' sake.
    pub(crate) fn is_due(&mut self, now_us: u64) -> bool {
        let since_us = now_us.checked_sub(self.looked_us);
        let is_due = since_us.is_none_or(|us| us >= TICK_US.saturating_sub(TICK_US / 10));
        if is_due {
            self.looked_us = now_us;
        }
        is_due
    }

    /// Which pools are meant: those of another gateway are others.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.home.is_of(&other.home)
    }

    /// A clock that steps back takes away what is known of how long units live.
    fn see(&mut self, now_us: u64) {
        if now_us.saturating_add(CLOCK_SLACK_US) < self.seen_us {
            for local in self.slices.values_mut() {
                local.slice.drop_all();
            }
            self.seen_us = now_us;
        }
        self.seen_us = self.seen_us.max(now_us);
    }
}
