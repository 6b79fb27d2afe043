//! Owns what a filter tells of a decision that it alone knows of, and its words in a record. Knows neither the
//! exchange nor where events wait.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::likeness::Likeness;
use super::tally::Alike;
use super::{About, Action, Durability, Thinning};
use crate::config::{ConfigHash, Rung};
use crate::digits::push_number;
use crate::reason::Reason;
use crate::scope::Tenant;
use crate::wire::DecisionId;
use crate::wire::audit::{ABOUT_MAX, AuditNote, Names};

/// The most bytes of names in one record: the rest is counted.
const NAMES_BYTES_MAX: usize = 512;
/// What most events say beside their text, in bytes.
const DETAIL_LEN: usize = 160;

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
    /// The configuration that it is of; a loss is of none.
    pub config: Option<ConfigHash>,
    /// Why there was no verdict, where that is why.
    pub cause: Option<Reason>,
    /// The rungs that the policies ended on.
    pub rungs: Vec<Rung>,
    /// The limits (`policy.limit`), policies or circuit breakers that it is about; none if those of `about` are
    /// all there are.
    pub names: Vec<String>,
    /// What else a reader needs; no personal data.
    pub text: String,
    /// Of what was drawn, the largest share of its `names`, in hundredths of a percent.
    pub share_bp: u16,
    /// How durable it has to be.
    pub durability: Durability,
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
            config: None,
            cause: None,
            rungs: Vec::new(),
            names: Vec::new(),
            text,
            share_bp: 0,
            durability: Durability::Async,
            about: Vec::new(),
        }
    }

    /// Whether the like of it is recorded each time.
    pub fn thinning(&self) -> Thinning {
        match self.action {
            // Drawn by their share already.
            Action::Allow => Thinning::Each,
            // Who changes for the worse and the better within a minute is told of each time.
            Action::Breaker | Action::Config | Action::Loss => Thinning::Each,
            _ => Thinning::First,
        }
    }

    /// About how many bytes it takes, in memory and in a message.
    pub(super) fn weight(&self) -> usize {
        const EVENT: usize = 400;
        const LIMIT: usize = 64;
        let names = self.all_names().map(|name| name.len().saturating_add(1)).sum::<usize>();
        let about = |about: &About| {
            LIMIT
                .saturating_add(about.limit.len())
                .saturating_add(about.subject.name.as_str().len())
        };
        let about = self.about.iter().take(ABOUT_MAX).map(about).sum::<usize>();
        let texts = self.text.len().saturating_add(names.min(NAMES_BYTES_MAX));
        EVENT.saturating_add(texts).saturating_add(about)
    }

    /// The same of a brief event's names.
    pub(super) fn names_weight(&self) -> usize {
        const QUOTES: usize = 3;
        let names = self.about.iter().take(ABOUT_MAX).map(|about| about.subject.name.as_str());
        names.map(|name| name.len().saturating_add(QUOTES)).sum()
    }

    /// As it is handed over; `reads_briefs`: to a gateway that takes the decision for itself.
    pub(super) fn note(&self, id: String, age_ms: u32, more: u32, reads_briefs: bool) -> AuditNote {
        let decision = self.decision.filter(|_| reads_briefs);
        AuditNote {
            id,
            age_ms,
            action: self.action,
            outcome: self.outcome.to_owned(),
            tenant: self.tenant.clone(),
            more,
            detail: self.detail(decision.is_some()),
            decision,
            config: self.config,
            durability: self.durability,
            about: self.about.iter().take(ABOUT_MAX).cloned().collect(),
        }
    }

    /// Whether it differs from another in nothing but the decision and whom it is about.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        // Taken apart, so that what is added to it is thought of here.
        let Self {
            action,
            outcome,
            tenant,
            decision,
            config,
            cause,
            rungs,
            names,
            text,
            share_bp,
            durability,
            about,
        } = self;
        let is_about = |(one, other): (&About, &About)| {
            one.limit == other.limit && one.subject.kind == other.subject.kind
        };
        (action, outcome, cause, share_bp, durability)
            == (&other.action, &other.outcome, &other.cause, &other.share_bp, &other.durability)
            && (decision.is_some(), about.len()) == (other.decision.is_some(), other.about.len())
            && names == &other.names
            && about.iter().zip(&other.about).all(is_about)
            && (tenant, text, rungs, config)
                == (&other.tenant, &other.text, &other.rungs, &other.config)
    }

    /// Whom it is about, as a brief event says it.
    pub(super) fn subjects(&self) -> Names<'_> {
        Names(self.about.get(..ABOUT_MAX).unwrap_or(&self.about))
    }

    /// What it is about; the limits, unless something else is named.
    fn all_names(&self) -> impl Iterator<Item = &str> {
        let limits = self.about.iter().filter(|_| self.names.is_empty());
        let limits = limits.map(|about| about.limit.as_str());
        self.names.iter().map(String::as_str).chain(limits)
    }

    #[expect(clippy::as_conversions, reason = "an enum without fields is its own number")]
    fn mark(&self, seed: u64) -> Likeness {
        let mut mark = Likeness::new(seed);
        mark.text(self.outcome);
        if let Tenant::Named(tenant) = &self.tenant {
            mark.text(tenant.as_str());
        }
        // Which of the texts follow is a part of it, so that none has to be added that is not there.
        let config: u64 = self.config.map_or(0, |config| config.gauge().into());
        let (has_cause, has_text) = (self.cause.is_some(), !self.text.is_empty());
        let texts = u64::from(has_cause) << 32 | u64::from(has_text) << 33;
        mark.number(config | texts | (self.action as u64) << 40);
        if let Some(cause) = self.cause {
            mark.text(cause.as_str());
        }
        self.all_names().for_each(|name| mark.text(name));
        if has_text {
            mark.text(&self.text);
        }
        mark
    }

    /// Each part where it will stand: a formatter, and a text for each, took a third of what it takes to hand an event over.
    fn detail(&self, is_without_decision: bool) -> String {
        let mut detail = String::with_capacity(self.text.len().saturating_add(DETAIL_LEN));
        detail.push_str(&self.text);
        let begin = |detail: &mut String, name: &str| {
            if !detail.is_empty() {
                detail.push(' ');
            }
            detail.push_str(name);
            detail.push('=');
        };
        if let Some(cause) = self.cause {
            begin(&mut detail, "cause");
            detail.push_str(cause.as_str());
        }
        if !self.rungs.is_empty() {
            begin(&mut detail, "rungs");
            let rungs: Vec<_> = self.rungs.iter().map(Rung::to_string).collect();
            detail.push_str(&rungs.join(","));
        }
        if self.all_names().next().is_some() {
            begin(&mut detail, "names");
            push_names(&mut detail, self.all_names());
        }
        if self.share_bp > 0 {
            begin(&mut detail, "share_bp");
            push_number(&mut detail, self.share_bp.into());
        }
        if let Some(decision) = self.decision.filter(|_| !is_without_decision) {
            begin(&mut detail, "decision");
            decision.push_to(&mut detail);
        }
        detail
    }
}

impl Alike for Testimony {
    type Mark = u64;

    fn kind(&self, seed: u64) -> u64 {
        self.mark(seed).end()
    }

    fn marks(&self, seed: u64) -> (u64, u64) {
        let mut mark = self.mark(seed);
        let kind = mark.end();
        for about in &self.about {
            mark.text(about.subject.kind.as_str());
            mark.text(about.subject.name.as_str());
        }
        (kind, mark.end())
    }

    fn counted(&self) -> Self {
        let names = self.all_names().map(String::from).collect();
        let durability = Durability::Async;
        Self { decision: None, about: Vec::new(), names, durability, ..self.clone() }
    }

    fn other(&self) -> Self {
        Self {
            rungs: self.rungs.clone(),
            config: self.config,
            ..Self::own(self.action, self.outcome, String::new())
        }
    }
}

fn push_names<'n>(text: &mut String, all: impl Iterator<Item = &'n str>) {
    let (begin, mut left) = (text.len(), 0_usize);
    for name in all {
        let shown = text.len().saturating_sub(begin);
        if left > 0 || shown.saturating_add(name.len()) > NAMES_BYTES_MAX {
            left = left.saturating_add(1);
            continue;
        }
        if shown > 0 {
            text.push(',');
        }
        text.push_str(name);
    }
    if left > 0 {
        text.push_str(&format!(",+{left}"));
    }
}
