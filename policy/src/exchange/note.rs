//! Owns why a request was denied, or would have been, as an access log shows it: one line of
//! `key=value`, written only where there is something to say.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::respond::Told;
use super::{Act, Denial, Effects, Phase, Signal};
use crate::config::{Config, Rung};
use crate::digits::push_number;
use crate::reason::Reason;
use crate::wire::DecisionId;

/// The most names of one list: a log line is no place for 64 limits.
const NAMES_MAX: usize = 16;
/// About what a line takes, in bytes.
const LINE_LEN: usize = 128;

/// Why, for the access log. Holds nothing that a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What became of the request.
    pub verdict: Noted,
    /// Why.
    pub reason: Reason,
    /// Why there was no verdict, where that is why.
    pub cause: Option<Reason>,
    /// The rungs that the policies ended on, where there was no verdict; each once.
    pub rungs: Vec<Rung>,
    /// The limits (`policy.limit`) or policies that the verdict is about.
    pub limits: Vec<String>,
    /// Beside a verdict of others: the limits in shadow that would have denied.
    pub would_deny: Vec<String>,
    /// Beside a verdict of others: the soft limits that are used up.
    pub soft: Vec<String>,
    /// The decision.
    pub id: DecisionId,
}

/// What became of a request that is worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It was answered in the upstream's place.
    Denied,
    /// It went on without a verdict, since its policies say so.
    Degraded,
    /// It went on; a policy in shadow would have denied it.
    WouldDeny,
    /// It went on; a soft limit is used up.
    SoftLimit,
}

/// What was found beside the verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Aside {
    pub(super) would_deny: Vec<String>,
    pub(super) soft: Vec<String>,
    /// Whether it is for want of an identity that a policy would have denied.
    pub(super) missing: bool,
}

// === impl Noted ===

impl Noted {
    /// As it stands in the line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Degraded => "degraded",
            Self::WouldDeny => "would-deny",
            Self::SoftLimit => "soft-limit",
        }
    }
}

// === impl Note ===

impl Note {
    /// Whether the gateway's verdict is what became of the request.
    pub fn has_verdict(&self) -> bool {
        self.verdict != Noted::Degraded && self.cause.is_none()
    }

    /// The line, without the machinery of formats: every denial has one.
    pub fn line(&self) -> String {
        let mut line = String::with_capacity(LINE_LEN);
        line.push_str("verdict=");
        line.push_str(self.verdict.as_str());
        line.push_str(" reason=");
        line.push_str(self.reason.as_str());
        if let Some(cause) = self.cause {
            line.push_str(" cause=");
            line.push_str(cause.as_str());
        }
        for (place, rung) in self.rungs.iter().enumerate() {
            line.push_str(if place == 0 { " rungs=" } else { "," });
            line.push_str(rung.as_str());
        }
        for (key, names) in
            [(" limits=", &self.limits), (" would_deny=", &self.would_deny), (" soft=", &self.soft)]
        {
            for (place, name) in names.iter().take(NAMES_MAX).enumerate() {
                line.push_str(if place == 0 { key } else { "," });
                line.push_str(name);
            }
            if names.len() > NAMES_MAX {
                line.push_str(",+");
                let more = names.len().saturating_sub(NAMES_MAX);
                push_number(&mut line, u64::try_from(more).unwrap_or(u64::MAX));
            }
        }
        line.push_str(" decision=");
        self.id.push_to(&mut line);
        line
    }

    /// With the rungs that its policies ended on.
    pub(super) fn fallen(mut self, rungs: Vec<Rung>) -> Self {
        self.rungs = rungs;
        self
    }
}

// === impl Aside ===

impl Aside {
    /// The note of a request that went on with a verdict, if there is anything to say of it.
    pub(super) fn admitted(self, id: DecisionId) -> Option<Note> {
        let (verdict, limits, soft) = match (self.would_deny.is_empty(), self.soft.is_empty()) {
            (true, true) => return None,
            (false, _) => (Noted::WouldDeny, self.would_deny, self.soft),
            (true, false) => (Noted::SoftLimit, self.soft, Vec::new()),
        };
        let reason = match self.missing {
            true => Reason::ClientIdentityRequired,
            false => Reason::QuotaExceeded,
        };
        let (rungs, would_deny) = (Vec::new(), Vec::new());
        Some(Note { verdict, reason, cause: None, rungs, limits, would_deny, soft, id })
    }

    /// The note of a request that was denied, or that went on without a verdict.
    pub(super) fn beside(
        self,
        verdict: Noted,
        reason: Reason,
        cause: Option<Reason>,
        limits: Vec<String>,
        id: DecisionId,
    ) -> Note {
        let Self { would_deny, soft, .. } = self;
        Note { verdict, reason, cause, rungs: Vec::new(), limits, would_deny, soft, id }
    }
}

/// A denial, with the line that says why.
pub(super) fn denied(
    denial: Denial,
    cause: Option<Reason>,
    aside: Aside,
    signals: Vec<Signal>,
) -> (Phase, Effects) {
    let limits = denial.violated.clone();
    let note = aside.beside(Noted::Denied, denial.reason, cause, limits, denial.id);
    let act = Act::Deny(Box::new(denial));
    (Phase::Replied, Effects { note: Some(Box::new(note)), ..Effects::of(act, signals) })
}

/// A request that goes on without a verdict, with the line that says why.
pub(super) fn degraded(
    why: Reason,
    policies: Vec<String>,
    aside: Aside,
    id: DecisionId,
    signals: Vec<Signal>,
) -> (Phase, Effects) {
    let note = Some(Box::new(aside.beside(Noted::Degraded, why, None, policies, id)));
    let effects = Effects { note, ..Effects::of(Act::Resume, signals) };
    (Phase::Admitted(Told::default()), effects)
}

/// The first of the policies that deny which has words of its own.
pub(super) fn worded_by(
    config: &Config,
    mut policies: impl Iterator<Item = usize>,
) -> Option<usize> {
    policies.find(|&index| config.policies.get(index).is_some_and(|policy| policy.denied.is_some()))
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString;
    use std::vec;

    #[test]
    fn a_line_says_what_there_is_and_no_more() {
        let id = DecisionId::new(7);
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let aside = Aside { would_deny: names(&["s.x"]), soft: names(&["p.s"]), missing: false };
        let decision = "decision=00000000-0000-8000-8000-000000000007";
        let rows = [
            (
                aside.clone().admitted(id),
                "verdict=would-deny reason=quota-exceeded limits=s.x soft=p.s",
            ),
            (
                Aside { would_deny: vec![], ..aside.clone() }.admitted(id),
                "verdict=soft-limit reason=quota-exceeded limits=p.s",
            ),
            (
                Aside { missing: true, ..aside.clone() }.admitted(id),
                "verdict=would-deny reason=client-identity-required limits=s.x soft=p.s",
            ),
            (
                Some(aside.beside(
                    Noted::Denied,
                    Reason::PolicyStoreUnavailable,
                    Some(Reason::StoreTimeout),
                    names(&["p"]),
                    id,
                )),
                "verdict=denied reason=policy-store-unavailable cause=store-timeout limits=p would_deny=s.x soft=p.s",
            ),
        ];
        for (note, expected) in rows {
            let line = note.map(|note| note.to_string());
            assert_eq!(line, Some(format!("{expected} {decision}")));
        }
        assert_eq!(Aside::default().admitted(id), None);
    }

    #[test]
    fn many_names_are_counted_instead_of_written() {
        let aside = Aside { soft: vec!["p.l".to_string(); 64], ..Aside::default() };
        let line = aside.admitted(DecisionId::new(7)).expect("a note").to_string();
        assert!(line.contains("p.l,+48 decision="), "{line}");
    }
}
