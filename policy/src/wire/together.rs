//! Owns several messages that travel in one: the questions that a filter asks at once, and what is said to each of them.
//! Knows no question.
//!
//! ```text
//! questions: <JSON document> [ 0a <JSON document> ]*
//! answers:   [ <status, three digits> 20 <length, decimal> 0a <octets> ]*
//! ```
//!
//! A compact JSON document holds no octet 0a. An answer may carry a frame behind its document, so its length is said.

use alloc::format;
use alloc::vec::Vec;

use super::{BadMessage, MESSAGE_BYTES_MAX};

/// Where the filter asks several questions at once. Gateways of before answer 404 there, with their mark.
pub const DECISIONS_PATH: &str = "/v1/decisions";
/// The most questions of one message.
pub const QUESTIONS_MAX: usize = 32;
/// The longest message of several questions that a filter sends, in octets: of it the answers stay below what one reads.
pub const QUESTIONS_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

const BETWEEN: u8 = b'\n';

/// What is said to one of the questions: what would have been the answer to it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The status, three digits.
    pub status: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

/// Puts a question behind those that are there, as the `nth`, from 0.
pub fn add_question(message: &mut Vec<u8>, question: &[u8], nth: usize) {
    if nth > 0 {
        message.push(BETWEEN);
    }
    message.extend_from_slice(question);
}

/// The questions of a message, in their order; none of them is looked at. At least one, at most [`QUESTIONS_MAX`].
pub fn questions(message: &[u8]) -> Result<Vec<&[u8]>, BadMessage> {
    // No more are looked for than it takes to refuse them.
    let questions: Vec<&[u8]> = split(message).take(QUESTIONS_MAX + 1).collect();
    if questions.len() > QUESTIONS_MAX { Err(BadMessage::QuestionCount) } else { Ok(questions) }
}

/// The same without a bound, for who made the message.
pub fn split(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message.split(|&octet| octet == BETWEEN)
}

/// Puts an answer behind those that are there. `status` is 100 to 999.
pub fn add_answer(message: &mut Vec<u8>, status: u16, body: &[u8]) {
    message.extend_from_slice(format!("{status:03} {}\n", body.len()).as_bytes());
    message.extend_from_slice(body);
}

/// The answers to that many questions, in their order.
pub fn answers(mut message: &[u8], count: usize) -> Result<Vec<Part<'_>>, BadMessage> {
    let mut parts = Vec::with_capacity(count);
    while !message.is_empty() && parts.len() < count {
        let (part, rest) = first(message).ok_or(BadMessage::Frame)?;
        parts.push(part);
        message = rest;
    }
    if message.is_empty() && parts.len() == count { Ok(parts) } else { Err(BadMessage::Frame) }
}

fn first(message: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (status, rest) = message.split_at_checked(3)?;
    let rest = rest.strip_prefix(b" ")?;
    let end = rest.iter().take(8).position(|&octet| octet == b'\n')?;
    let (digits, rest) = rest.split_at_checked(end)?;
    if !status.iter().chain(digits).all(u8::is_ascii_digit) {
        return None;
    }
    let len: usize = core::str::from_utf8(digits).ok()?.parse().ok()?;
    let (body, rest) = rest.split_first()?.1.split_at_checked(len)?;
    Some((Part { status, body }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn no_more_questions_than_the_bound_and_none_is_skipped() {
        let of = |count: usize| {
            let mut message = Vec::new();
            for nth in 0..count {
                add_question(&mut message, format!("{{\"n\":{nth}}}").as_bytes(), nth);
            }
            message
        };
        let most = of(QUESTIONS_MAX);
        let read = questions(&most).expect("within the bound");
        assert_eq!(read.len(), QUESTIONS_MAX);
        assert_eq!(read.last(), Some(&b"{\"n\":31}".as_slice()));
        assert_eq!(questions(&of(QUESTIONS_MAX + 1)), Err(BadMessage::QuestionCount));
        // Nothing between two is a question that cannot be read, and has its answer.
        assert_eq!(questions(b"1\n\n2"), Ok(vec![b"1".as_slice(), b"", b"2"]));
    }

    #[test]
    fn answers_are_whole_and_as_many_as_questions_or_none() {
        let mut message = Vec::new();
        add_answer(&mut message, 200, b"{}\n\0");
        add_answer(&mut message, 429, b"");
        assert_eq!(message, b"200 4\n{}\n\x00429 0\n");
        let parts = [Part { status: b"200", body: b"{}\n\0" }, Part { status: b"429", body: b"" }];
        assert_eq!(answers(&message, 2), Ok(parts.to_vec()));
        for count in [0, 1, 3] {
            assert_eq!(answers(&message, count), Err(BadMessage::Frame), "{count}");
        }
        for len in 0..message.len() {
            assert_eq!(answers(&message[..len], 2), Err(BadMessage::Frame), "{len}");
        }
        for bad in [&b"20x 0\n"[..], b"200 +1\nx", b"200 18446744073709551616\n", b"200 9\nx"] {
            let said = answers(bad, 1);
            assert_eq!(said, Err(BadMessage::Frame), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_is_answered_comes_back(bodies in prop::collection::vec((100_u16..=999, any::<Vec<u8>>()), 0..5)) {
            let mut message = Vec::new();
            for (status, body) in &bodies {
                add_answer(&mut message, *status, body);
            }
            let parts = answers(&message, bodies.len()).expect("whole");
            for (part, (status, body)) in parts.iter().zip(&bodies) {
                let status = format!("{status}");
                prop_assert_eq!(part.status, status.as_bytes());
                prop_assert_eq!(part.body, body.as_slice());
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in any::<Vec<u8>>(), count in 0_usize..40) {
            answers(&bytes, count).map(drop).unwrap_or_default();
            questions(&bytes).map(drop).unwrap_or_default();
        }
    }
}
