//! Owns what is written down during a run: who did or saw what, and when. It must not compare.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_host_sim::HeaderMap;

/// One line of a transcript, before it is put in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Since the timeline began; before it for what happens at the start.
    pub(super) at_ms: f64,
    /// Who: lines of one lane keep their order, lines of two lanes only from moment to moment.
    pub(super) lane: Lane,
    /// What.
    pub(super) text: String,
}

/// Who did or saw something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// A root context: its timers and queues are not bound to the timeline.
    Root { vm: String, tag: String, context: u32 },
    /// A stream's context.
    Stream { vm: String, tag: String, context: u32 },
    /// A request that reached a service.
    Call { is_upstream: bool, nth: usize },
    /// A client's request.
    Client { name: String, nth: usize },
    /// What holds at the end of the run.
    End,
}

/// Where several tasks write.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder {
    entries: Arc<Mutex<Vec<Entry>>>,
}

// === impl Lane ===

impl Lane {
    /// The name in transcripts.
    pub(super) fn name(&self) -> String {
        let service = |is_upstream: bool| if is_upstream { "upstream" } else { "gateway" };
        match self {
            Self::Root { vm, tag, context } => format!("{vm} {tag} root {context}"),
            Self::Stream { vm, tag, context } => format!("{vm} {tag} {context}"),
            Self::Call { is_upstream, nth } => format!("{} #{nth}", service(*is_upstream)),
            Self::Client { name, nth: 1 } => format!("client {name}"),
            Self::Client { name, nth } => format!("client {name} #{nth}"),
            Self::End => "at the end".to_owned(),
        }
    }
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn push(&self, at_ms: f64, lane: Lane, text: String) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(Entry { at_ms, lane, text });
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Headers as they stand in transcripts: sorted by name, without what only one side has by nature.
/// Framing is the connection's affair, and dates and ids differ from run to run.
pub(super) fn shown(headers: &HeaderMap) -> String {
    const LEFT_OUT: [&str; 4] = [":scheme", ":status", "transfer-encoding", "date"];
    const VALUE_LEFT_OUT: [&str; 2] = ["x-request-id", "x-envoy-upstream-service-time"];
    let mut lines: Vec<(String, String)> = headers
        .pairs()
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value))
        .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()))
        .map(|(name, value)| {
            let value = match name.as_str() {
                hidden if VALUE_LEFT_OUT.contains(&hidden) => "...".to_owned(),
                // Of a retry it is what is left, to the millisecond.
                "x-envoy-expected-rq-timeout-ms" => rounded(value),
                _ => escaped(value),
            };
            (name, value)
        })
        .collect();
    // Stable, so that the values of one name keep their order.
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{{{}}}", lines.join(", "))
}

fn rounded(value: &[u8]) -> String {
    let ms: u64 = String::from_utf8_lossy(value).parse().unwrap_or(0);
    format!("{} or less", ms.next_multiple_of(100))
}

/// Bytes as they stand in transcripts; long ones by length and digest.
pub(super) fn escaped(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 400;
    if bytes.len() > SHOWN_MAX {
        let digest = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        return format!("<{} bytes, digest {digest:08x}>", bytes.len());
    }
    format!("\"{}\"", bytes.escape_ascii())
}
