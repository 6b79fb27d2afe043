//! Owns what travels behind a message's document: octets that are no text. Knows no message.
//!
//! ```text
//! <JSON document> [ 00 <length, u32 big-endian> <octets> ]
//! ```
//!
//! JSON holds no octet 00, so the document ends where the first one stands, and a message without a
//! frame is a document as it always was. A reader that knows no frames refuses the whole as malformed.

use alloc::vec::Vec;

use serde::Serialize;

use super::{BadMessage, MESSAGE_BYTES_MAX, encode};
use crate::idempotency::stored::{BODY_LEN_MAX, HEADERS_LEN_MAX};

/// The most octets of one frame: the headers and the body of a stored answer.
pub const OCTETS_MAX: usize = HEADERS_LEN_MAX + BODY_LEN_MAX;
/// The longest message with its frame.
pub const FRAMED_BYTES_MAX: usize = MESSAGE_BYTES_MAX + MARK_LEN + OCTETS_MAX;
/// The octet 00 and the length.
const MARK_LEN: usize = 5;

/// The document, and the octets behind it.
pub(super) fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), BadMessage> {
    // Most have none: looked for by words first, not by octets.
    if !bytes.contains(&0) {
        return Ok((bytes, &[]));
    }
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (document, frame) = bytes.split_at(end);
    let (mark, octets) = frame.split_first_chunk::<MARK_LEN>().ok_or(BadMessage::Frame)?;
    let [_, a, b, c, d] = *mark;
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if len > OCTETS_MAX {
        return Err(BadMessage::TooLong);
    }
    if len == octets.len() { Ok((document, octets)) } else { Err(BadMessage::Frame) }
}

/// A message and the octets behind it, if there are any.
pub fn encode_framed<T: Serialize>(message: &T, octets: &[u8]) -> Vec<u8> {
    let mut bytes = encode(message);
    if !octets.is_empty() {
        bytes.push(0);
        bytes.extend(u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(octets);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn a_frame_is_whole_or_the_message_is_none() {
        let framed = encode_framed(&1, b"\0\xff");
        assert_eq!(framed, b"1\0\0\0\0\x02\0\xff");
        for len in 2..framed.len() {
            assert_eq!(split(&framed[..len]), Err(BadMessage::Frame), "{len}");
        }
        let more = [framed.as_slice(), b"x"].concat();
        assert_eq!(split(&more), Err(BadMessage::Frame));
        assert_eq!(split(b"1\0\xff\xff\xff\xff"), Err(BadMessage::TooLong));
        let most = encode_framed(&1, &vec![7; OCTETS_MAX]);
        assert_eq!(split(&most).map(|(_, octets)| octets.len()), Ok(OCTETS_MAX));
        let over = encode_framed(&1, &vec![7; OCTETS_MAX + 1]);
        assert_eq!(split(&over), Err(BadMessage::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_framed_comes_back(text in any::<std::string::String>(), octets in any::<Vec<u8>>()) {
            let bytes = encode_framed(&text, &octets);
            let document = encode(&text);
            prop_assert_eq!(split(&bytes), Ok((document.as_slice(), octets.as_slice())));
        }

        #[test]
        fn any_bytes_are_survived(bytes in any::<Vec<u8>>()) {
            split(&bytes).map(drop).unwrap_or_default();
        }
    }
}
