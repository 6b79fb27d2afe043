//! Owns which changes of its region a process is told beside what it reported on, and from where on next time.
//!
//! What is new is told in order, and the next message goes on behind it; what was told a moment ago is told again, in
//! turn where that is more than there is room for. Of more that is new than one message tells it tells the newest bare
//! names, too: an order for all of many stands under one, and whoever begins should not wait for it behind thousands of
//! members. Beyond a change that cannot be looked at no message goes on: it is told once it can be, and until then the
//! others are told in turn, so that it hides none of them.
//!
//! Changes are numbered by when they were noted, and the last number is never below what a process has read up to: if it
//! is, the list was lost or went back, and the process goes back with it.

use std::cmp::Reverse;
use std::sync::Mutex;

use tidegate_policy::breaker::mesh::Event;
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::breaker::{BreakerName, BreakerState, CHANGES_MAX};
use tidegate_policy::wire::encode;

use super::{Seen, SoFar, lock};
use crate::clock::Clock;
use crate::service::together::as_they_come;
use crate::store::StoreFailure;
use crate::store::breakers::Breakers;

/// Changes are told again for that long, in ms: a gateway of before notes them late, and a worker may not have taken one in.
pub(super) const TOLD_AGAIN_MS: u64 = 5_000;
/// So many of them at most with one message. While the store's clock is behind numbers say nothing of time, and
/// there may be many for long.
pub(super) const TOLD_AGAIN_MAX: usize = 64;
/// So many bare names at most come before their turn.
pub(super) const EARLY_MAX: usize = 16;
/// How far before the end of a list that went back its changes are told anew, in ms, beside what it went back by: it may have
/// gone on since, unseen.
pub(super) const UNSEEN_MS: u64 = 60_000;
/// The most octets of states in one answer, about: a filter reads a message of 64 KiB at most.
pub(super) const SAID_BYTES_MAX: usize = 48 * 1024;
/// What a state takes beside its name, at most, where it gives no test.
pub(super) const STATE_BYTES: usize = 128;

/// A breaker that changed, and the number under which that was noted.
pub(super) type Change = (BreakerName, u64);

/// What was noted since a process has read up to `since`, with some of before; and from where on it is new to it, which is
/// before `since` if the list went back.
pub(super) async fn news(
    breakers: &dyn Breakers,
    scope: &Scope,
    since: u64,
) -> Result<(u64, Vec<Change>), StoreFailure> {
    let changed = breakers.changed(scope, since.saturating_sub(TOLD_AGAIN_MS)).await?;
    if since == 0 || changed.last().is_some_and(|(_, number)| *number >= since) {
        return Ok((since, changed));
    }
    let mut all = breakers.changed(scope, 0).await?;
    // What comes into an empty one shows whether it went back.
    let Some(last) = all.last().map(|(_, number)| *number) else { return Ok((since, all)) };
    let since = last.saturating_sub(since.saturating_sub(last)).saturating_sub(UNSEEN_MS);
    all.retain(|(_, number)| *number > since);
    Ok((since, all))
}

/// One message's looks at what changed.
pub(super) struct Looks<'a> {
    pub(super) breakers: &'a dyn Breakers,
    pub(super) scope: &'a Scope,
    pub(super) seen: &'a Seen,
    /// Where the last message ended.
    pub(super) since: u64,
    /// The message's number: whose turn it is.
    pub(super) seq: u64,
    pub(super) clock: &'a dyn Clock,
    /// From then on, by the clock's stopwatch, no more looks are begun: what is left is told by the next message.
    pub(super) until_us: u64,
}

// === impl Looks ===

impl Looks<'_> {
    /// Adds what there is to tell of `changed`, which stand by their numbers.
    pub(super) async fn tell(&self, changed: Vec<Change>, so_far: &Mutex<SoFar>) {
        let (again, mut new): (Vec<Change>, Vec<Change>) =
            changed.into_iter().partition(|(_, number)| *number <= self.since);
        let fit = fitting(&lock(so_far).states, names(&new));
        let early = if new.len() > fit { early(&mut new, fit) } else { Vec::new() };
        let (all, rest) = {
            let mut so_far = lock(so_far);
            let states = &so_far.states;
            let mut again = self.in_turn(states, &new, again, TOLD_AGAIN_MAX);
            again.truncate(TOLD_AGAIN_MAX);
            let told = names(&early).chain(names(&new)).chain(names(&again));
            let most = fitting(states, told).saturating_sub(early.len()).max(1);
            (so_far.since, so_far.cursor) = (self.since, self.cursor(&new, most));
            let mut all: Vec<Change> = new.into_iter().chain(again).collect();
            let rest = all.split_off(most.min(all.len()));
            // Last of them, so that a slow store, which is not asked about all, comes on.
            all.extend(early.iter().cloned());
            so_far.changes.clone_from(&all);
            (all, rest)
        };
        self.look(&all, so_far).await;
        let unknown = {
            let mut so_far = lock(so_far);
            so_far.cursor = so_far.cursor();
            let is_known = |change: &Change| so_far.known.contains_key(&change.0);
            if rest.is_empty() || self.is_over() || all.iter().all(is_known) {
                return;
            }
            let stays = |change: &Change| {
                (self.since..=so_far.cursor).contains(&change.1) || early.contains(change)
            };
            let (kept, others): (Vec<Change>, Vec<Change>) =
                all.into_iter().filter(is_known).partition(stays);
            let others = others.into_iter().chain(rest).collect();
            let others = self.in_turn(&so_far.states, &kept, others, CHANGES_MAX);
            let mut all: Vec<Change> = kept.into_iter().chain(others).collect();
            all.truncate(fitting(&so_far.states, names(&all)));
            let unknown: Vec<Change> =
                all.iter().filter(|(name, _)| !so_far.known.contains_key(name)).cloned().collect();
            so_far.changes = all;
            unknown
        };
        self.look(&unknown, so_far).await;
    }

    fn is_over(&self) -> bool {
        self.clock.elapsed_us() >= self.until_us
    }

    /// Where the next message goes on if the first `most` of what is new are told.
    fn cursor(&self, new: &[Change], most: usize) -> u64 {
        let told = new.get(..most).unwrap_or(new);
        let last = told.last().map_or(self.since, |(_, number)| *number);
        // Gateways of before gave one number to what changed at one moment: where the next message would begin in the midst of it, it
        // begins before that, if it can. If it cannot, the rest is told among what is told again.
        let untold = new.get(most).map(|(_, number)| *number);
        let cut = untold.filter(|untold| new.first().is_some_and(|(_, first)| first < untold));
        cut.map_or(last, |cut| last.min(cut.saturating_sub(1)))
    }

    /// These, beginning with those whose turn it is beside `kept`: by as many as fit whichever of them stand together, `most` at
    /// most, so that nobody is left out in between.
    fn in_turn(
        &self,
        said: &[BreakerState],
        kept: &[Change],
        mut these: Vec<Change>,
        most: usize,
    ) -> Vec<Change> {
        let mut longest: Vec<_> = names(&these).collect();
        longest.sort_by_key(|name| Reverse(name.as_str().len()));
        let certain = fitting(said, names(kept).chain(longest));
        let room = certain.saturating_sub(kept.len()).min(most);
        if room < these.len() {
            let seq = usize::try_from(self.seq).unwrap_or(0);
            let turn = seq.wrapping_mul(room.max(1)) % these.len();
            these.rotate_left(turn);
        }
        these
    }

    /// What these say, in their order for as long as there is time, and some in any case. Who cannot be looked at is left out.
    async fn look(&self, these: &[Change], so_far: &Mutex<SoFar>) {
        let looks = names(these).map(|name| self.breakers.step(self.scope, name, &Event::Look));
        as_they_come(looks.collect(), |place, said| {
            if let Some((name, _)) = these.get(place) {
                if let Ok(said) = &said {
                    self.seen.note(name, None, said);
                }
                lock(so_far).looked(name, said);
            }
            !self.is_over()
        })
        .await;
    }
}

fn names(changes: &[Change]) -> impl Iterator<Item = &BreakerName> {
    changes.iter().map(|(name, _)| name)
}

/// Takes out the newest bare names of those whose turn is later, of which so many fit. What comes before them is told later,
/// and then they are again.
fn early(new: &mut Vec<Change>, fit: usize) -> Vec<Change> {
    let later = new.iter().skip(fit.saturating_sub(EARLY_MAX));
    let bare = later.filter(|(name, _)| name.whose().is_none());
    let early: Vec<Change> = bare.rev().take(EARLY_MAX).cloned().collect();
    new.retain(|change| !early.contains(change));
    early
}

/// How many of these fit beside what is said already: as many octets, and states, as an answer may have.
fn fitting<'a>(said: &[BreakerState], names: impl Iterator<Item = &'a BreakerName>) -> usize {
    let said = said.iter().map(|state| encode(state).len().saturating_add(1)).sum::<usize>();
    let room = SAID_BYTES_MAX.saturating_sub(said);
    let ends = names.scan(0usize, |end, name| {
        *end = end.saturating_add(name.as_str().len()).saturating_add(STATE_BYTES);
        Some(*end)
    });
    // Always one, so that what is to be told comes to an end.
    ends.take(CHANGES_MAX).take_while(|end| *end <= room).count().max(1)
}
