//! Owns the fields of a rate limit and of an identity.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::RateLimit;
use super::read::{duration_ms, unique_name};
use super::reader::At;
use super::shapes;
use crate::gcra::Quota;
use crate::identity::Identity;

/// Limits per policy: all that apply to one request travel in one message.
const LIMITS_PER_POLICY_MAX: usize = 8;

pub(super) fn rate_limits(at: &At<'_, '_>, policy: &str) -> Option<Vec<RateLimit>> {
    let items = at.list("write a list of rate limits")?;
    if items.is_empty() || items.len() > LIMITS_PER_POLICY_MAX {
        at.wrong(
            format!("{} rate limits", items.len()),
            format!("write 1 to {LIMITS_PER_POLICY_MAX}"),
        );
        return None;
    }
    let mut names = BTreeSet::new();
    let read: Vec<Option<RateLimit>> =
        items.iter().map(|at| rate_limit(at, policy, &mut names)).collect();
    read.into_iter().collect()
}

fn rate_limit(at: &At<'_, '_>, policy: &str, names: &mut BTreeSet<String>) -> Option<RateLimit> {
    let table = at.table(shapes::RATE_LIMIT.known, "write a table with name, by, limit and per")?;
    let name = table.must("name", "name the limit").and_then(|at| unique_name(&at, names));
    let by = table
        .must("by", "write \"ip\" or {\"header\": \"x-api-key\"}")
        .and_then(|at| identity(&at));
    let limit_at = table.must("limit", "write how many requests a period admits");
    let limit = limit_at.as_ref().and_then(|at| at.whole(1, 1_000_000_000));
    let per_ms = table.must("per", "write \"minute\", or 30s, 5m, 1h, day").and_then(|at| {
        let remedy = "write \"minute\", or 30s, 5m, 1h, day";
        duration_ms(&at, 1, 366 * 86_400_000, remedy)
    });
    let burst = match table.get("burst") {
        None => limit,
        Some(at) => at.whole(1, 1_000_000_000),
    };
    let (name, by, limit, per_ms, burst) = (name?, by?, limit?, per_ms?, burst?);
    match Quota::new(limit, per_ms.saturating_mul(1_000), burst) {
        Ok(quota) => Some(RateLimit { id: format!("{policy}.{name}"), name, by, quota }),
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

fn identity(at: &At<'_, '_>) -> Option<Identity> {
    const V6_PREFIX_DEFAULT: u8 = 64;
    const REMEDY: &str =
        "write \"ip\", {\"ip\": {\"v6_prefix\": 64}} or {\"header\": \"x-api-key\"}";
    if at.is_text() {
        return match at.text(REMEDY)? {
            "ip" => Some(Identity::Ip { v6_prefix: V6_PREFIX_DEFAULT }),
            _ => {
                at.is_no("identity", REMEDY);
                None
            }
        };
    }
    if at.is_list() {
        at.wrong("combined identities are not part of this version", REMEDY);
        return None;
    }
    let table = at.table(shapes::IDENTITY.known, REMEDY)?;
    match (table.get("ip"), table.get("header")) {
        (Some(ip), None) => {
            let inner = ip.table(shapes::IP.known, "write {\"v6_prefix\": 64}, or {}")?;
            let v6_prefix = match inner.get("v6_prefix") {
                None => Some(V6_PREFIX_DEFAULT),
                Some(at) => at.whole(1, 128).and_then(|n| u8::try_from(n).ok()),
            };
            Some(Identity::Ip { v6_prefix: v6_prefix? })
        }
        (None, Some(header)) => header_name(&header).map(|name| Identity::Header { name }),
        (Some(_), Some(_)) | (None, None) => {
            at.wrong("an identity has exactly one source", REMEDY);
            None
        }
    }
}

fn header_name(at: &At<'_, '_>) -> Option<String> {
    let text = at.text("name a header")?;
    let sound = !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !sound {
        at.is_no(
            "header name",
            "write a header's name such as \"x-api-key\"; :path and the like are no identity",
        );
    }
    if text.eq_ignore_ascii_case("host") {
        at.wrong(
            "a request reaches the filter without \"host\": Envoy makes :authority of it",
            "count by another header",
        );
        return None;
    }
    if text.contains('_') {
        at.doubt(
            "Envoy may refuse or drop headers with an underscore",
            "write the name with -, or see headers_with_underscores_action of Envoy",
        );
    }
    sound.then(|| text.to_ascii_lowercase())
}
