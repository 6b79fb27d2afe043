//! Expectations after checking, and what came of them. It must not know the file's spelling.

use std::collections::BTreeMap;
use std::fmt;

use super::matchers::{NumberMatcher, TextMatcher};
use super::rules::Pattern;
use super::units::Moments;
use crate::abi::codes::LogLevel;
use crate::host::lints::LintName;
use crate::host::trace::TraceLine;

/// One expectation.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    Client(Box<ClientWants>),
    Count(CountWants),
    Request(Box<RequestWants>),
    Metric {
        name: String,
        value: NumberMatcher,
    },
    /// The plugin never defined it.
    NoMetric(String),
    SharedData {
        key: String,
        value: TextMatcher,
    },
    Log(LogWants),
    NoLogAt(LogLevel),
    Lint {
        name: LintName,
        count: NumberMatcher,
    },
    /// `host.lints: deny`: none, but for those that an expectation names.
    NoOtherLint {
        named: Vec<LintName>,
    },
    StartError {
        contains: String,
    },
}

/// Which way a request left the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Upstream,
    Callouts,
}

#[derive(Debug, Clone)]
pub(crate) struct ClientWants {
    pub(crate) client: String,
    pub(crate) nth: usize,
    pub(crate) status: Option<u16>,
    pub(crate) at: Option<Moments>,
    pub(crate) headers: BTreeMap<String, TextMatcher>,
    pub(crate) body: Option<TextMatcher>,
    pub(crate) details: Option<TextMatcher>,
    pub(crate) is_reset: Option<bool>,
    pub(crate) is_waiting: Option<bool>,
    pub(crate) host_calls_max: Option<u64>,
    pub(crate) host_bytes_max: Option<u64>,
    pub(crate) callouts: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct CountWants {
    pub(crate) side: Side,
    pub(crate) on: Option<Pattern>,
    pub(crate) cluster: Option<String>,
    pub(crate) count: NumberMatcher,
}

#[derive(Debug, Clone)]
pub(crate) struct RequestWants {
    pub(crate) side: Side,
    pub(crate) nth: usize,
    pub(crate) on: Option<Pattern>,
    pub(crate) cluster: Option<String>,
    pub(crate) at: Option<Moments>,
    pub(crate) headers: BTreeMap<String, TextMatcher>,
    pub(crate) body: Option<TextMatcher>,
}

#[derive(Debug, Clone)]
pub(crate) struct LogWants {
    pub(crate) contains: String,
    pub(crate) level: Option<LogLevel>,
}

/// What came of one wish of one expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// The expectation's line in its file; 0 where it has none.
    pub line: u64,
    /// What was looked at.
    pub what: String,
    /// Whether it was as expected.
    pub passed: bool,
    /// What was expected.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// Of the first failure of an expectation in a traced run: the callbacks and host calls around it.
    pub trace: Vec<TraceLine>,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream request",
            Self::Callouts => "callout",
        }
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, what, expected, seen, trace, .. } = self;
        if self.passed {
            return write!(f, "ok: {what}: {seen}");
        }
        if *line > 0 {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{what}\n  expected {expected}\n  seen     {seen}")?;
        for line in trace {
            write!(f, "\n  | {line}")?;
        }
        Ok(())
    }
}
