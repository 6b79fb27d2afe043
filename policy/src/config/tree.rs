//! Owns the document as written: a tree that keeps spans, duplicate keys and numbers as text.
//!
//! serde_json does the reading, one level at a time: every child is first taken as raw text, whose
//! place in the document is its span.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use serde::Deserializer as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper documents are refused: no field of ours lies deeper than 8.
const DEPTH_MAX: usize = 32;

/// One value and where it stands.
#[derive(Debug)]
pub(super) struct Node<'d> {
    /// The value as written.
    pub raw: &'d str,
    /// Where, in bytes.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind<'d>,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind<'d> {
    Null,
    Bool,
    Number,
    Text(Cow<'d, str>),
    List(Vec<Node<'d>>),
    Table(Vec<(Cow<'d, str>, Node<'d>)>),
}

/// Why a document is no tree.
#[derive(Debug)]
pub(super) struct NoTree {
    pub problem: String,
    pub remedy: &'static str,
    pub span: Range<usize>,
}

pub(super) fn parse(document: &str) -> Result<Node<'_>, NoTree> {
    match serde_json::from_str::<&RawValue>(document) {
        Ok(raw) => node(document, raw.get(), 0),
        Err(error) => {
            let at = offset(document, error.line(), error.column());
            Err(NoTree {
                problem: error.to_string(),
                remedy: "write one JSON document",
                span: at..at,
            })
        }
    }
}

fn node<'d>(document: &'d str, raw: &'d str, depth: usize) -> Result<Node<'d>, NoTree> {
    let start = raw.as_ptr().addr().saturating_sub(document.as_ptr().addr());
    let span = start..start.saturating_add(raw.len());
    if depth > DEPTH_MAX {
        return Err(NoTree {
            problem: "nested too deeply".to_string(),
            remedy: "no field lies that deep",
            span,
        });
    }
    let unread = |error: serde_json::Error| NoTree {
        problem: error.to_string(),
        remedy: "write one JSON document",
        span: span.clone(),
    };
    let kind = match raw.as_bytes().first() {
        Some(b'{') => {
            let fields =
                serde_json::Deserializer::from_str(raw).deserialize_map(Fields).map_err(unread)?;
            let children: Result<Vec<_>, NoTree> = fields
                .into_iter()
                .map(|(key, value)| Ok((key, node(document, value, depth.saturating_add(1))?)))
                .collect();
            Kind::Table(children?)
        }
        Some(b'[') => {
            let items =
                serde_json::Deserializer::from_str(raw).deserialize_seq(Items).map_err(unread)?;
            let children: Result<Vec<_>, NoTree> = items
                .into_iter()
                .map(|value| node(document, value, depth.saturating_add(1)))
                .collect();
            Kind::List(children?)
        }
        Some(b'"') => Kind::Text(text(raw).map_err(unread)?),
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') => Kind::Null,
        Some(_) | None => Kind::Number,
    };
    Ok(Node { raw, span, kind })
}

/// A string, borrowed where nothing in it is escaped.
fn text(raw: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    let inner = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str::<String>(raw).map(Cow::Owned),
    }
}

struct Fields;

impl<'d> Visitor<'d> for Fields {
    type Value = Vec<(Cow<'d, str>, &'d str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<Cow<'d, str>, &'d RawValue>()? {
            fields.push((key, value.get()));
        }
        Ok(fields)
    }
}

struct Items;

impl<'d> Visitor<'d> for Items {
    type Value = Vec<&'d str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(value) = seq.next_element::<&'d RawValue>()? {
            items.push(value.get());
        }
        Ok(items)
    }
}

/// Where the name of a field stands whose value is at `value`; the value's own place if no name is
/// found before it.
pub(super) fn key_span(document: &str, value: &Range<usize>) -> Range<usize> {
    let quoted = || {
        let before = document.get(..value.start)?.trim_end().strip_suffix(':')?.trim_end();
        let inner = before.strip_suffix('"')?;
        let quotes = inner.rmatch_indices('"').map(|(at, _)| at);
        let escaped = |at: usize| {
            let backslashes = inner.bytes().take(at).rev().take_while(|&b| b == b'\\').count();
            backslashes % 2 == 1
        };
        let start = quotes.into_iter().find(|&at| !escaped(at))?;
        Some(start..before.len())
    };
    quoted().unwrap_or_else(|| value.clone())
}

/// Whether the document's own table says `name: true`; it is asked before the table is read.
pub(super) fn says_true(root: &Node<'_>, name: &str) -> bool {
    let Kind::Table(fields) = &root.kind else { return false };
    fields.iter().any(|(key, value)| key == name && value.raw == "true")
}

/// The byte offset of a line and a column, both from 1, as serde_json counts them.
fn offset(document: &str, line: usize, column: usize) -> usize {
    let before: usize =
        document.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before.saturating_add(column.saturating_sub(1)).min(document.len())
}

/// Line and column of a byte offset, both from 1; the column in characters.
pub(super) fn position(document: &str, at: usize) -> (usize, usize) {
    let mut end = at.min(document.len());
    while !document.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let before = document.get(..end).unwrap_or_default();
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
    (line, column)
}
