//! Owns what becomes of a request without a verdict: each policy's rungs in order, the local shares
//! they need, and the answer in the end. One policy that denies is enough.
//!
//! Source: product row A4.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::judge::{Over, may_have_claimed, unasked};
use super::note::{Noted, degraded, denied, worded_by};
use super::respond::Told;
use super::settle::retry_after_s;
use super::{Act, Asked, Denial, Effects, Outcome, Phase, Question, Signal, Whom};
use crate::config::{Config, Policy, Rung};
use crate::local_share::{ShareAnswer, ShareCall};
use crate::reason::Reason;
use crate::stages::{self, Limits, Outcomes};
use crate::wire::LimitCall;

/// `Retry-After` when no verdict can be had and nobody knows when: callouts are tried again with
/// every request.
const RETRY_AFTER_S: u64 = 1;

/// Why there is no verdict.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fall {
    pub reason: Reason,
    /// When a verdict may be had again, if that is known; in ms.
    pub retry_ms: Option<u64>,
}

/// What waits for the local shares.
#[derive(Debug)]
pub(super) struct Sharing {
    question: Question,
    fall: Fall,
    /// Which of the asked limits the calls are for, in their order.
    places: Vec<usize>,
}

/// Begins on the ladder: asks for the shares that some policy's rungs need, or ends at once.
pub(super) fn fall(
    config: &Config,
    question: Question,
    fall: Fall,
    mut signals: Vec<Signal>,
) -> (Phase, Effects) {
    signals.push(Signal::Unavailable(fall.reason));
    let needed = |asked: &Asked| {
        let policy = asked.is_enforced().then(|| config.policies.get(asked.policy)).flatten()?;
        policy.on_unavailable.contains(&Rung::LocalShare).then_some(())
    };
    let mut places = Vec::new();
    let mut calls = Vec::new();
    for (place, (asked, limit)) in question.asked.iter().zip(&question.limits).enumerate() {
        if let (Some(()), Ok(quota)) = (needed(asked), limit.quota()) {
            places.push(place);
            calls.push(ShareCall::new(
                config.local_share,
                &limit.id,
                &limit.subject,
                quota,
                limit.cost,
            ));
        }
    }
    let sharing = Sharing { question, fall, places };
    if calls.is_empty() {
        return land(config, sharing, &[], 0, signals);
    }
    (Phase::Sharing(Box::new(sharing)), Effects::of(Act::Share(calls), signals))
}

/// Ends on the ladder, with what the shares say.
pub(super) fn land(
    config: &Config,
    sharing: Sharing,
    answers: &[ShareAnswer],
    entropy: u64,
    mut signals: Vec<Signal>,
) -> (Phase, Effects) {
    let mut verdict = Verdict::default();
    let mut ends = Vec::new();
    for (index, policy) in enforcing(config, &sharing.question.asked) {
        let outcome = verdict.step(&sharing, answers, index, policy);
        signals.push(Signal::Decided { policy: index, outcome });
        ends.push(match outcome {
            Outcome::LocalShareAllowed => Rung::LocalShare,
            Outcome::DegradedAllowed => Rung::Allow,
            _ => Rung::Deny,
        });
    }
    // Policies all of whose limits are leased, and whose units were there, need no verdict.
    let asked = &sharing.question.asked;
    let is_asked = |policy| asked.iter().any(|asked| asked.policy == policy && asked.is_enforced());
    for held in sharing.question.held.chunk_by(|a, b| a.asked.policy == b.asked.policy) {
        let Some(Asked { policy, .. }) = held.first().map(|held| held.asked) else { continue };
        if is_asked(policy) {
            continue;
        }
        let outcome = match verdict.denying.is_empty() {
            true => Outcome::LeaseAllowed,
            false => Outcome::NotCharged,
        };
        signals.push(Signal::Decided { policy, outcome });
        ends.push(Rung::Lease);
    }
    let reason = sharing.fall.reason;
    signals.extend(ends.iter().map(|&rung| Signal::Fell { rung, reason }));
    let whom = config.audits.then(|| Box::new(Whom::of(&sharing.question)));
    let (phase, effects) = verdict.act(config, sharing, entropy, signals);
    let rungs = ends.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    (
        phase,
        Effects { note: effects.note.map(|note| Box::new(note.fallen(rungs))), whom, ..effects },
    )
}

/// What was found on the way down.
#[derive(Default)]
struct Verdict {
    violated: Vec<String>,
    /// The policies that deny.
    denying: Vec<usize>,
    /// A policy denies that has no share of its own to wait for.
    plain: bool,
    /// The longest wait for a share.
    wait_us: u64,
}

// === impl Verdict ===

impl Verdict {
    fn step(
        &mut self,
        sharing: &Sharing,
        answers: &[ShareAnswer],
        index: usize,
        policy: &Policy,
    ) -> Outcome {
        let mut spent = Vec::new();
        let mut wait_us = 0;
        for rung in &policy.on_unavailable {
            match rung {
                // What is held was spent before anybody was asked: this policy lacks some.
                Rung::Lease => {}
                Rung::LocalShare => {
                    for (limit, answer) in sharing.of(index, answers) {
                        if let ShareAnswer::Spent { retry_us } = answer {
                            spent.push(limit.id.clone());
                            wait_us = wait_us.max(retry_us.unwrap_or(0));
                        }
                    }
                    if spent.is_empty() {
                        return Outcome::LocalShareAllowed;
                    }
                }
                Rung::Allow => return Outcome::DegradedAllowed,
                Rung::Deny => break,
            }
        }
        self.denying.push(index);
        if spent.is_empty() {
            self.plain = true;
            self.violated.push(policy.name.to_owned());
            return Outcome::DegradedDenied;
        }
        self.wait_us = self.wait_us.max(wait_us);
        self.violated.append(&mut spent);
        Outcome::LocalShareDenied
    }

    fn act(
        self,
        config: &Config,
        sharing: Sharing,
        entropy: u64,
        signals: Vec<Signal>,
    ) -> (Phase, Effects) {
        let mut question = sharing.question;
        let why = sharing.fall.reason;
        let limits = if self.violated.is_empty() { Limits::Waived } else { Limits::Denied };
        if (Outcomes { limits, ..Outcomes::NONE }).verdict() == stages::Verdict::Admit {
            let policies = enforcing(config, &question.asked).map(|(_, policy)| &policy.name);
            let policies: Vec<String> = policies.cloned().collect();
            let (id, aside) = (question.id, question.aside.clone());
            let later = question.later.take();
            if question.claim.is_none() && later.is_none() {
                return degraded(why, policies, aside, id, signals);
            }
            let note = Some(aside.clone().beside(Noted::Degraded, why, None, policies, id));
            let over = Over { told: Told::default(), note, soft: None, aside };
            return match later {
                Some(later) => question.asks_home(config, later, (over, None), signals),
                None => unasked(config, &mut question, over, why, signals),
            };
        }
        // As soon as the gateway may be back the whole limit counts again: waiting longer for a
        // share would be waiting for nothing.
        let back_us = sharing.fall.retry_ms.map(|ms| ms.saturating_mul(1_000));
        let wait_us = match back_us {
            Some(back_us) if self.plain || self.wait_us == 0 => back_us,
            Some(back_us) => self.wait_us.min(back_us),
            None if self.plain => 0,
            None => self.wait_us,
        };
        let retry_after_s =
            if wait_us == 0 { RETRY_AFTER_S } else { retry_after_s(wait_us, entropy) };
        let reason = match self.plain {
            true => Reason::PolicyStoreUnavailable,
            false => Reason::TemporaryReducedCapacity,
        };
        let denial = Denial {
            reason,
            id: question.id,
            violated: self.violated,
            retry_after_s: Some(retry_after_s),
            fields: Vec::new(),
            grpc: question.grpc,
            worded_by: worded_by(config, self.denying.into_iter()),
            detail: None,
            stored_status: None,
            fallback: None,
            is_paid: false,
        };
        let aside = question.aside.clone();
        let settlement = match may_have_claimed(why) {
            true => question.abandoned(config),
            false => None,
        };
        let (phase, effects) = denied(denial, Some(why), aside, signals);
        (phase, Effects { settlement: settlement.map(Box::new), ..effects })
    }
}

// === impl Sharing ===

impl Sharing {
    /// The shares of one policy's limits.
    fn of<'s>(
        &'s self,
        index: usize,
        answers: &'s [ShareAnswer],
    ) -> impl Iterator<Item = (&'s LimitCall, ShareAnswer)> {
        self.places.iter().zip(answers).filter_map(move |(place, answer)| {
            let asked = self.question.asked.get(*place)?;
            let limit = self.question.limits.get(*place)?;
            (asked.policy == index).then_some((limit, *answer))
        })
    }
}

/// The policies that may deny, each once: those with a limit that is neither in shadow nor soft.
pub(super) fn enforcing<'r>(
    config: &'r Config,
    asked: &'r [Asked],
) -> impl Iterator<Item = (usize, &'r Policy)> {
    asked
        .chunk_by(|a, b| a.policy == b.policy)
        .filter_map(|limits| limits.iter().find(|asked| asked.is_enforced()))
        .filter_map(|first| Some((first.policy, config.policies.get(first.policy)?)))
}
