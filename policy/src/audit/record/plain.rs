//! Owns the fast reading of a record that is spelled without any escape, as nearly all are: one pass over its
//! bytes, nothing copied but the id. What it does not take it leaves to the reader that says why.
//!
//! It takes no record that the other reader refuses, and reads the same: that is a property test.

use alloc::borrow::ToOwned;

use super::{ID_LEN_MAX, KeyVersion, Record, Seal, VERSION, hash_of};
use crate::audit::Action;
use crate::audit::hash::{Hash, from_base64};
use crate::audit::value::NUMBER_MAX;

/// Fewer than a value may have; what lies deeper is read slowly.
const DEPTH_MAX: usize = 8;

/// A value, as far as a record's own fields are looked at.
#[derive(Clone, Copy)]
enum Plain<'b> {
    Text(&'b [u8]),
    /// Not below 0.
    Number(u64),
    Null,
    Other,
}

struct Cursor<'b> {
    rest: &'b [u8],
}

/// A field's place, its comma included, and its text.
type Placed<'b> = (usize, usize, &'b [u8]);

/// The fields of a record that are looked at.
#[derive(Default)]
struct Fields<'b> {
    id: Option<&'b [u8]>,
    prev: Option<&'b [u8]>,
    seq: Option<u64>,
    ts: Option<u64>,
    version: Option<Placed<'b>>,
    signature: Option<Placed<'b>>,
    /// How many of those are there that only have to be: action, actor, detail, outcome, region, tenant, v.
    others: usize,
}

const OTHERS: usize = 7;

/// The record, if it is plain and sound.
pub(super) fn read(bytes: &[u8]) -> Option<Record> {
    core::str::from_utf8(bytes).ok()?;
    let fields = fields(bytes)?;
    if fields.others != OTHERS {
        return None;
    }
    let seq = fields.seq.filter(|seq| *seq > 0)?;
    let prev = Hash::from_hex(core::str::from_utf8(fields.prev?).ok()?)?;
    let sound =
        |id: &&[u8]| (1..=ID_LEN_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    let id = core::str::from_utf8(fields.id.filter(sound)?).ok()?.to_owned();
    let (hash, seal) = match (fields.version, fields.signature) {
        (None, None) => (hash_of(&prev, &[bytes]), None),
        (Some((from, to, version)), Some((behind, end, signature))) => {
            let kept = [bytes.get(..from)?, bytes.get(to..behind)?, bytes.get(end..)?];
            let version = KeyVersion::new(core::str::from_utf8(version).ok()?)?;
            let signature = from_base64(core::str::from_utf8(signature).ok()?)?;
            let seal = Seal { version, signature: signature.try_into().ok()? };
            (hash_of(&prev, &kept), Some(seal))
        }
        _ => return None,
    };
    Some(Record { seq, prev, id, ts_ms: fields.ts?, hash, seal, rollback: None })
}

fn fields(bytes: &[u8]) -> Option<Fields<'_>> {
    let mut cursor = Cursor { rest: bytes };
    cursor.take(b'{').then_some(())?;
    let (mut fields, mut last) = (Fields::default(), None);
    loop {
        let from = bytes.len().saturating_sub(cursor.rest.len());
        let Some(key) = cursor.key(&mut last)? else { break };
        let value = cursor.value(DEPTH_MAX)?;
        let to = bytes.len().saturating_sub(cursor.rest.len());
        match (key, value) {
            (b"id", Plain::Text(id)) => fields.id = Some(id),
            (b"prev", Plain::Text(prev)) => fields.prev = Some(prev),
            (b"seq", Plain::Number(seq)) => fields.seq = Some(seq),
            (b"ts", Plain::Number(ts)) => fields.ts = Some(ts),
            // What stands first has no comma to go with it.
            (b"key_version", Plain::Text(text)) if from > 1 => {
                fields.version = Some((from, to, text));
            }
            (b"sig", Plain::Text(text)) if from > 1 => fields.signature = Some((from, to, text)),
            (b"action", Plain::Text(action)) if action == Action::Rollback.as_str().as_bytes() => {
                return None;
            }
            (b"action" | b"actor" | b"outcome" | b"region", Plain::Text(_))
            | (b"tenant", Plain::Text(_) | Plain::Null)
            | (b"detail", _)
            | (b"v", Plain::Number(VERSION)) => fields.others = fields.others.saturating_add(1),
            (
                b"id" | b"prev" | b"seq" | b"ts" | b"key_version" | b"sig" | b"action" | b"actor",
                _,
            )
            | (b"outcome" | b"region" | b"tenant" | b"v", _) => return None,
            _ => {}
        }
    }
    cursor.rest.is_empty().then_some(fields)
}

// === impl Cursor ===

impl<'b> Cursor<'b> {
    fn take(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn must(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// The next key of an object, which stands behind the last one in order; none at its end.
    fn key(&mut self, last: &mut Option<&'b [u8]>) -> Option<Option<&'b [u8]>> {
        if self.take(b'}') {
            return Some(None);
        }
        if last.is_some() {
            self.must(b',')?;
        }
        self.must(b'"')?;
        let key = self.text()?;
        self.must(b':')?;
        if !key.is_ascii() || last.is_some_and(|last| last >= key) {
            return None;
        }
        *last = Some(key);
        Some(Some(key))
    }

    /// What is left of a text behind its first quotation mark.
    fn text(&mut self) -> Option<&'b [u8]> {
        let ends = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < b' ';
        let (text, rest) = self.rest.split_at_checked(self.rest.iter().position(ends)?)?;
        self.rest = rest;
        self.must(b'"')?;
        Some(text)
    }

    fn value(&mut self, depth: usize) -> Option<Plain<'b>> {
        let depth = depth.checked_sub(1)?;
        if self.take(b'"') {
            return self.text().map(Plain::Text);
        }
        if self.take(b'{') {
            let mut last = None;
            while self.key(&mut last)?.is_some() {
                self.value(depth)?;
            }
            return Some(Plain::Other);
        }
        if self.take(b'[') {
            let mut is_first = true;
            while !self.take(b']') {
                if !core::mem::take(&mut is_first) {
                    self.must(b',')?;
                }
                self.value(depth)?;
            }
            return Some(Plain::Other);
        }
        for (word, value) in
            [(b"null".as_slice(), Plain::Null), (b"true", Plain::Other), (b"false", Plain::Other)]
        {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Some(value);
            }
        }
        self.number()
    }

    fn number(&mut self) -> Option<Plain<'b>> {
        let is_negative = self.take(b'-');
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(count)?;
        // Longer ones are beyond the largest number.
        if !(1..=16).contains(&count)
            || (digits.first() == Some(&b'0') && (count > 1 || is_negative))
        {
            return None;
        }
        let step = |number: u64, digit: &u8| {
            number.saturating_mul(10).saturating_add(u64::from(digit.saturating_sub(b'0')))
        };
        let number = digits.iter().fold(0, step);
        if number > NUMBER_MAX.unsigned_abs() {
            return None;
        }
        self.rest = rest;
        Some(if is_negative { Plain::Other } else { Plain::Number(number) })
    }
}
