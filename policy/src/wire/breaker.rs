//! Owns what a process and its gateway say of breakers: a part that a message of the tick carries, and
//! the message that carries nothing else.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BadMessage, DecisionId, Message, read};
use crate::breaker::mesh::{
    Adaptive, BACKOFF_MAX, Batch, Holder, OPEN_MS_MAX, OVER_MS_MAX, State, Terms, Window,
};
use crate::scope::CallerScope;

/// Where a process reports.
pub const BREAKERS_PATH: &str = "/v1/breakers";
/// The most reports in one message.
pub const REPORTS_MAX: usize = 128;
/// The most states in one reply beside those that were reported on.
pub const CHANGES_MAX: usize = 256;
/// The longest name of a breaker.
pub const BREAKER_NAME_LEN_MAX: usize = 200;
/// The longest window: a day, or a million calls.
const WINDOW_MS_MAX: u32 = 86_400_000;
const WINDOW_CALLS_MAX: u32 = 1_000_000;
/// Sequence numbers stay below 2^48: that is how they are stored.
const STORED_MAX: u64 = 1 << 48;

/// The name of a breaker in its region: as configured, and behind a `:` whom it is for, if it is one
/// for each of many.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BreakerName(String);

/// A process, by 64 random bits; written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId(pub Holder);

/// `POST /v1/breakers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakersRequest {
    /// [`super::VERSION`].
    pub v: u16,
    /// Made by the filter, echoed by the gateway.
    pub id: DecisionId,
    /// From where.
    pub scope: CallerScope,
    /// How long the filter waits. The gateway's deadline must be shorter.
    pub timeout_ms: u32,
    /// What it says.
    pub breakers: BreakersPart,
}

/// What a process says of its breakers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakersPart {
    /// Which process.
    pub process: ProcessId,
    /// Counts the process's messages, from 1. A repeated one is counted once.
    pub seq: u64,
    /// The `cursor` of the last reply; 0 at first: then every breaker that ever changed is told.
    pub since: u64,
    /// Up to [`REPORTS_MAX`], each breaker once.
    pub reports: Vec<BreakerReport>,
}

/// What a process says of one breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerReport {
    /// Which.
    pub name: BreakerName,
    /// Its numbers.
    pub terms: Terms,
    /// What happened.
    #[serde(flatten)]
    pub batch: Batch,
}

/// The answer to a [`BreakersRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakersReply {
    /// [`super::VERSION`].
    pub v: u16,
    /// The request's id.
    pub id: DecisionId,
    /// What the gateway says.
    pub breakers: BreakersSaid,
}

/// What a gateway says of breakers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakersSaid {
    /// To be sent with the next message. Less than that message's `since` if the region's list of changes went back.
    pub cursor: u64,
    /// Those that were reported on, and those that changed since.
    pub states: Vec<BreakerState>,
}

/// Where one breaker stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerState {
    /// Which.
    pub name: BreakerName,
    /// Where it stands.
    pub state: State,
    /// Since which transition.
    pub epoch: u64,
    /// Open: ms until a test is due. Half open: ms until the test that is out is lost. An operator's
    /// state: ms until its end, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Closed by good tests: ms since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healed_ms: Option<u64>,
    /// The test that this process may make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit: Option<Permit>,
}

/// Leave to make one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// Its number, to be sent with its end.
    pub id: u64,
    /// For how many ms.
    pub ms: u64,
}

impl Message for BreakersRequest {
    fn version(&self) -> u16 {
        self.v
    }
}

impl Message for BreakersReply {
    fn version(&self) -> u16 {
        self.v
    }
}

// === impl BreakerName ===

impl BreakerName {
    /// Accepts 1 to [`BREAKER_NAME_LEN_MAX`] of `a-z A-Z 0-9 . _ ~ % : + ! -`.
    pub fn new(text: &str) -> Option<Self> {
        let sound = !text.is_empty()
            && text.len() <= BREAKER_NAME_LEN_MAX
            && text.bytes().all(|b| {
                b.is_ascii_alphanumeric()
                    || matches!(b, b'.' | b'_' | b'~' | b'%' | b':' | b'+' | b'!' | b'-')
            });
        sound.then(|| Self(text.to_string()))
    }

    /// The text, as it stands in keys and messages.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// That of the breaker `configured`, for `whose` if it is one for each of many.
    pub fn of(configured: &str, whose: Option<&str>) -> Option<Self> {
        match whose {
            None => Self::new(configured),
            Some(whose) => Self::new(&[configured, ":", whose].concat()),
        }
    }

    /// Whose it is, if it is one for each of many.
    pub fn whose(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, whose)| whose)
    }

    /// As it is configured: without whom it is for. Of a bounded number, for metrics.
    pub fn configured(&self) -> &str {
        self.0.split_once(':').map_or(self.0.as_str(), |(name, _)| name)
    }
}

impl Serialize for BreakerName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BreakerName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::new(&text).ok_or_else(|| {
            serde::de::Error::custom(
                "the name of a breaker is 1 to 200 of the characters a-z A-Z 0-9 . _ ~ % : + ! -",
            )
        })
    }
}

// === impl ProcessId ===

impl Serialize for ProcessId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:016x}", u64::from_be_bytes(self.0)))
    }
}

impl<'de> Deserialize<'de> for ProcessId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let sound =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let bits = u64::from_str_radix(&text, 16).ok().filter(|_| sound);
        bits.map(|bits| Self(bits.to_be_bytes())).ok_or_else(|| {
            serde::de::Error::custom("a process is 16 lower-case hexadecimal digits")
        })
    }
}

// === impl Terms ===

impl Terms {
    /// Whether the numbers can be; if not, what to do about it.
    pub fn check(&self) -> Result<(), &'static str> {
        match self.window {
            Window::Ms(100..=WINDOW_MS_MAX) | Window::Calls(1..=WINDOW_CALLS_MAX) => {}
            Window::Ms(_) => return Err("a window is 100 ms to a day"),
            Window::Calls(_) => return Err("a window is 1 to 1000000 calls"),
        }
        if let Some(Adaptive { min_permille, over_ms }) = self.adaptive {
            let Window::Ms(span_ms) = self.window else {
                return Err("adaptive needs a window by time");
            };
            if !(1..self.failure_permille).contains(&min_permille) {
                return Err("adaptive's min_permille is 1 to below failure_permille");
            }
            if !(span_ms..=OVER_MS_MAX).contains(&over_ms) {
                return Err("adaptive's over_ms is at least the window and at most a day");
            }
        }
        let rows = [
            (self.failure_permille <= 1_000, "failure_permille is 0 to 1000"),
            (self.slow_permille <= 1_000, "slow_permille is 0 to 1000"),
            ((5..=OPEN_MS_MAX).contains(&self.open_ms), "open_ms is 5 to 3600000"),
            (self.backoff <= BACKOFF_MAX, "backoff is 0 to 5"),
            (self.successes >= 1, "successes is 1 to 255"),
            ((1..=OPEN_MS_MAX).contains(&self.probe_ms), "probe_ms is 1 to 3600000"),
            (self.trip_reporters >= 1, "trip_reporters is 1 to 255"),
        ];
        rows.iter().find(|(sound, _)| !sound).map_or(Ok(()), |(_, remedy)| Err(*remedy))
    }
}

// === impl BreakersPart ===

impl BreakersPart {
    /// A part that passes has sound names and numbers.
    pub fn check(&self) -> Result<(), BadMessage> {
        if self.reports.len() > REPORTS_MAX {
            return Err(BadMessage::Breaker("send at most 128 reports"));
        }
        if self.seq == 0 || self.seq >= STORED_MAX || self.since >= STORED_MAX {
            return Err(BadMessage::Breaker("seq is 1 to 2^48 - 1, since is below that"));
        }
        for (index, report) in self.reports.iter().enumerate() {
            report.terms.check().map_err(BadMessage::Breaker)?;
            let Batch { calls, failures, slow, epoch, probe, .. } = report.batch;
            if failures > calls || slow > calls {
                return Err(BadMessage::Breaker("failures and slow calls are some of the calls"));
            }
            if epoch >= STORED_MAX || probe.is_some_and(|probe| probe.id >= STORED_MAX) {
                return Err(BadMessage::Breaker("an epoch and a test's number are below 2^48"));
            }
            if self.reports.iter().skip(index + 1).any(|other| other.name == report.name) {
                return Err(BadMessage::Breaker("report each breaker once"));
            }
        }
        Ok(())
    }
}

// === impl BreakersRequest ===

impl BreakersRequest {
    /// Reads and checks a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let message: Self = read(bytes)?;
        message.breakers.check()?;
        Ok(message)
    }
}

// === impl BreakersReply ===

impl BreakersReply {
    /// Reads the gateway's answer to the message `asked`.
    pub fn decode(bytes: &[u8], asked: DecisionId) -> Result<Self, BadMessage> {
        let reply: Self = read(bytes)?;
        if reply.id == asked {
            Ok(reply)
        } else {
            Err(BadMessage::Malformed("the answer is to another message".to_string()))
        }
    }
}
