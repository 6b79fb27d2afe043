//! Owns one problem of a document: where, what value, what is wrong, what to write instead.

use alloc::string::{String, ToString};
use core::fmt;
use core::ops::Range;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The document is not taken.
    Error,
    /// The document is taken; the author probably meant something else.
    Warning,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The field: `policies[0].rate_limits[1].per`; empty for the whole document.
    pub path: String,
    /// What is wrong, with the value.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
    /// Where in the document, in bytes.
    pub span: Range<usize>,
    /// Line and column of the span's start, from 1.
    pub position: (usize, usize),
}

// === impl Diagnostic ===

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let path = if self.path.is_empty() { "configuration" } else { &self.path };
        let (line, column) = self.position;
        write!(
            f,
            "{severity}: {path}: {}; {} (line {line}, column {column})",
            self.problem, self.remedy
        )
    }
}

/// A value as a message shows it: on one line, cut at 60 characters.
pub(crate) fn shown(raw: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut text: String =
        raw.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if raw.chars().nth(SHOWN_MAX).is_some() {
        text.push('…');
    }
    if text.is_empty() { "nothing".to_string() } else { text }
}
