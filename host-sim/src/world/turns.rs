//! What happens at one moment, and in which order where the order is open. It must not know what an event does.

use std::collections::VecDeque;

use super::run::World;
use crate::host::clock::Event;
use crate::host::turnstile::Stop;

/// A queue that feeds itself never lets time pass.
const TURNS_MAX: u32 = 100_000;

/// What each seat still has to do at this moment.
pub(super) struct Turns {
    seats: Vec<Seat>,
}

#[derive(Default)]
struct Seat {
    due: VecDeque<super::crew::Job>,
    /// Its job stopped before a host call on shared state.
    is_halfway: bool,
}

impl Turns {
    pub(super) fn new(seats: usize) -> Self {
        Self { seats: (0..seats).map(|_| Seat::default()).collect() }
    }

    fn can_go(&self) -> Vec<usize> {
        let can_go = |seat: &Seat| seat.is_halfway || !seat.due.is_empty();
        (0..self.seats.len()).filter(|index| self.seats.get(*index).is_some_and(can_go)).collect()
    }

    fn is_quiet(&self) -> bool {
        self.seats.iter().all(|seat| !seat.is_halfway && seat.due.is_empty())
    }
}

impl World<'_> {
    /// One event, or with a schedule, all events of one moment in one of their orders.
    pub(super) fn happen(&mut self, event: Event) {
        let Some(mut schedule) = self.schedule.take() else {
            if let Some((seat, job)) = self.job(event) {
                self.crew.begin(seat, job);
                self.settle(seat);
            }
            return;
        };
        self.enqueue(event);
        self.enqueue_due();
        let mut turns_left = TURNS_MAX;
        loop {
            let can_go = self.turns.can_go();
            let Some(seat) = can_go.get(schedule.choose(can_go.len())).copied() else {
                break;
            };
            self.take_turn(seat);
            turns_left -= 1;
            if turns_left == 0 {
                let why = format!("{TURNS_MAX} turns at one moment: queues feed themselves");
                self.shared.borrow_mut().crash = Some(why);
                break;
            }
            self.enqueue_due();
        }
        self.schedule = Some(schedule);
    }

    /// Everything that is due by now joins its seat's queue; what concerns all seats waits until they are quiet.
    fn enqueue_due(&mut self) {
        loop {
            let now_ns = self.now_ns();
            let mut shared = self.shared.borrow_mut();
            let is_due = shared.events.next_at_ns().is_some_and(|at_ns| at_ns <= now_ns);
            if !is_due || (shared.events.next_concerns_all() && !self.turns.is_quiet()) {
                return;
            }
            let event = shared.events.pop();
            drop(shared);
            if let Some((_, event)) = event {
                self.enqueue(event);
            }
        }
    }

    fn enqueue(&mut self, event: Event) {
        if let Some((seat, job)) = self.job(event)
            && let Some(seat) = self.turns.seats.get_mut(seat)
        {
            seat.due.push_back(job);
        }
    }

    fn take_turn(&mut self, index: usize) {
        let Some(seat) = self.turns.seats.get_mut(index) else {
            return;
        };
        let stop = if seat.is_halfway {
            self.crew.go_on(index)
        } else if let Some(job) = seat.due.pop_front() {
            self.crew.begin(index, job)
        } else {
            return;
        };
        let is_halfway = stop == Stop::AtCall;
        if let Some(seat) = self.turns.seats.get_mut(index) {
            seat.is_halfway = is_halfway;
        }
        if !is_halfway {
            self.settle(index);
        }
    }
}
