//! Owns the walk over a document's tree: collects every problem instead of stopping at the first,
//! and names the field of each. Knows no field of ours.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;

use super::diagnostic::{Diagnostic, Severity, shown};
use super::shape::Known;
use super::suggest::nearest;
use super::tree::{Kind, Node, key_span, position};

/// The most problems that are told at once: each is a line in the log of every worker.
const DIAGNOSTICS_MAX: usize = 100;

/// What was found so far.
pub(super) struct Reader<'d> {
    document: &'d str,
    /// Whether an unknown field is an error.
    strict: bool,
    found: RefCell<Found>,
}

/// Problems as far as they can be told; a hostile document has hundreds of thousands.
#[derive(Default)]
struct Found {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// How many more there are.
    more: usize,
}

/// A value with the path that leads to it.
#[derive(Clone)]
pub(super) struct At<'r, 'd> {
    reader: &'r Reader<'d>,
    node: &'r Node<'d>,
    pub path: String,
}

/// A table of which each field is asked for by name.
pub(super) struct Table<'r, 'd> {
    at: At<'r, 'd>,
    known: Known,
    fields: Vec<(&'r str, &'r Node<'d>)>,
}

// === impl Reader ===

impl<'d> Reader<'d> {
    pub fn new(document: &'d str, strict: bool) -> Self {
        Self { document, strict, found: RefCell::default() }
    }

    pub fn root<'r>(&'r self, node: &'r Node<'d>) -> At<'r, 'd> {
        At { reader: self, node, path: String::new() }
    }

    pub fn finish(self) -> Vec<Diagnostic> {
        let Found { errors, mut warnings, more } = self.found.into_inner();
        let mut found = errors;
        // Errors first where not all are told, so that none hides behind warnings.
        let room = DIAGNOSTICS_MAX.saturating_sub(found.len());
        let more = more.saturating_add(warnings.len().saturating_sub(room));
        warnings.truncate(room);
        found.append(&mut warnings);
        if more > 0
            && let Some(last) = found.last_mut()
        {
            last.remedy.push_str(&format!(" … and {more} problems more"));
        }
        found.sort_by_key(|d| d.span.start);
        for diagnostic in &mut found {
            diagnostic.position = position(self.document, diagnostic.span.start);
        }
        found
    }

    pub fn note(
        &self,
        severity: Severity,
        path: String,
        problem: String,
        remedy: String,
        span: Range<usize>,
    ) {
        // A named limit is read once for each policy that uses it, and wrong once.
        let told = |d: &Diagnostic| d.span == span && d.problem == problem && d.path == path;
        let again = {
            let found = self.found.borrow();
            found.errors.iter().chain(&found.warnings).any(told)
        };
        if !again && self.has_room(severity) {
            // The position takes a walk over the document, so it waits until it is known who is told.
            let position = (0, 0);
            let told = Diagnostic { severity, path, problem, remedy, span, position };
            let mut found = self.found.borrow_mut();
            match severity {
                Severity::Error => found.errors.push(told),
                Severity::Warning => found.warnings.push(told),
            }
        }
    }

    /// Whether one more of this kind can be told; if not, it is counted.
    fn has_room(&self, severity: Severity) -> bool {
        let mut found = self.found.borrow_mut();
        let told = match severity {
            Severity::Error => found.errors.len(),
            Severity::Warning => found.warnings.len(),
        };
        let room = told < DIAGNOSTICS_MAX;
        if !room {
            found.more = found.more.saturating_add(1);
        }
        room
    }
}

// === impl At ===

impl<'r, 'd> At<'r, 'd> {
    /// Notes an error about this value.
    pub fn wrong(&self, problem: impl Into<String>, remedy: impl Into<String>) {
        let span = self.node.span.clone();
        self.reader.note(Severity::Error, self.path.clone(), problem.into(), remedy.into(), span);
    }

    /// Notes a warning about this value.
    pub fn doubt(&self, problem: impl Into<String>, remedy: impl Into<String>) {
        let span = self.node.span.clone();
        self.reader.note(Severity::Warning, self.path.clone(), problem.into(), remedy.into(), span);
    }

    /// Notes that this value is no `what`.
    pub fn is_no(&self, what: &str, remedy: impl Into<String>) {
        self.wrong(format!("{} is no {what}", shown(self.node.raw)), remedy);
    }

    pub fn is_number(&self) -> bool {
        matches!(self.node.kind, Kind::Number)
    }

    pub fn is_text(&self) -> bool {
        matches!(self.node.kind, Kind::Text(_))
    }

    pub fn is_bool(&self) -> bool {
        matches!(self.node.kind, Kind::Bool)
    }

    pub fn is_true(&self) -> bool {
        self.is_bool() && self.node.raw == "true"
    }

    pub fn is_zero(&self) -> bool {
        matches!(self.node.kind, Kind::Number) && self.node.raw == "0"
    }

    pub fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::List(_))
    }

    /// Yes or no, or an error noted.
    pub fn truth(&self) -> Option<bool> {
        if !self.is_bool() {
            self.is_no("truth value", "write true or false");
            return None;
        }
        Some(self.is_true())
    }

    /// The text, or an error noted.
    pub fn text(&self, remedy: &str) -> Option<&'r str> {
        match &self.node.kind {
            Kind::Text(text) => Some(text),
            Kind::Bool => {
                self.is_no("text", format!("{remedy}; in YAML put it in quotes: a bare y, n, yes, no, on or off is true or false there"));
                None
            }
            _ => {
                self.is_no("text", remedy);
                None
            }
        }
    }

    /// The number, if it is a whole one that fits.
    pub fn number(&self) -> Option<u32> {
        matches!(self.node.kind, Kind::Number).then(|| self.node.raw.parse().ok())?
    }

    /// A whole number within bounds, or an error noted. Digits only: `1e3` and `1.0` are slips.
    pub fn whole(&self, min: u32, max: u32) -> Option<u32> {
        let number = matches!(self.node.kind, Kind::Number).then(|| self.node.raw.parse::<u32>());
        match number {
            Some(Ok(number)) if (min..=max).contains(&number) => Some(number),
            _ => {
                self.is_no(
                    "valid number here",
                    format!("write a whole number from {min} to {max}"),
                );
                None
            }
        }
    }

    /// The items of a list, or an error noted.
    pub fn list(&self, remedy: &str) -> Option<Vec<At<'r, 'd>>> {
        let Kind::List(items) = &self.node.kind else {
            self.is_no("list", remedy);
            return None;
        };
        let at = |(index, node)| At {
            reader: self.reader,
            node,
            path: format!("{}[{index}]", self.path),
        };
        Some(items.iter().enumerate().map(at).collect())
    }

    /// The table, or an error noted. Duplicate keys are errors, unknown ones warnings: an unknown
    /// field must not take the mesh down, and must not pass in silence.
    pub fn table(&self, known: Known, remedy: &str) -> Option<Table<'r, 'd>> {
        let Kind::Table(entries) = &self.node.kind else {
            self.is_no("table", remedy);
            return None;
        };
        let mut fields: Vec<(&'r str, &'r Node<'d>)> = Vec::new();
        let mut names = BTreeSet::new();
        for (key, node) in entries {
            let child = || At { reader: self.reader, node, path: join(&self.path, key) };
            if !names.insert(key.as_ref()) {
                child().twice();
            } else if known.has(key) {
                fields.push((key, node));
            } else {
                child().unknown(key, known);
            }
        }
        Some(Table { at: self.clone(), known, fields })
    }

    /// The fields of a table whose names the author chooses, or an error noted; duplicates are errors.
    pub fn entries(&self, remedy: &str) -> Option<Vec<(&'r str, At<'r, 'd>)>> {
        let Kind::Table(entries) = &self.node.kind else {
            self.is_no("table", remedy);
            return None;
        };
        let mut fields: Vec<(&'r str, At<'r, 'd>)> = Vec::with_capacity(entries.len());
        let mut names = BTreeSet::new();
        for (key, node) in entries {
            let child = At { reader: self.reader, node, path: join(&self.path, key) };
            if !names.insert(key.as_ref()) {
                child.twice();
            }
            fields.push((key, child));
        }
        Some(fields)
    }

    /// A field whose name the table's shape does not have, for an error that says more than that.
    pub fn foreign(&self, name: &str) -> Option<At<'r, 'd>> {
        let Kind::Table(entries) = &self.node.kind else { return None };
        let (_, node) = entries.iter().find(|(key, _)| key.as_ref() == name)?;
        Some(At { reader: self.reader, node, path: join(&self.path, name) })
    }

    fn twice(&self) {
        let span = key_span(self.reader.document, &self.node.span);
        self.reader.note(
            Severity::Error,
            self.path.clone(),
            "the field stands twice".to_string(),
            "keep one of them".to_string(),
            span,
        );
    }

    fn unknown(&self, key: &str, Known(known): Known) {
        let (severity, problem) = match self.reader.strict {
            true => (Severity::Error, "unknown field"),
            false => (Severity::Warning, "unknown field, ignored"),
        };
        if !self.reader.has_room(severity) {
            return;
        }
        let remedy = match nearest(key, known) {
            Some(word) => format!("did you mean {word:?}?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let span = key_span(self.reader.document, &self.node.span);
        self.reader.note(severity, self.path.clone(), problem.to_string(), remedy, span);
    }
}

// === impl Table ===

impl<'r, 'd> Table<'r, 'd> {
    /// A field that may be absent. `null` counts as absent, and so does, outside of tests, a name that
    /// the table's shape does not have.
    pub fn get(&self, name: &str) -> Option<At<'r, 'd>> {
        debug_assert!(
            self.known.has(name),
            "{name} stands in no shape: add it to config/shapes.rs"
        );
        if !self.known.has(name) {
            return None;
        }
        let (_, node) = self.fields.iter().find(|(key, _)| *key == name)?;
        let present = !matches!(node.kind, Kind::Null);
        present.then(|| At { reader: self.at.reader, node, path: join(&self.at.path, name) })
    }

    /// A field that must be there, or an error noted.
    pub fn must(&self, name: &str, remedy: &str) -> Option<At<'r, 'd>> {
        let found = self.get(name);
        if found.is_none() {
            let span = self.at.node.span.clone();
            let path = join(&self.at.path, name);
            self.at.reader.note(
                Severity::Error,
                path,
                "missing".to_string(),
                remedy.to_string(),
                span,
            );
        }
        found
    }
}

fn join(path: &str, key: &str) -> String {
    let key = shown(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
