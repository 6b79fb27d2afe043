//! What an HTTP answer means in gRPC, and what the caller is told of it in which order. It must not know tokens.

use super::grpc::GrpcKind;
use super::headers::HeaderMap;
use super::service::{Answer, Fault, Outcome, Reply};

/// What a root is told of a call or stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrpcNews {
    Initial(HeaderMap),
    Message(Vec<u8>),
    Trailing(HeaderMap),
    /// The end, with gRPC's status.
    Close {
        status: u32,
        message: String,
    },
    /// The end of what was never open: the host function itself had already failed.
    Refused(String),
}

/// gRPC's own numbers, as far as a proxy makes them.
const OK: u32 = 0;
const UNKNOWN: u32 = 2;
const INTERNAL: u32 = 13;
pub(super) const UNAVAILABLE: u32 = 14;
const STATUS_MAX: u32 = 16;

/// A whole answer in gRPC's terms.
struct Whole {
    /// None where the answer is no gRPC at all, so that only its end is told.
    initial: Option<HeaderMap>,
    messages: Vec<Vec<u8>>,
    trailing: HeaderMap,
    status: u32,
    message: String,
}

impl GrpcNews {
    pub(super) fn no_cluster() -> Self {
        Self::Refused("Cluster not available".to_owned())
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// When the caller sees which outcome; nothing for a call that never ends. No timeout is zero.
pub(super) fn within(reply: Reply, timeout_ns: u64) -> Option<(u64, Outcome)> {
    // An answer is told when all of it is there.
    let last_ns = match &reply.outcome {
        Outcome::Answer(answer) => answer.chunks.last().map_or(0, |chunk| chunk.after_ns),
        Outcome::Fault(_) => 0,
    };
    let after_ns = reply.after_ns.saturating_add(last_ns);
    let never = reply.outcome == Outcome::Fault(Fault::Timeout);
    if timeout_ns > 0 && (never || after_ns >= timeout_ns) {
        return Some((timeout_ns, Outcome::Fault(Fault::Timeout)));
    }
    (!never).then_some((after_ns, reply.outcome))
}

/// A stream hears everything in order. A call hears its one message, or the status it failed with.
pub(super) fn news_of(kind: GrpcKind, outcome: Outcome) -> Vec<GrpcNews> {
    let whole = match outcome {
        Outcome::Answer(answer) => Whole::of(answer),
        Outcome::Fault(fault) => Whole::broken(fault),
    };
    let Whole { initial, mut messages, trailing, status, message } = whole;
    let close = GrpcNews::Close { status, message };
    match kind {
        GrpcKind::Call if status != OK => vec![close],
        GrpcKind::Call => vec![messages.pop().map_or_else(no_message, GrpcNews::Message)],
        GrpcKind::Stream => {
            let mut news: Vec<_> = initial.map(GrpcNews::Initial).into_iter().collect();
            news.extend(messages.into_iter().map(GrpcNews::Message));
            news.push(GrpcNews::Trailing(trailing));
            news.push(close);
            news
        }
    }
}

fn no_message() -> GrpcNews {
    GrpcNews::Close { status: INTERNAL, message: String::new() }
}

// === impl Whole ===

impl Whole {
    fn of(mut answer: Answer) -> Self {
        for chunk in std::mem::take(&mut answer.chunks) {
            answer.body.extend(chunk.data);
        }
        if answer.status != 200 {
            return Self::error(None, Vec::new(), status_of_http(answer.status));
        }
        let mut headers = HeaderMap::default();
        headers.add(b":status", "200");
        for (key, value) in answer.headers.pairs() {
            headers.add(key, value.clone());
        }
        if headers.first(b"content-type").is_none() {
            headers.add(b"content-type", "application/grpc");
        }
        let Some(trailers) = answer.trailers else {
            if answer.body.is_empty() && headers.first(b"grpc-status").is_some() {
                let (status, message) = status_in(&headers);
                let initial = Some(HeaderMap::default());
                return Self { initial, messages: Vec::new(), trailing: headers, status, message };
            }
            let (messages, is_whole) = messages_in(&answer.body);
            let status = if is_whole { UNKNOWN } else { INTERNAL };
            return Self::error(Some(headers), messages, status);
        };
        let (messages, is_whole) = messages_in(&answer.body);
        if !is_whole {
            return Self::error(Some(headers), messages, INTERNAL);
        }
        let (status, message) = status_in(&trailers);
        Self { initial: Some(headers), messages, trailing: trailers, status, message }
    }

    /// An answer that breaks gRPC's rules.
    fn error(initial: Option<HeaderMap>, messages: Vec<Vec<u8>>, status: u32) -> Self {
        Self { initial, messages, trailing: HeaderMap::default(), status, message: String::new() }
    }

    /// Envoy answers a gRPC caller in gRPC: 200, and the status in headers that end the stream.
    fn broken(fault: Fault) -> Self {
        const BEFORE: &str =
            "upstream connect error or disconnect/reset before headers. reset reason: ";
        let (reason, details) = match fault {
            Fault::Refused => (
                "remote connection failure",
                "remote_connection_failure|delayed_connect_error:_Connection_refused",
            ),
            Fault::Garbage => ("protocol error", "protocol_error"),
            Fault::ResetBeforeHeaders => ("connection termination", "connection_termination"),
            Fault::NoHosts | Fault::Overflow => ("overflow", "overflow"),
            Fault::Timeout => {
                return Self::local("upstream request timeout", "response_timeout");
            }
            Fault::ResetAfterHeaders => return Self::error(None, Vec::new(), INTERNAL),
        };
        let details = format!("upstream_reset_before_response_started{{{details}}}");
        Self::local(&format!("{BEFORE}{reason}"), &details)
    }

    fn local(text: &str, details: &str) -> Self {
        let mut trailing = HeaderMap::default();
        trailing.add(b":status", "200");
        trailing.add(b"content-type", "application/grpc");
        trailing.add(b"grpc-status", UNAVAILABLE.to_string());
        trailing.add(b"grpc-message", text);
        Self {
            initial: Some(HeaderMap::default()),
            messages: Vec::new(),
            trailing,
            status: UNAVAILABLE,
            message: format!("{text}{{{details}}}"),
        }
    }
}

/// Status and message, and how the answer came about, which Envoy appends.
fn status_in(map: &HeaderMap) -> (u32, String) {
    const DETAILS: &str = "via_upstream";
    let number = map.text("grpc-status").and_then(|text| text.parse::<u32>().ok());
    let status = number.filter(|status| *status <= STATUS_MAX).unwrap_or(UNKNOWN);
    let message = percent_decoded(map.first(b"grpc-message").unwrap_or_default());
    let message =
        if message.is_empty() { DETAILS.to_owned() } else { format!("{message}{{{DETAILS}}}") };
    (status, message)
}

fn percent_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                decoded.push(code);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The length-prefixed messages of a body, and whether nothing else was in it. Compressed ones cannot be read.
fn messages_in(mut body: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        let [flag, length @ ..] = *prefix;
        let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let Some((message, tail)) = rest.split_at_checked(len).filter(|_| flag == 0) else {
            return (messages, false);
        };
        messages.push(message.to_vec());
        body = tail;
    }
    (messages, body.is_empty())
}

/// gRPC's own table for proxies.
fn status_of_http(status: u16) -> u32 {
    match status {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        HeaderMap::from_pairs(
            pairs.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(),
        )
    }

    fn answer(status: u16, body: &[u8], trailers: Option<&[(&str, &str)]>) -> Outcome {
        let mut answer = Answer::new(status, body);
        answer.trailers = trailers.map(map);
        Outcome::Answer(answer)
    }

    fn close(status: u32, message: &str) -> GrpcNews {
        GrpcNews::Close { status, message: message.to_owned() }
    }

    const TWO: &[u8] = b"\0\0\0\0\x01a\0\0\0\0\x02bc";

    #[test]
    fn a_call_hears_its_message_or_its_status() {
        let call = |outcome| news_of(GrpcKind::Call, outcome);
        let ok = Some([("grpc-status", "0")].as_slice());
        assert_eq!(call(answer(200, TWO, ok)), [GrpcNews::Message(b"bc".to_vec())]);
        assert_eq!(call(answer(200, b"", ok)), [close(13, "")]);
        let failed = Some([("grpc-status", "5"), ("grpc-message", "no%20such")].as_slice());
        assert_eq!(call(answer(200, b"", failed)), [close(5, "no such{via_upstream}")]);
        assert_eq!(call(answer(200, TWO, None)), [close(2, "")]);
        assert_eq!(call(answer(200, &TWO[..8], ok)), [close(13, "")]);
        assert_eq!(call(answer(200, b"\x01\0\0\0\0", ok)), [close(13, "")]);
        assert_eq!(call(answer(503, b"", None)), [close(14, "")]);
        assert_eq!(
            call(Outcome::Fault(Fault::Timeout)),
            [close(14, "upstream request timeout{response_timeout}")]
        );
        assert_eq!(call(Outcome::Fault(Fault::ResetAfterHeaders)), [close(13, "")]);
    }

    #[test]
    fn a_stream_hears_everything_in_order() {
        let trailers = [("grpc-status", "0"), ("tm", "2")];
        let news = news_of(GrpcKind::Stream, answer(200, TWO, Some(&trailers)));
        let headers = map(&[(":status", "200"), ("content-type", "application/grpc")]);
        let expected = [
            GrpcNews::Initial(headers),
            GrpcNews::Message(b"a".to_vec()),
            GrpcNews::Message(b"bc".to_vec()),
            GrpcNews::Trailing(map(&trailers)),
            close(0, "via_upstream"),
        ];
        assert_eq!(news, expected);
    }

    #[test]
    fn headers_that_end_a_stream_are_its_trailers() {
        let mut only = Answer::new(200, "");
        only.headers = map(&[("grpc-status", "12"), ("grpc-message", "Method not found!")]);
        let news = news_of(GrpcKind::Stream, Outcome::Answer(only));
        let [GrpcNews::Initial(initial), GrpcNews::Trailing(trailing), end] = news.as_slice()
        else {
            panic!("{news:?}");
        };
        assert_eq!((initial.count(), trailing.count()), (0, 4));
        assert_eq!(*end, close(12, "Method not found!{via_upstream}"));
    }

    #[test]
    fn a_refused_connection_is_an_answer_of_envoy_itself() {
        let news = news_of(GrpcKind::Stream, Outcome::Fault(Fault::Refused));
        let [
            GrpcNews::Initial(initial),
            GrpcNews::Trailing(trailing),
            GrpcNews::Close { status, message },
        ] = news.as_slice()
        else {
            panic!("{news:?}");
        };
        assert_eq!((initial.count(), trailing.count(), *status), (0, 4, 14));
        assert!(message.ends_with("{upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}}"), "{message}");
    }
}
