//! Owns the order of a decision's stages, the verdict over all of them, and what the others give back
//! when one denies. The exchange asks it; it knows no stage's inside.
//!
//! ```text
//! identity ─► limits ─► idempotency ─► breaker permit ─► upstream
//! ```
//!
//! All stages of one decision travel in one question, so any of them may have taken something by the
//! time another denies. Contract: nothing stays charged, claimed or permitted when any stage denies;
//! only idempotency's own refusals and replays cost the normal budget, or one key in flight would give
//! callouts for nothing. A stage that denies gives back its own part itself: its step is atomic.

/// Who the request is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// Known, or not needed.
    Known,
    /// Missing, and its policy says deny.
    Missing,
}

/// What the limits said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limits {
    /// No limit applies.
    NotAsked,
    /// Every limit admits, and was charged.
    Charged,
    /// Admitted without a verdict: nothing was charged where it could be given back.
    Waived,
    /// A limit is used up, the gateway is at its bound, or no verdict could be had and a policy
    /// denies: nothing is charged.
    Denied,
}

/// What idempotency said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Idempotency {
    /// The request has no key, or needs none.
    NotAsked,
    /// The key is claimed for this request.
    Claimed,
    /// The answer is there: it is given again.
    Replay,
    /// The key is missing, malformed, in flight, or of another request.
    Refused,
    /// Nobody knows, and the policy requires to know.
    Unavailable,
}

/// What the breaker said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permit {
    /// No breaker applies.
    NotAsked,
    /// The request may go, and its outcome is waited for.
    Granted,
    /// The circuit is open, or its test is taken.
    Refused,
}

/// What every stage came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcomes {
    /// The first.
    pub identity: Identity,
    /// The second.
    pub limits: Limits,
    /// The third.
    pub idempotency: Idempotency,
    /// The last before the upstream.
    pub permit: Permit,
}

/// A stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Who.
    Identity,
    /// How much.
    Limits,
    /// Whether again.
    Idempotency,
    /// Whether the upstream can take it.
    Permit,
}

/// What becomes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the upstream.
    Admit,
    /// It gets the answer that is there.
    Replay,
    /// This stage denies it: the first in the order, if several would.
    Deny(Stage),
}

/// What has to be given back, since it was taken for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GiveBack {
    /// What the limits were charged.
    pub refund: bool,
    /// The claim of the key.
    pub abandon: bool,
    /// The breaker's permit.
    pub permit: bool,
}

// === impl Outcomes ===

impl Outcomes {
    /// Nothing asked yet.
    pub const NONE: Self = Self {
        identity: Identity::Known,
        limits: Limits::NotAsked,
        idempotency: Idempotency::NotAsked,
        permit: Permit::NotAsked,
    };

    /// The verdict over all stages.
    pub fn verdict(self) -> Verdict {
        let Self { identity, limits, idempotency, permit } = self;
        match (identity, limits, idempotency, permit) {
            (Identity::Missing, ..) => Verdict::Deny(Stage::Identity),
            (_, Limits::Denied, ..) => Verdict::Deny(Stage::Limits),
            (_, _, Idempotency::Refused | Idempotency::Unavailable, _) => {
                Verdict::Deny(Stage::Idempotency)
            }
            // Also beside an open circuit: what is done needs no upstream.
            (_, _, Idempotency::Replay, _) => Verdict::Replay,
            (_, _, _, Permit::Refused) => Verdict::Deny(Stage::Permit),
            _ => Verdict::Admit,
        }
    }

    /// What the verdict gives back.
    pub fn give_back(self) -> GiveBack {
        let verdict = self.verdict();
        let goes_on = verdict == Verdict::Admit;
        // Its own refusals and replays cost the normal budget; that nobody knows is not its word.
        let is_paid = verdict == Verdict::Replay
            || (verdict == Verdict::Deny(Stage::Idempotency)
                && self.idempotency == Idempotency::Refused);
        GiveBack {
            refund: self.limits == Limits::Charged && !goes_on && !is_paid,
            abandon: self.idempotency == Idempotency::Claimed && !goes_on,
            permit: self.permit == Permit::Granted && !goes_on,
        }
    }
}

#[cfg(test)]
mod tests;
