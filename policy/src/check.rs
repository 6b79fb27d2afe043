//! Owns what is said about a document before it is deployed: all that reading it says, and what is
//! probably not meant, also in view of the Envoy file that it stands in. Nothing here runs when
//! requests are served.
//!
//! It speaks the contract of the export `plugin_check_config` (docs/checking.md): configuration and
//! facts in, diagnostics out, as JSON.

mod document;
mod facts;
mod surroundings;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;

pub use facts::Facts;

use crate::config::places::Places;
use crate::config::{Config, Diagnostic, Severity};

/// The version of the answer's form.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Answer {
    version: u32,
    diagnostics: Vec<Found>,
}

/// One diagnostic, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// The field of the configuration; empty for the whole of it.
    pub field: String,
    /// What is wrong, with the value.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
    /// Where in the configuration, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<(usize, usize)>,
    /// Where in the Envoy file, by the facts' own pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// Checks a document; `facts` is JSON, or empty where there is no Envoy file. Gives JSON.
pub fn check(document: &str, facts: &str) -> String {
    let answer = Answer { version: VERSION, diagnostics: found(document, facts) };
    // A document of strings and numbers always serialises.
    serde_json::to_string(&answer).unwrap_or_default()
}

/// The diagnostics of [`check`].
pub fn found(document: &str, facts: &str) -> Vec<Found> {
    let reading = Config::read(document);
    let mut found: Vec<Found> = reading.diagnostics.iter().map(Found::from).collect();
    let facts = match facts {
        "" => Facts::default(),
        text => match serde_json::from_str(text) {
            Ok(facts) => facts,
            Err(error) => {
                found.push(Found {
                    severity: "warning",
                    field: String::new(),
                    problem: format!("the facts about the Envoy file cannot be read: {error}"),
                    remedy: "use a host-sim of this filter's version".to_owned(),
                    span: None,
                    at: None,
                });
                Facts::default()
            }
        },
    };
    if let Some(places) = Places::of(document) {
        let mut notes = Notes { places, found: vec![] };
        if let Some(config) = &reading.config {
            document::look(config, &mut notes);
            surroundings::look(config, &facts, &mut notes);
        }
        surroundings::look_around(&facts, &mut notes);
        found.append(&mut notes.found);
    }
    found
}

/// What was found so far about one document.
struct Notes<'d> {
    places: Places<'d>,
    found: Vec<Found>,
}

// === impl Notes ===

impl Notes<'_> {
    /// Something about a field of the document.
    fn field(&mut self, severity: &'static str, field: &str, problem: String, remedy: &str) {
        let span = self.places.span(field);
        self.found.push(Found {
            severity,
            field: field.to_owned(),
            problem,
            remedy: remedy.to_owned(),
            span: Some((span.start, span.end)),
            at: None,
        });
    }

    /// Something about a place in the Envoy file that concerns a field of the document, or the whole.
    fn envoy(&mut self, severity: &'static str, at: &str, problem: String, remedy: String) {
        self.found.push(Found {
            severity,
            field: String::new(),
            problem,
            remedy,
            span: None,
            at: Some(at.to_owned()),
        });
    }
}

// === impl Found ===

impl From<&Diagnostic> for Found {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            severity: match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            field: diagnostic.path.to_string(),
            problem: diagnostic.problem.clone(),
            remedy: diagnostic.remedy.clone(),
            span: Some((diagnostic.span.start, diagnostic.span.end)),
            at: None,
        }
    }
}

#[cfg(test)]
mod tests;
