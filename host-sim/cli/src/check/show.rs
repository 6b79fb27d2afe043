//! Shows diagnostics to a person: the message, the line of the file, what is meant in it underlined. It must not judge.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// One diagnostic, with its place in the file that was checked.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnostic {
    pub(crate) severity: Severity,
    /// The filter of an Envoy file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<String>,
    /// The field of the configuration, or the place in the Envoy file.
    pub(crate) field: String,
    pub(crate) problem: String,
    pub(crate) remedy: String,
    /// From 1; absent where there is no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// In characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<usize>,
    #[serde(skip)]
    pub(crate) span: Option<Range<usize>>,
    /// It is about what stands around the configuration, not about it.
    #[serde(skip)]
    pub(crate) is_around: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Error,
    Warning,
}

/// Longer lines are cut around what is meant: a document may be one line.
const LINE_CHARS_MAX: usize = 140;

// === impl Diagnostic ===

impl Diagnostic {
    /// With line and column of its place in `file`.
    pub(crate) fn placed(mut self, file: &str) -> Self {
        if let Some(span) = &self.span {
            let before = file.get(..span.start).unwrap_or(file);
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            self.line = Some(before.matches('\n').count() + 1);
            self.column = Some(before.get(start..).unwrap_or_default().chars().count() + 1);
        }
        self
    }

    /// The message and, below it, the line.
    pub(crate) fn shown(&self, file: &str) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        // A place in the Envoy file is long, and its line stands below.
        let is_told = self.field.is_empty() || (self.is_around && self.span.is_some());
        let field = if is_told { String::new() } else { format!("{}: ", self.field) };
        let filter = self.filter.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let head = format!("{severity}: {filter}{field}{}", self.problem);
        match (&self.span, self.line) {
            (Some(span), Some(line)) => format!("{head}\n{}", self.excerpt(file, span, line)),
            _ if self.remedy.is_empty() => format!("{head}\n"),
            _ => format!("{head}\n     = {}\n", self.remedy),
        }
    }

    fn excerpt(&self, file: &str, span: &Range<usize>, number: usize) -> String {
        let start = file.get(..span.start).and_then(|text| text.rfind('\n')).map_or(0, |at| at + 1);
        let line = file.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let before = line.get(..span.start.saturating_sub(start)).unwrap_or(line).chars().count();
        let own = file.get(span.clone()).unwrap_or_default().lines().next().unwrap_or_default();
        let rest = line.chars().count().saturating_sub(before);
        let marked = own.trim_end().chars().count().min(rest).max(1);
        // What is meant stands in the window, its beginning with some of what precedes it.
        let from = if before + marked <= LINE_CHARS_MAX {
            0
        } else {
            before.saturating_sub(LINE_CHARS_MAX / 2)
        };
        let window: String = line
            .chars()
            .skip(from)
            .take(LINE_CHARS_MAX)
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect();
        let lead = if from > 0 { "…" } else { "" };
        let trail = if line.chars().count() > from + LINE_CHARS_MAX { "…" } else { "" };
        let indent = " ".repeat(before - from + lead.chars().count());
        let marks = "^".repeat(marked.min(LINE_CHARS_MAX.saturating_sub(before - from)).max(1));
        let remedy =
            if self.remedy.is_empty() { String::new() } else { format!(" {}", self.remedy) };
        format!("{number:>5} | {lead}{window}{trail}\n      | {indent}{marks}{remedy}\n")
    }
}

/// `1 error, 2 warnings`.
pub(crate) fn summary(errors: usize, warnings: usize) -> String {
    let count = |n: usize, what: &str| match n {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    format!("{}, {}", count(errors, "error"), count(warnings, "warning"))
}
