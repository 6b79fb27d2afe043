//! Owns the message by which the filter hands over its audit events, and what becomes of each. Knows no
//! chain.
//!
//! An event that is `kept` is in the chain or on a disk; what is not answered with `kept` or `refused` is sent
//! again, with the same id: it will not be there twice.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::iter;

use serde::{Deserialize, Serialize};

use super::{BadMessage, DecisionId, Message, VERSION, read, sound_id};
use crate::audit::{About, Action, Durability};
use crate::config::ConfigHash;
use crate::scope::{CallerScope, Tenant};

mod brief;

pub use brief::{Brief, Halves, Names};

/// Where the filter hands its audit events over.
pub const AUDIT_PATH: &str = "/v1/audit";
/// The most events that one message tells as a whole.
pub const EVENTS_MAX: usize = 64;
/// The most events of one message, brief ones with the others: a call costs Envoy as much as dozens of events.
pub const BRIEFS_MAX: usize = 768;
/// The most limits that one event is about.
pub const ABOUT_MAX: usize = 16;
/// The longest outcome and detail, in bytes.
pub const NOTE_TEXT_MAX: usize = 1_024;
/// Random digits of an event's id; what follows is a number.
const ID_DIGITS: usize = 32;
/// The longest id, in bytes.
pub(crate) const ID_LEN_MAX: usize = 52;

/// `POST /v1/audit`: what happened in a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRequest<E = AuditNote, B = Brief> {
    /// [`VERSION`].
    pub v: u16,
    /// Names the message; echoed.
    pub id: DecisionId,
    /// From where; its tenant says nothing.
    pub scope: CallerScope,
    /// How long the filter waits.
    pub timeout_ms: u32,
    /// Whether a request waits for it: then the gateway gathers no others first.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub urgent: bool,
    /// The configuration that all of the events are of; absent where each says its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigHash>,
    /// 1 to [`EVENTS_MAX`].
    pub events: Vec<E>,
    /// More of them, each like one of `events`, at most [`BRIEFS_MAX`] with those; for a gateway that has said that it reads
    /// such.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub briefs: Vec<B>,
}

/// A message as it is read: an event that cannot be read does not keep the others from being taken. What was brief stands
/// behind the others as a whole; of its `briefs` nothing but their number is left.
pub type AuditHeard = AuditRequest<Result<AuditNote, BadMessage>, ()>;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditNote {
    /// 32 random hex digits of the filter's worker, `-`, and a number that it counts up.
    pub id: String,
    /// How long ago it was, in ms: the clocks of both sides never meet.
    pub age_ms: u32,
    /// What happened: deny, overload, replay, conflict, breaker, rung, config, allow or loss.
    pub action: Action,
    /// A reason's text, or `ok`.
    pub outcome: String,
    /// Whose request it was.
    #[serde(default, skip_serializing_if = "Tenant::is_none")]
    pub tenant: Tenant,
    /// How many like it came after the first and are told by this event; 0 is this one alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u32,
    /// What a reader needs beyond that; no personal data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The decision, for a gateway that reads briefs. For others, and once it was heard, the detail says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionId>,
    /// The configuration that it is of, unless the message says so for all, or it is of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigHash>,
    /// How durable it has to be: whether its decision waits for it, or it was drawn by a share.
    #[serde(default = "is_async", skip_serializing_if = "Durability::is_async")]
    pub durability: Durability,
    /// The limits that it is about. The gateway hashes their subjects or leaves them out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<About>,
}

/// The answer to an [`AuditRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReply {
    /// [`VERSION`].
    pub v: u16,
    /// The message's id.
    pub id: DecisionId,
    /// One for each of the message's `events`, in their order; once it was read, those of its `briefs` stand behind them.
    pub events: Vec<Kept>,
    /// What became of the message's `briefs`, in their order: of so many the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brief_events: Vec<(Kept, u32)>,
    /// Whether this gateway reads [`Brief`]s.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub briefs: bool,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// In the chain, or on the gateway's disk on its way there.
    Kept,
    /// Not yet: send it again.
    Later,
    /// Never: this gateway keeps no chain, or the event cannot stand in one.
    Refused,
}

/// The one configuration that all of the events are of: then none has to say it.
pub fn common_config(events: &mut [AuditNote]) -> Option<ConfigHash> {
    let first = events.first()?.config?;
    let is_common = events.iter().all(|event| event.config == Some(first));
    if is_common {
        events.iter_mut().for_each(|event| event.config = None);
    }
    is_common.then_some(first)
}

fn is_async() -> Durability {
    Durability::Async
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<E, B> Message for AuditRequest<E, B> {
    fn version(&self) -> u16 {
        self.v
    }
}

impl Message for AuditReply {
    fn version(&self) -> u16 {
        self.v
    }
}

// === impl AuditRequest ===

impl AuditRequest {
    /// Reads and checks a message, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let heard = Self::hear(bytes)?;
        let AuditRequest { v, id, scope, timeout_ms, urgent, config, events, briefs: _were } =
            heard;
        let events = events.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { v, id, scope, timeout_ms, urgent, config, events, briefs: Vec::new() })
    }

    /// Reads a message, and each of its events apart from the others.
    pub fn hear(bytes: &[u8]) -> Result<AuditHeard, BadMessage> {
        type Raw = AuditRequest<serde_json::Value, serde_json::Value>;
        let Raw { v, id, scope, timeout_ms, urgent, config, events, briefs } = read(bytes)?;
        if events.is_empty() || events.len() > EVENTS_MAX {
            return Err(BadMessage::Event("send 1 to 64 events"));
        }
        if events.len().saturating_add(briefs.len()) > BRIEFS_MAX {
            return Err(BadMessage::Event("send at most 768 events, brief ones with the others"));
        }
        let were_brief = vec![(); briefs.len()];
        let mut events: Vec<_> = events.into_iter().map(AuditNote::read).collect();
        for brief in briefs {
            let whole = AuditNote::read_brief(brief, &events);
            events.push(whole);
        }
        events.iter_mut().flatten().for_each(AuditNote::tell_decision);
        Ok(AuditRequest { v, id, scope, timeout_ms, urgent, config, events, briefs: were_brief })
    }
}

// === impl AuditNote ===

impl AuditNote {
    fn read(value: serde_json::Value) -> Result<Self, BadMessage> {
        let read = serde_json::from_value::<Self>(value);
        let note = read.map_err(|error| BadMessage::Malformed(error.to_string()))?;
        note.checked()
    }

    fn checked(self) -> Result<Self, BadMessage> {
        self.check().map(|()| self)
    }

    /// A brief one behind `others`; that it is like another brief one is not provided for, and does no harm.
    fn read_brief(
        value: serde_json::Value,
        others: &[Result<Self, BadMessage>],
    ) -> Result<Self, BadMessage> {
        let read = serde_json::from_value::<Brief>(value);
        let brief = read.map_err(|error| BadMessage::Malformed(error.to_string()))?;
        match others.get(brief.like) {
            Some(Ok(like)) => brief.whole(like)?.checked(),
            Some(Err(bad)) => Err(bad.clone()),
            None => Err(BadMessage::Event("it is like none of the message")),
        }
    }

    /// Puts the decision where a record has it.
    fn tell_decision(&mut self) {
        if let Some(decision) = self.decision.take() {
            if !self.detail.is_empty() {
                self.detail.push(' ');
            }
            self.detail.push_str("decision=");
            decision.push_to(&mut self.detail);
        }
    }

    /// The number of its id: a worker's events are counted up.
    pub fn number(&self) -> Option<u64> {
        self.id.rsplit('-').next()?.parse().ok()
    }

    fn check(&self) -> Result<(), BadMessage> {
        let own = matches!(
            self.action,
            Action::Deny
                | Action::Overload
                | Action::Replay
                | Action::Conflict
                | Action::Breaker
                | Action::Rung
                | Action::Config
                | Action::Allow
                | Action::Loss
        );
        if !own {
            return Err(BadMessage::Event("its action is none of a filter's"));
        }
        // Apart from the gateways' own ids, which begin with words, and from decisions'.
        let id = self.id.split_at_checked(ID_DIGITS).and_then(|(random, rest)| {
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let number = rest.strip_prefix('-').filter(|number| !number.is_empty())?;
            let sound = random.bytes().all(hex) && number.bytes().all(|byte| byte.is_ascii_digit());
            (sound && self.id.len() <= ID_LEN_MAX).then_some(())
        });
        if id.is_none() {
            return Err(BadMessage::Event("its id is not 32 hex digits, -, and a number"));
        }
        let text = |text: &str| text.len() <= NOTE_TEXT_MAX;
        if self.outcome.is_empty() || !text(&self.outcome) || !text(&self.detail) {
            return Err(BadMessage::Event(
                "its outcome is empty, or a text is longer than 1024 bytes",
            ));
        }
        if self.about.len() > ABOUT_MAX {
            return Err(BadMessage::Event("it is about more than 16 limits"));
        }
        self.about.iter().try_for_each(|about| sound_id(&about.limit))
    }
}

// === impl AuditReply ===

impl AuditReply {
    /// Reads the gateway's answer to the message `asked`, which had so many events as a whole, and so many brief ones.
    pub fn decode(
        bytes: &[u8],
        asked: DecisionId,
        (events, briefs): (usize, usize),
    ) -> Result<Self, BadMessage> {
        let mut reply: Self = read(bytes)?;
        let count = |(_, count): &(Kept, u32)| usize::try_from(*count).unwrap_or(usize::MAX);
        let told = reply.brief_events.iter().map(count).fold(0, usize::saturating_add);
        if reply.id != asked || (reply.events.len(), told) != (events, briefs) {
            return Err(BadMessage::Malformed("the answer is to another message".to_string()));
        }
        for run in core::mem::take(&mut reply.brief_events) {
            reply.events.extend(iter::repeat_n(run.0, count(&run)));
        }
        Ok(reply)
    }

    /// The answer of who reads briefs: what became of each event, the last so many of which were brief.
    pub fn new(id: DecisionId, mut events: Vec<Kept>, briefs: usize) -> Self {
        let mut brief_events: Vec<(Kept, u32)> = Vec::new();
        for kept in events.split_off(events.len().saturating_sub(briefs)) {
            match brief_events.last_mut().filter(|(last, _)| *last == kept) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => brief_events.push((kept, 1)),
            }
        }
        Self { v: VERSION, id, events, brief_events, briefs: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_the_configuration_of_all_or_each_event_says_its_own() {
        let note = |config: Option<char>| AuditNote {
            id: String::new(),
            age_ms: 0,
            action: Action::Allow,
            outcome: String::new(),
            tenant: Tenant::None,
            more: 0,
            detail: String::new(),
            decision: None,
            config: config.and_then(|digit| ConfigHash::read(&String::from_iter([digit; 64]))),
            durability: Durability::Async,
            about: Vec::new(),
        };
        for (each, expected) in [
            (vec![Some('a'), Some('a')], Some('a')),
            (vec![Some('a'), Some('b')], None),
            (vec![Some('a'), None], None),
            (vec![None, Some('a')], None),
            (vec![], None),
        ] {
            let mut notes: Vec<_> = each.iter().copied().map(note).collect();
            let before: Vec<_> = notes.iter().map(|note| note.config).collect();
            let common = common_config(&mut notes);
            assert_eq!(common, note(expected).config, "{each:?}");
            let after = notes.iter().map(|note| note.config.or(common));
            assert_eq!(after.collect::<Vec<_>>(), before, "{each:?}");
        }
    }
}
