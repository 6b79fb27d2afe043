//! The few protobuf messages that host calls carry: fields by number, nothing more. It must not know what a field means.

use std::collections::BTreeMap;

/// A message's fields; the last of a number wins, as for every field that is not repeated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    fields: BTreeMap<u64, Field<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Message<'a> {
    /// None for what is no protobuf message.
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut message = Self::default();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes)?;
            let number = key >> 3;
            let field = match key & 7 {
                0 => Field::Varint(take_varint(&mut bytes)?),
                1 => take(&mut bytes, 8).map(|_| Field::Fixed)?,
                2 => {
                    let len = usize::try_from(take_varint(&mut bytes)?).ok()?;
                    Field::Bytes(take(&mut bytes, len)?)
                }
                5 => take(&mut bytes, 4).map(|_| Field::Fixed)?,
                _ => return None,
            };
            if number == 0 || number >> 29 != 0 {
                return None;
            }
            message.fields.insert(number, field);
        }
        Some(message)
    }

    /// A field of text, bytes or a message; empty when it is not there.
    pub(crate) fn bytes(&self, number: u64) -> &'a [u8] {
        self.find_bytes(number).unwrap_or_default()
    }

    /// The same, where a missing field differs from an empty one.
    pub(crate) fn find_bytes(&self, number: u64) -> Option<&'a [u8]> {
        match self.fields.get(&number) {
            Some(Field::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// A truth; false when it is not there.
    pub(crate) fn is_set(&self, number: u64) -> bool {
        matches!(self.fields.get(&number), Some(Field::Varint(value)) if *value != 0)
    }

    /// A field of text; none when it is not UTF-8, which protobuf refuses.
    pub(crate) fn text(&self, number: u64) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(number)).ok()
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    Some(head)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let found = Message::parse(&bytes).map_or(0, |message| message.fields.len());
            prop_assert!(found <= bytes.len());
        }
    }

    #[test]
    fn fields_are_found_by_number_and_broken_messages_are_none() {
        let message = Message::parse(b"\x0a\x03abc\x10\x01\x1d1234\x2112345678").unwrap();
        assert_eq!(
            (message.text(1), message.is_set(2), message.bytes(9)),
            (Some("abc"), true, [].as_slice())
        );
        assert_eq!(message.find_bytes(9), None);
        for broken in [b"\x0a\x03ab".as_slice(), b"\xff", b"gateway", b"\x08", b"\x00", b"\x0b"] {
            assert_eq!(Message::parse(broken), None, "{broken:?}");
        }
        assert_eq!(Message::parse(b"\x0a\x01\xff").unwrap().text(1), None);
        assert!(Message::parse(b"").is_some());
    }
}
