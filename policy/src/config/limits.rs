//! Owns the fields of a rate limit.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::RateLimit;
use super::cost::cost;
use super::identities::{Atom, Names};
use super::missing::Missing;
use super::read::{duration_ms, name_remedy, sound_name, truth, unique_name};
use super::reader::{At, Table};
use super::shapes;
use super::suggest::nearest;
use crate::cost::{COST_MAX, Cost};
use crate::fields::Spelled;
use crate::gcra::Quota;
use crate::limit::Algorithm;
use crate::matching::PathPattern;

/// Limits per policy: all that apply to one request travel in one message.
const LIMITS_PER_POLICY_MAX: usize = 8;
/// Limits by name per document.
const NAMES_MAX: usize = 256;
/// Into so many parts at the most a leased burst is thought to fall.
const LEASED_PARTS: u32 = 8;
const BY: &str = "write \"ip\" or {\"header\": \"x-api-key\"}";
const ITEM: &str = "write a table with name, by, limit and per, or the name of one of the limits";

/// What a limit's `by` is read with.
pub(super) struct By<'a, 'r, 'd> {
    /// The names of the document.
    pub identities: &'a Names<'r, 'd>,
    /// What the policy says of missing ones.
    pub missing: &'a Missing<'r, 'd>,
    /// The limits that the document defines by name.
    pub limits: &'a Limits<'r, 'd>,
    /// The policy's path, if it is sound.
    pub path: Option<&'a PathPattern>,
}

/// Limits that are defined once, for use by name.
#[derive(Default)]
pub(super) struct Limits<'r, 'd> {
    written: BTreeMap<&'r str, At<'r, 'd>>,
    used: RefCell<BTreeSet<&'r str>>,
}

/// A limit with the place and the atoms of its `by`.
struct Read<'r, 'd> {
    limit: RateLimit,
    at: At<'r, 'd>,
    atoms: Vec<Atom>,
}

// === impl Limits ===

impl<'r, 'd> Limits<'r, 'd> {
    /// Reads `limits` of a document; what each says is read where a policy uses it.
    pub fn new(document: &Table<'r, 'd>) -> Self {
        let entries = document.get("limits").and_then(|at| {
            at.entries(
                "write {\"per-client\": {\"by\": \"ip\", \"limit\": 60, \"per\": \"minute\"}}",
            )
        });
        let mut written = BTreeMap::new();
        for (name, at) in entries.unwrap_or_default() {
            if !sound_name(name) {
                at.wrong(format!("{name:?} is no name"), name_remedy());
            }
            if written.len() >= NAMES_MAX {
                at.wrong(
                    format!("more than {NAMES_MAX} limits by name"),
                    "write limits of single policies there",
                );
                break;
            }
            written.insert(name, at);
        }
        Self { written, used: RefCell::default() }
    }

    /// Warns of limits that no policy uses, and reads them, so that a mistake in one does not pass
    /// in silence.
    pub fn doubt_unused(&self, identities: &Names<'_, '_>) {
        let used = self.used.borrow();
        for (name, at) in self.written.iter().filter(|(name, _)| !used.contains(**name)) {
            if let Some(table) = at.table(shapes::LIMIT.known, ITEM) {
                table.must("by", BY).and_then(|at| identities.by(&at));
                terms(&table, at);
            }
            at.doubt(
                format!("no policy uses the limit {name:?}"),
                "name it in rate_limits, or take it out",
            );
        }
    }

    fn named(&self, at: &At<'_, '_>) -> Option<&At<'r, 'd>> {
        let word = at.text(ITEM)?;
        let found = self.written.get_key_value(word);
        if let Some((name, _)) = found {
            self.used.borrow_mut().insert(name);
        } else {
            let known: Vec<&str> = self.written.keys().copied().collect();
            let remedy = match nearest(word, &known) {
                Some(word) => format!("did you mean {word:?}?"),
                None if known.is_empty() => ITEM.to_owned(),
                None => format!("known here: {}", known.join(", ")),
            };
            at.is_no("limit", remedy);
        }
        found.map(|(_, at)| at)
    }
}

pub(super) fn rate_limits<'r, 'd>(
    at: &At<'r, 'd>,
    policy: &str,
    by: &By<'_, 'r, 'd>,
) -> Option<Vec<RateLimit>> {
    let items = at.list("write a list of rate limits")?;
    if items.is_empty() || items.len() > LIMITS_PER_POLICY_MAX {
        at.wrong(
            format!("{} rate limits", items.len()),
            format!("write 1 to {LIMITS_PER_POLICY_MAX}"),
        );
        return None;
    }
    let mut names = BTreeSet::new();
    let read: Vec<Option<Read<'_, '_>>> =
        items.iter().map(|at| rate_limit(at, policy, &mut names, by)).collect();
    let read: Vec<Read<'_, '_>> = read.into_iter().collect::<Option<_>>()?;
    by.missing.doubt_unused(read.iter().flat_map(|read| &read.atoms));
    doubt_client_chosen(&read);
    Some(read.into_iter().map(|read| read.limit).collect())
}

/// Whoever chooses what he is counted by takes a fresh bucket whenever one is used up, unless
/// another limit of the policy holds him.
fn doubt_client_chosen(limits: &[Read<'_, '_>]) {
    if limits.iter().any(|read| read.limit.by.is_trusted()) {
        return;
    }
    for read in limits {
        read.at.doubt(
            "clients choose what they are counted by here, so each can have as many buckets as it likes",
            "add a limit by \"ip\" or another trusted identity, or write \"trusted\": true where something before the filter verifies it",
        );
    }
}

/// What a limit says besides its name and whom it counts.
struct Terms {
    quota: Quota,
    algorithm: Algorithm,
    cost: Cost,
    soft: bool,
    leased: bool,
}

fn rate_limit<'r, 'd>(
    at: &At<'r, 'd>,
    policy: &str,
    names: &mut BTreeSet<String>,
    reading: &By<'_, 'r, 'd>,
) -> Option<Read<'r, 'd>> {
    let (name, table) = if at.is_text() {
        let written = reading.limits.named(at)?;
        (unique_name(at, names), written.table(shapes::LIMIT.known, ITEM)?)
    } else {
        let table = at.table(shapes::RATE_LIMIT.known, ITEM)?;
        (table.must("name", "name the limit").and_then(|at| unique_name(&at, names)), table)
    };
    let by_at = table.must("by", BY);
    let atoms = by_at.as_ref().and_then(|at| reading.identities.by(at));
    let by = by_at
        .as_ref()
        .zip(atoms.as_ref())
        .and_then(|(at, atoms)| reading.missing.bind(at, atoms, reading.path));
    let terms = terms(&table, at);
    let (name, by) = (name?, by?);
    let Terms { quota, algorithm, cost, soft, leased } = terms?;
    let id = format!("{policy}.{name}");
    let spelled = Spelled::new(&id, quota.limit(), quota.period_us());
    let limit = RateLimit { id, name, by, quota, algorithm, cost, soft, leased, spelled };
    Some(Read { limit, at: by_at?, atoms: atoms? })
}

fn terms(table: &Table<'_, '_>, at: &At<'_, '_>) -> Option<Terms> {
    let limit_at = table.must("limit", "write how many requests a period admits");
    let limit = limit_at.as_ref().and_then(|at| {
        if at.is_zero() {
            at.wrong(
                "0 admits no request at all",
                "write 1 or more; to refuse every request give its route a direct_response in Envoy",
            );
            return None;
        }
        at.whole(1, 1_000_000_000)
    });
    let per_ms = table.must("per", "write \"minute\", or 30s, 5m, 1h, day").and_then(|at| {
        let remedy = "write \"minute\", or 30s, 5m, 1h, day";
        duration_ms(&at, 1, 366 * 86_400_000, remedy)
    });
    let burst = match table.get("burst") {
        None => limit,
        Some(at) => at.whole(1, 1_000_000_000),
    };
    let soft = match table.get("soft") {
        None => Some(false),
        Some(at) => truth(&at),
    };
    let algorithm = table.get("algorithm").map_or(Some(Algorithm::default()), |at| algorithm(&at));
    if algorithm == Some(Algorithm::Window)
        && let Some(at) = table.get("burst")
    {
        at.wrong("a window admits its limit and no burst besides", "leave burst out");
        return None;
    }
    // Without a burst to compare with, the one that fits anything.
    let cost = match table.get("cost") {
        None => Some(Cost::default()),
        Some(at) => cost(&at, burst.unwrap_or(COST_MAX)),
    };
    let (limit, per_ms, burst) = (limit?, per_ms?, burst?);
    let (algorithm, cost, soft) = (algorithm?, cost?, soft?);
    let leased = match table.get("decide") {
        None => false,
        Some(at) => decide(&at, algorithm, &cost, soft, burst)?,
    };
    match algorithm.quota(limit, per_ms.saturating_mul(1_000), burst) {
        Ok(quota) => Some(Terms { quota, algorithm, cost, soft, leased }),
        Err(bad) => {
            let at = limit_at.as_ref().unwrap_or(at);
            at.wrong(
                format!("{limit} per {per_ms} ms with a burst of {burst} cannot be kept"),
                format!("{bad}"),
            );
            None
        }
    }
}

/// Whether the limit is leased; what cannot be is refused with what would have to change.
fn decide(
    at: &At<'_, '_>,
    algorithm: Algorithm,
    cost: &Cost,
    soft: bool,
    burst: u32,
) -> Option<bool> {
    const REMEDY: &str = "write \"exact\" (the gateway is asked each time) or \"lease\" (Envoys take units out ahead)";
    match at.text(REMEDY)? {
        "exact" => return Some(false),
        "lease" => {}
        _ => {
            at.is_no("way to decide", REMEDY);
            return None;
        }
    }
    let problem = if algorithm == Algorithm::Window {
        Some(("a window cannot be leased", "take algorithm: gcra, or decide: exact"))
    } else if soft {
        Some(("a soft limit denies nobody, so nothing is gained by a lease", "leave decide out"))
    } else if cost.after().is_some() {
        let problem = "a cost that only the response tells cannot be taken out ahead";
        Some((problem, "take decide: exact, or a cost that the request tells"))
    } else {
        None
    };
    match problem {
        Some((problem, remedy)) => {
            at.wrong(problem, remedy);
            None
        }
        None => {
            doubt_dear(at, cost, burst);
            Some(true)
        }
    }
}

/// Each Envoy holds a part of the burst: where several do, what costs more than such a part waits for one that may
/// never come together (docs/leases.md).
fn doubt_dear(at: &At<'_, '_>, cost: &Cost, burst: u32) {
    let usual = match cost {
        Cost::Fixed(cost) => *cost,
        Cost::Request(cost) => cost.default,
        Cost::Body(_) | Cost::Response(_) => return,
    };
    if usual > 1 && usual.saturating_mul(LEASED_PARTS) > burst {
        at.doubt(
            format!("a request costs {usual} of a burst of {burst}, of which each Envoy holds a part: where several do, a busy limit may never admit one"),
            format!("take decide: exact, or a burst of {} or more", usual.saturating_mul(LEASED_PARTS)),
        );
    }
}

fn algorithm(at: &At<'_, '_>) -> Option<Algorithm> {
    const REMEDY: &str = "write \"gcra\" (a bucket, with a burst) or \"window\" (never more than the limit in any period)";
    let text = at.text(REMEDY)?;
    let found = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == text);
    if found.is_none() {
        at.is_no("algorithm", REMEDY);
    }
    found
}
