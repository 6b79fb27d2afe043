//! Owns the fields: what each may hold and what to write when it does not. The only place that
//! turns a document into a [`Config`].

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::answers::{answers, denied};
use super::breakers::Breakers;
use super::diagnostic::Severity;
use super::hash::ConfigHash;
use super::homes::{cluster, homes};
use super::idempotency::idempotency;
use super::identities::Names;
use super::identity::environment_variable;
use super::ladder::{self, default_rungs, local_share, on_unavailable};
use super::limits::{By, Limits, rate_limits};
use super::matcher::matcher;
use super::missing::{Missing, missing};
use super::reader::{At, Reader};
use super::rollout::{Said, rollout};
use super::suggest::nearest;
use super::tree::{NoTree, Node};
use super::{
    Apply, Config, DOCUMENT_BYTES_MAX, Gateway, Policy, RateLimit, Reading, audit, duration,
    shapes, tree, version,
};
use crate::breaker::alone;
use crate::identity::{Identity, SOURCE_ADDRESS};
use crate::local_share::LocalShare;
use crate::mode::Rollout;
use crate::needs::Needs;
use crate::router::Router;

/// Policies per document: each defines metrics in every Envoy worker.
const POLICIES_MAX: usize = 10_000;
const NAME_LEN_MAX: usize = 63;
/// What the callout may take (product row A4): pool wait 15 < gateway deadline 30 < this < 50.
const TIMEOUT_MS_DEFAULT: u32 = 45;
const HASH_REMEDY: &str = "write {\"env\": \"SUBJECT_KEY\"}: keys stay out of the document";

/// A policy, with what it says itself of the share of its allows that are audited.
type Audited = (Policy, Option<u16>);

pub(super) fn document(document: &str) -> Reading {
    let mut tree = parsed(document);
    if let Ok(root) = &mut tree {
        version::bring_up(root);
    }
    let strict = tree.as_ref().is_ok_and(|root| tree::says_true(root, "strict"));
    let reader = Reader::new(document, strict);
    let config = match &tree {
        Ok(root) => config(&reader.root(root)),
        Err(no) => {
            let remedy = no.remedy.to_owned();
            reader.note(
                Severity::Error,
                String::new(),
                no.problem.clone(),
                remedy,
                no.span.clone(),
            );
            None
        }
    };
    let diagnostics = reader.finish();
    let clean = diagnostics.iter().all(|d| d.severity != Severity::Error);
    let hash = tree.as_ref().ok().map(ConfigHash::of);
    Reading { config: config.filter(|_| clean), diagnostics, hash }
}

fn parsed(document: &str) -> Result<Node<'_>, NoTree> {
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(NoTree {
            problem: format!("the document has {} bytes", document.len()),
            remedy: "keep it below 4 MiB",
            span: 0..0,
        });
    }
    tree::parse(document)
}

fn config(at: &At<'_, '_>) -> Option<Config> {
    let table =
        at.table(shapes::DOCUMENT.known, "write a table with version, gateway and policies")?;
    let version =
        table.must("version", "write \"version\": 1").and_then(|at| version::version(&at));
    let gateway = table
        .must("gateway", "write \"gateway\": {\"cluster\": \"tidegate\"}")
        .and_then(|at| gateway(&at));
    let homes = homes(&table);
    if let Some(at) = table.get("strict") {
        at.truth()?;
    }
    let apply = match table.get("apply") {
        None => Some(Apply::All),
        Some(at) => apply(&at),
    };
    let answers = answers(&table);
    let route_opt_out = match table.get("route_opt_out") {
        None => Some(false),
        Some(at) => truth(&at),
    };
    let hash_subjects = match table.get("hash_subjects") {
        None => Some(None),
        Some(at) => environment_variable(&at, HASH_REMEDY).map(Some),
    };
    let names = Names::new(&table);
    let limits = Limits::new(&table);
    let breakers = Breakers::new(&table, &names);
    let local_share = match table.get("local_share") {
        None => Some(LocalShare::default()),
        Some(at) => local_share(&at),
    };
    let audit = match table.get("audit") {
        None => Some(None),
        Some(at) => audit::audit(&at).map(Some),
    };
    let policies = table
        .must("policies", "write a list of policies; an empty one decides nothing")
        .and_then(|at| policies(&at, &names, &limits, &breakers));
    limits.doubt_unused(&names);
    breakers.doubt_unused();
    let circuit_breakers = breakers.into_all();
    names.doubt_unused();
    let signing_keys = names.into_keys();
    version?;
    let (gateway, homes, apply, answers) = (gateway?, homes?, apply?, answers?);
    let (local_share, audit, policies) = (local_share?, audit?, policies?);
    let audits = audit.is_some() || policies.iter().any(|(_, allows)| allows.is_some());
    let policies: Vec<Policy> = policies
        .into_iter()
        .map(|(policy, own)| {
            let audited_allows_bp = own.or(audit.map(|audit| audit.allows_bp)).unwrap_or(0);
            Policy { audited_allows_bp, ..policy }
        })
        .collect();
    let (hash_subjects, route_opt_out) = (hash_subjects?, route_opt_out?);
    let router = Router::new(policies.iter().map(|policy| (&policy.matcher, Needs::of(policy))));
    let soft_limits =
        policies.iter().flat_map(|policy| &policy.rate_limits).any(|limit| limit.soft);
    let leases = policies.iter().flat_map(|policy| &policy.rate_limits).any(|limit| limit.leased);
    Some(Config {
        gateway,
        homes,
        apply,
        answers,
        local_share,
        policies,
        circuit_breakers,
        audits,
        sync_events: audit.and_then(|audit| audit.sync),
        route_opt_out,
        hash_subjects,
        signing_keys,
        router,
        soft_limits,
        leases,
    })
}

fn apply(at: &At<'_, '_>) -> Option<Apply> {
    const REMEDY: &str = "write \"all\" (every policy that matches) or \"first\"";
    match at.text(REMEDY)? {
        "all" => Some(Apply::All),
        "first" => Some(Apply::First),
        _ => {
            at.is_no("way to apply policies", REMEDY);
            None
        }
    }
}

fn gateway(at: &At<'_, '_>) -> Option<Gateway> {
    let table = at.table(shapes::GATEWAY.known, "write {\"cluster\": \"tidegate\"}")?;
    let cluster = table
        .must("cluster", "name the Envoy cluster that leads to the gateway")
        .and_then(|at| cluster(&at));
    let timeout_ms = match table.get("timeout") {
        None => Some(TIMEOUT_MS_DEFAULT),
        Some(at) => duration_ms(&at, 1, 60_000, "write 45ms, or another duration from 1ms to 1m")
            .and_then(|ms| u32::try_from(ms).ok()),
    };
    let token_env = match table.get("token") {
        None => Some(None),
        Some(at) => token(&at).map(Some),
    };
    let breaker = match table.get("breaker") {
        None => Some(alone::Settings::default()),
        Some(at) => ladder::breaker(&at),
    };
    Some(Gateway {
        cluster: cluster?,
        timeout_ms: timeout_ms?,
        token_env: token_env?,
        breaker: breaker?,
    })
}

fn token(at: &At<'_, '_>) -> Option<String> {
    environment_variable(
        at,
        "write {\"env\": \"TIDEGATE_TOKEN\"}: secrets stay out of the document",
    )
}

fn policies<'r, 'd>(
    at: &At<'r, 'd>,
    identities: &Names<'r, 'd>,
    limits: &Limits<'r, 'd>,
    breakers: &Breakers<'r, 'd>,
) -> Option<Vec<Audited>> {
    let items = at.list("write a list of policies")?;
    if items.len() > POLICIES_MAX {
        at.wrong(format!("{} policies", items.len()), format!("keep them below {POLICIES_MAX}"));
        return None;
    }
    let mut names = BTreeSet::new();
    // Every policy is read before any is missed, so that all problems are told at once.
    let read: Vec<Option<(i64, Audited)>> =
        items.iter().map(|at| policy(at, &mut names, identities, limits, breakers)).collect();
    let mut ranked: Vec<(i64, Audited)> = read.into_iter().collect::<Option<_>>()?;
    // Stable: equals stay in the order of the document.
    ranked.sort_by_key(|(priority, _)| priority.saturating_neg());
    Some(ranked.into_iter().map(|(_, policy)| policy).collect())
}

/// A policy with its priority.
fn policy<'r, 'd>(
    at: &At<'r, 'd>,
    names: &mut BTreeSet<String>,
    identities: &Names<'r, 'd>,
    defined: &Limits<'r, 'd>,
    breakers: &Breakers<'r, 'd>,
) -> Option<(i64, Audited)> {
    let table = at.table(shapes::POLICY.known, "write a table with name, match and rate_limits")?;
    let name = table.must("name", "name the policy").and_then(|at| unique_name(&at, names));
    let matcher = table
        .must("match", "write {\"path\": \"/**\"} for every request")
        .and_then(|at| matcher(&at));
    let priority = match table.get("priority") {
        None => Some(0),
        Some(at) => at.whole(0, 1_000_000).map(i64::from),
    };
    let path = matcher.as_ref().map(|matcher| &matcher.path);
    let rollout = match table.get("mode") {
        None => Some(Said { rollout: Rollout::ENFORCE, others: Rollout::ENFORCE, by: None }),
        Some(at) => rollout(&at, identities, path),
    };
    let missing = match table.get("missing_identity") {
        None => Some(Missing::default()),
        Some(at) => missing(&at, identities),
    };
    let label = name.clone().unwrap_or_default();
    let no_missing = Missing::default();
    let read_limits = |at: At<'r, 'd>| {
        // A policy whose other fields are wrong still gets its limits read.
        let missing = missing.as_ref().unwrap_or(&no_missing);
        rate_limits(&at, &label, &By { identities, missing, limits: defined, path })
    };
    let once = match table.get("idempotency") {
        None => Some(None),
        Some(at) => {
            let mode = (table.get("mode"), rollout.as_ref());
            idempotency(&at, identities, matcher.as_ref(), mode)
        }
    };
    let circuit = match table.get("circuit_breaker") {
        None => Some((None, None)),
        Some(at) => breakers.of_policy(&at, &label, path).map(|(place, by)| (Some(place), by)),
    };
    let does_something =
        ["idempotency", "circuit_breaker"].iter().any(|name| table.get(name).is_some());
    let limits = match table.get("rate_limits") {
        None if does_something => Some(Vec::new()),
        _ => table
            .must("rate_limits", "write at least one rate limit: a policy without any does nothing")
            .and_then(read_limits),
    };
    missing.as_ref()?;
    let rungs = match table.get("on_unavailable") {
        None => Some(default_rungs()),
        Some(at) => on_unavailable(&at),
    };
    let denied = match table.get("denied") {
        None => Some(None),
        Some(at) => denied(&at).map(Some),
    };
    let allows = match table.get("audit") {
        None => Some(None),
        Some(at) => audit::of_policy(&at).map(Some),
    };
    let priority = priority?;
    let Said { rollout, others, by: rollout_by } = rollout?;
    let (rate_limits, idempotency) = (limits?, once?);
    let tenant = idempotency.as_ref().map(|terms| &terms.tenant);
    let (circuit_breaker, circuit_by) = circuit?;
    let mut properties = properties(&rate_limits, rollout_by.iter().chain(tenant));
    if let Some(by) = &circuit_by {
        by.properties(&mut properties);
    }
    let all = properties.len();
    properties.retain(|path| path != SOURCE_ADDRESS);
    let reads_address = properties.len() < all;
    let policy = Policy {
        name: name?,
        matcher: matcher?,
        rate_limits,
        circuit_breaker,
        circuit_by,
        on_unavailable: rungs?,
        idempotency,
        rollout,
        rollout_others: others,
        rollout_by,
        reads_address,
        properties,
        denied: denied?,
        audited_allows_bp: 0,
    };
    Some((priority, (policy, allows?)))
}

/// What has to be read of the host for a policy's identities.
fn properties<'i>(
    limits: &'i [RateLimit],
    others: impl Iterator<Item = &'i Identity>,
) -> Vec<String> {
    let mut all = Vec::new();
    for identity in limits.iter().map(|limit| &limit.by).chain(others) {
        identity.properties(&mut all);
    }
    all.sort_unstable();
    all.dedup();
    all
}

pub(super) fn name_remedy() -> String {
    format!("write 1 to {NAME_LEN_MAX} of a-z 0-9 _ -")
}

pub(super) fn sound_name(text: &str) -> bool {
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    !text.is_empty() && text.len() <= NAME_LEN_MAX && text.bytes().all(sound)
}

pub(super) fn unique_name(at: &At<'_, '_>, taken: &mut BTreeSet<String>) -> Option<String> {
    let remedy = name_remedy();
    let text = at.text(&remedy)?;
    if !sound_name(text) {
        at.is_no("name", remedy);
        return None;
    }
    if !taken.insert(text.to_owned()) {
        at.wrong(
            format!("the name {text:?} is taken"),
            "give each its own: names are part of keys and metrics",
        );
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn truth(at: &At<'_, '_>) -> Option<bool> {
    if !at.is_bool() {
        at.is_no("truth value", "write true or false");
        return None;
    }
    Some(at.is_true())
}

pub(super) fn duration_ms(at: &At<'_, '_>, min_ms: u64, max_ms: u64, remedy: &str) -> Option<u64> {
    let text = at.text(remedy)?;
    match duration::parse_ms(text) {
        Some(ms) if (min_ms..=max_ms).contains(&ms) => Some(ms),
        Some(_) => {
            at.wrong(
                format!("{text:?} is out of range"),
                format!(
                    "write a duration from {} to {}",
                    duration::written(min_ms),
                    duration::written(max_ms)
                ),
            );
            None
        }
        None => {
            let remedy = match nearest(text, duration::NAMES) {
                Some(word) => format!("did you mean {word:?}? (or 30s, 5m, 1h)"),
                None => remedy.to_owned(),
            };
            at.is_no("duration", remedy);
            None
        }
    }
}
