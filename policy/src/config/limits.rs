//! Owns the fields of a rate limit.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::RateLimit;
use super::cost::cost;
use super::identities::{Atom, Names};
use super::missing::Missing;
use super::read::{duration_ms, truth, unique_name};
use super::reader::At;
use super::shapes;
use crate::cost::{COST_MAX, Cost};
use crate::limit::Algorithm;
use crate::matching::PathPattern;

/// Limits per policy: all that apply to one request travel in one message.
const LIMITS_PER_POLICY_MAX: usize = 8;

/// What a limit's `by` is read with.
pub(super) struct By<'a, 'r, 'd> {
    /// The names of the document.
    pub identities: &'a Names<'r, 'd>,
    /// What the policy says of missing ones.
    pub missing: &'a Missing<'r, 'd>,
    /// The policy's path, if it is sound.
    pub path: Option<&'a PathPattern>,
}

/// A limit with the place and the atoms of its `by`.
struct Read<'r, 'd> {
    limit: RateLimit,
    at: At<'r, 'd>,
    atoms: Vec<Atom>,
}

pub(super) fn rate_limits(
    at: &At<'_, '_>,
    policy: &str,
    by: &By<'_, '_, '_>,
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

fn rate_limit<'r, 'd>(
    at: &At<'r, 'd>,
    policy: &str,
    names: &mut BTreeSet<String>,
    reading: &By<'_, '_, '_>,
) -> Option<Read<'r, 'd>> {
    let table = at.table(shapes::RATE_LIMIT.known, "write a table with name, by, limit and per")?;
    let name = table.must("name", "name the limit").and_then(|at| unique_name(&at, names));
    let by_at = table.must("by", "write \"ip\" or {\"header\": \"x-api-key\"}");
    let atoms = by_at.as_ref().and_then(|at| reading.identities.by(at));
    let by = by_at
        .as_ref()
        .zip(atoms.as_ref())
        .and_then(|(at, atoms)| reading.missing.bind(at, atoms, reading.path));
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
    let (name, by, limit, per_ms, burst) = (name?, by?, limit?, per_ms?, burst?);
    let (algorithm, cost, soft) = (algorithm?, cost?, soft?);
    match algorithm.quota(limit, per_ms.saturating_mul(1_000), burst) {
        Ok(quota) => {
            let id = format!("{policy}.{name}");
            let limit = RateLimit { id, name, by, quota, algorithm, cost, soft };
            Some(Read { limit, at: by_at?, atoms: atoms? })
        }
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

fn algorithm(at: &At<'_, '_>) -> Option<Algorithm> {
    const REMEDY: &str = "write \"gcra\" (a bucket, with a burst) or \"window\" (never more than the limit in any period)";
    let text = at.text(REMEDY)?;
    let found = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == text);
    if found.is_none() {
        at.is_no("algorithm", REMEDY);
    }
    found
}
