//! Owns what a sound document probably does not mean: policies that are never reached and limits that
//! never decide.

use alloc::format;
use alloc::string::String;

use super::Notes;
use crate::config::{Apply, Config, Policy, RateLimit};
use crate::idempotency::terms::Terms;
use crate::matching::{FieldMatch, HostPattern, Matcher, PathPattern, Segment};
use crate::mode::Mode;

pub(super) fn look(config: &Config, notes: &mut Notes<'_>) {
    // A route that is out of the wider policy reaches the narrower one.
    if config.apply == Apply::First && !config.route_opt_out {
        unreachable_policies(config, notes);
    }
    if config.apply == Apply::All {
        weaker_keys(config, notes);
    }
    for policy in config.policies.iter().filter(|policy| policy.rollout.mode != Mode::Off) {
        idle_limits(policy, notes);
    }
}

/// Under `apply: first`, what an earlier policy takes in whole.
fn unreachable_policies(config: &Config, notes: &mut Notes<'_>) {
    for (index, policy) in config.policies.iter().enumerate() {
        let before = config.policies.iter().take(index);
        let mut wider = before.filter(|before| takes_in(&before.matcher, &policy.matcher));
        if let Some(wider) = wider.next() {
            let field = notes.places.policy(&policy.name);
            notes.field(
                "warning",
                &format!("{field}.match"),
                format!(
                    "policy {:?} is never reached: {:?} comes before it and takes in every request that it matches",
                    policy.name, wider.name
                ),
                "give it a higher priority, or write apply: all",
            );
        }
    }
}

/// Of two policies with idempotency the first decides, also where it asks for less.
fn weaker_keys(config: &Config, notes: &mut Notes<'_>) {
    let required = |policy: &Policy, terms: &Terms| {
        let mode = terms.mode.unwrap_or(policy.rollout_others.mode);
        terms.required && mode == Mode::Enforce
    };
    for (index, policy) in config.policies.iter().enumerate() {
        let Some(terms) = policy.idempotency.as_ref().filter(|terms| required(policy, terms))
        else {
            continue;
        };
        let weaker = config.policies.iter().take(index).find(|before| {
            before.idempotency.as_ref().is_some_and(|first| {
                let is_off = first.mode.unwrap_or(before.rollout_others.mode) == Mode::Off;
                let meets = terms.methods.iter().any(|method| first.is_for(method.as_bytes()));
                !is_off && !required(before, first) && meets
            }) && takes_in(&before.matcher, &policy.matcher)
        });
        if let Some(weaker) = weaker {
            let field = notes.places.policy(&policy.name);
            notes.field(
                "warning",
                &format!("{field}.idempotency"),
                format!(
                    "policy {:?} comes before it with idempotency that is optional or in shadow, takes in every request that it matches, and the first decides",
                    weaker.name
                ),
                "give it a higher priority",
            );
        }
    }
}

/// Of two limits over the same subjects, one that is wider in every respect never refuses.
fn idle_limits(policy: &Policy, notes: &mut Notes<'_>) {
    for (index, limit) in policy.rate_limits.iter().enumerate() {
        let mut others = policy.rate_limits.iter().enumerate();
        let tighter = others.find(|(other, tight)| {
            *other != index
                && tight.by == limit.by
                && tight.algorithm == limit.algorithm
                && tight.cost == limit.cost
                // A soft one refuses nobody, so it keeps nobody from a wider one.
                && (!tight.soft || limit.soft)
                && tight.quota.burst() <= limit.quota.burst()
                && rate(limit) >= rate(tight)
                // Of two equal ones the second is told.
                && (*other < index || tight.quota != limit.quota)
        });
        if let Some((_, tight)) = tighter {
            let field = notes.places.policy(&policy.name);
            notes.field(
                "warning",
                &format!("{field}.rate_limits[{index}]"),
                format!(
                    "limit {:?} never refuses: {:?} counts the same and is as tight in every respect",
                    limit.name, tight.name
                ),
                "leave it out, or give it a smaller limit over a longer period",
            );
        }
    }
}

/// Units per µs, as a fraction that compares exactly.
fn rate(limit: &RateLimit) -> Fraction {
    Fraction { over: u128::from(limit.quota.limit()), under: u128::from(limit.quota.period_us()) }
}

#[derive(PartialEq, Eq)]
struct Fraction {
    over: u128,
    under: u128,
}

// === impl Fraction ===

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        let (left, right) =
            (self.over.checked_mul(other.under)?, other.over.checked_mul(self.under)?);
        left.partial_cmp(&right)
    }
}

/// Whether every request that `narrow` matches is one that `wide` matches. Errs towards no.
fn takes_in(wide: &Matcher, narrow: &Matcher) -> bool {
    // By name, so that a further condition cannot be forgotten here.
    let Matcher { hosts, path, methods, headers, query, route } = wide;
    path_in(path, &narrow.path)
        && hosts_in(hosts.as_deref(), narrow.hosts.as_deref())
        && methods_in(methods.as_deref(), narrow.methods.as_deref())
        && fields_in(headers, &narrow.headers)
        && fields_in(query, &narrow.query)
        && narrow.route.asks_all_of(route)
}

fn path_in(wide: &PathPattern, narrow: &PathPattern) -> bool {
    match (wide, narrow) {
        (PathPattern::Any, _) => true,
        (
            PathPattern::Segments { segments: wide, below: true },
            PathPattern::Segments { segments: narrow, .. },
        ) => wide.len() <= narrow.len() && segments_in(wide, narrow),
        (
            PathPattern::Segments { segments: wide, below: false },
            PathPattern::Segments { segments: narrow, below: false },
        ) => wide.len() == narrow.len() && segments_in(wide, narrow),
        (wide, narrow) => wide == narrow,
    }
}

fn segments_in(wide: &[Segment], narrow: &[Segment]) -> bool {
    wide.iter().zip(narrow).all(|(wide, narrow)| match (wide, narrow) {
        (Segment::Named(_), Segment::Named(_)) => true,
        (Segment::Named(_), Segment::Literal(text)) => !text.is_empty(),
        (Segment::Literal(wide), Segment::Literal(narrow)) => wide == narrow,
        (Segment::Literal(_), Segment::Named(_)) => false,
    })
}

fn hosts_in(wide: Option<&[HostPattern]>, narrow: Option<&[HostPattern]>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            narrow.iter().all(|narrow| wide.iter().any(|wide| host_in(wide, narrow)))
        }
    }
}

fn host_in(wide: &HostPattern, narrow: &HostPattern) -> bool {
    let is_below = |name: &str, domain: &str| {
        name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    };
    match (wide, narrow) {
        (HostPattern::Below(domain), HostPattern::Exact(name)) => is_below(name, domain),
        (HostPattern::Below(wide), HostPattern::Below(narrow)) => {
            wide == narrow || is_below(narrow, wide)
        }
        (wide, narrow) => wide == narrow,
    }
}

fn methods_in(wide: Option<&[String]>, narrow: Option<&[String]>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|method| wide.contains(method)),
    }
}

/// Each condition of the wider one is one of the narrower one's, too.
fn fields_in(wide: &[FieldMatch], narrow: &[FieldMatch]) -> bool {
    wide.iter().all(|field| narrow.contains(field))
}
