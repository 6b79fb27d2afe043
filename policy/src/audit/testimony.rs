//! Owns what a filter tells of a decision that it alone knows of, and its words in a record. Knows neither the
//! exchange nor where events wait.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{About, Action, Thinning};
use crate::config::Rung;
use crate::reason::Reason;
use crate::scope::Tenant;
use crate::wire::DecisionId;
use crate::wire::audit::{ABOUT_MAX, AuditNote};

/// The most bytes of names in one record: the rest is counted.
const NAMES_BYTES_MAX: usize = 512;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testimony {
    /// What.
    pub action: Action,
    /// A reason's text, or `ok`.
    pub outcome: &'static str,
    /// Whose request it was.
    pub tenant: Tenant,
    /// The decision.
    pub decision: Option<DecisionId>,
    /// Why there was no verdict, where that is why.
    pub cause: Option<Reason>,
    /// The rungs that the policies ended on.
    pub rungs: Vec<Rung>,
    /// The limits (`policy.limit`), policies or circuit breakers that it is about.
    pub names: Vec<String>,
    /// What else a reader needs; no personal data.
    pub text: String,
    /// Whom it is about. Personal data: the gateway hashes it or leaves it out.
    pub about: Vec<About>,
}

// === impl Testimony ===

impl Testimony {
    /// Something of the filter's own.
    pub fn own(action: Action, outcome: &'static str, text: String) -> Self {
        Self {
            action,
            outcome,
            tenant: Tenant::None,
            decision: None,
            cause: None,
            rungs: Vec::new(),
            names: Vec::new(),
            text,
            about: Vec::new(),
        }
    }

    /// Whether the like of it is recorded each time.
    pub fn thinning(&self) -> Thinning {
        match self.action {
            // Drawn by their share already.
            Action::Allow => Thinning::Each,
            Action::Config | Action::Loss => Thinning::Each,
            _ => Thinning::First,
        }
    }

    /// What makes two of them one kind, whomever they are about.
    pub(super) fn kind(&self) -> String {
        let tenant = match &self.tenant {
            Tenant::Named(tenant) => tenant.as_str(),
            Tenant::None => "",
        };
        let cause = self.cause.map_or("", Reason::as_str);
        let mut kind = format!("{} {} {tenant} {cause}", self.action.as_str(), self.outcome);
        for part in self.names.iter().chain([&self.text]) {
            kind.push(' ');
            kind.push_str(part);
        }
        kind
    }

    /// What makes two of one kind alike: whom they are about.
    pub(super) fn likeness(&self) -> String {
        let mut likeness = self.kind();
        for about in &self.about {
            // None of these stands in a limit's name, a kind or a subject's spelling.
            for part in ["\n", &about.limit, " ", about.subject.kind.as_str(), " "] {
                likeness.push_str(part);
            }
            likeness.push_str(about.subject.name.as_str());
        }
        likeness
    }

    /// About how many bytes it takes, in memory and in a message.
    pub(super) fn weight(&self) -> usize {
        const EVENT: usize = 400;
        const LIMIT: usize = 64;
        let names = self.names.iter().map(|name| name.len().saturating_add(1)).sum::<usize>();
        let about = |about: &About| {
            LIMIT
                .saturating_add(about.limit.len())
                .saturating_add(about.subject.name.as_str().len())
        };
        let about = self.about.iter().take(ABOUT_MAX).map(about).sum::<usize>();
        let texts = self.text.len().saturating_add(names.min(NAMES_BYTES_MAX));
        EVENT.saturating_add(texts).saturating_add(about)
    }

    /// As it is handed over.
    pub(super) fn note(&self, id: String, age_ms: u32, more: u32) -> AuditNote {
        AuditNote {
            id,
            age_ms,
            action: self.action,
            outcome: self.outcome.to_owned(),
            tenant: self.tenant.clone(),
            more,
            detail: self.detail(),
            about: self.about.iter().take(ABOUT_MAX).cloned().collect(),
        }
    }

    fn detail(&self) -> String {
        let mut detail = self.text.clone();
        let mut part = |name: &str, value: &str| {
            if !detail.is_empty() {
                detail.push(' ');
            }
            detail.push_str(name);
            detail.push('=');
            detail.push_str(value);
        };
        if let Some(cause) = self.cause {
            part("cause", cause.as_str());
        }
        if !self.rungs.is_empty() {
            let rungs: Vec<_> = self.rungs.iter().map(Rung::to_string).collect();
            part("rungs", &rungs.join(","));
        }
        if !self.names.is_empty() {
            part("names", &names(&self.names));
        }
        if let Some(decision) = self.decision {
            part("decision", &decision.to_string());
        }
        detail
    }
}

fn names(all: &[String]) -> String {
    let mut shown = String::new();
    for (index, name) in all.iter().enumerate() {
        if shown.len().saturating_add(name.len()) > NAMES_BYTES_MAX {
            let left = all.len().saturating_sub(index);
            shown.push_str(&format!(",+{left}"));
            break;
        }
        if index > 0 {
            shown.push(',');
        }
        shown.push_str(name);
    }
    shown
}
