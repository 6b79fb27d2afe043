//! Owns an event that says only in what it differs from another of its message. Knows no message.

use alloc::format;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize, Serializer};

use super::{AuditNote, ID_DIGITS};
use crate::audit::About;
use crate::identity::SubjectName;
use crate::wire::{BadMessage, DecisionId};

/// An event that is like one of the message's `events` in all but what stands here: as JSON
/// `[like, number, age_ms, decision, names]`. Most events of a busy limit are: to say all of each would cost a worker
/// several times as much.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Brief<N = Vec<SubjectName>> {
    /// Which of the message's `events` it is like, from 0.
    pub like: usize,
    /// The number of its id; the digits before it are the other's.
    pub number: u64,
    /// As in [`AuditNote::age_ms`].
    pub age_ms: u32,
    /// As in [`AuditNote::decision`], counted from the other's.
    pub decision: Option<Halves>,
    /// The names of the subjects, one for each limit that the other is about.
    pub names: N,
}

/// How far a decision's id is from another one's: two numbers, of its upper and of its lower 64 bits, each of which begins
/// anew behind its largest. A worker's decisions are counted up, so that both are small; what is spelled in full takes as
/// long as the rest of a brief event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halves(u64, u64);

/// The names of whom an event is about.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(pub &'a [About]);

impl<N: Serialize> Serialize for Brief<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (self.like, self.number, self.age_ms, self.decision, &self.names).serialize(to)
    }
}

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|about| &about.subject.name))
    }
}

// === impl Halves ===

impl Halves {
    /// From `other`, or from nothing, to `id`.
    pub fn between(other: Option<DecisionId>, id: DecisionId) -> Self {
        let (from, to) = (Self::of(other), Self::of(Some(id)));
        Self(to.0.wrapping_sub(from.0), to.1.wrapping_sub(from.1))
    }

    /// What is so far from `other`.
    fn from(self, other: Option<DecisionId>) -> DecisionId {
        let from = Self::of(other);
        DecisionId::of_halves(from.0.wrapping_add(self.0), from.1.wrapping_add(self.1))
    }

    fn of(id: Option<DecisionId>) -> Self {
        let [upper, lower] = id.map_or([0, 0], DecisionId::halves);
        Self(upper, lower)
    }

    fn is_small(self) -> bool {
        self.0 == 0 && self.1 <= u64::from(u32::MAX)
    }
}

// === impl Brief ===

impl<N> Brief<N> {
    /// The most octets that it takes in a message without its names.
    pub(crate) fn weight(&self) -> usize {
        const SMALL: usize = 56;
        const ANY: usize = 88;
        if self.decision.is_none_or(Halves::is_small) { SMALL } else { ANY }
    }
}

impl Brief {
    /// The whole of it, where `like` is the event that it is like.
    pub(super) fn whole(self, like: &AuditNote) -> Result<AuditNote, BadMessage> {
        let Self { number, age_ms, decision, names, .. } = self;
        let (worker, _number) = like.id.split_at_checked(ID_DIGITS).unwrap_or_default();
        let id = format!("{worker}-{number}");
        let decision = decision.map(|decision| decision.from(like.decision));
        let mut note = AuditNote { id, age_ms, decision, more: 0, ..like.clone() };
        if names.len() != note.about.len() {
            return Err(BadMessage::Event("it names more or fewer than it is about"));
        }
        for (about, name) in note.about.iter_mut().zip(names) {
            about.subject.name = name;
        }
        Ok(note)
    }
}
