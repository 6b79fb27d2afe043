//! Owns the fields of `on_unavailable`, of `local_share` and of the gateway's `breaker`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;

use super::read::duration_ms;
use super::reader::At;
use super::rollout::share_bp;
use super::suggest::nearest;
use super::{Rung, shapes};
use crate::breaker::alone;
use crate::local_share::LocalShare;

const RUNGS: &[(&str, Rung)] = &[
    ("lease", Rung::Lease),
    ("local_share", Rung::LocalShare),
    ("allow", Rung::Allow),
    ("deny", Rung::Deny),
];

/// The rungs of a policy that names none (product row A4).
pub(super) fn default_rungs() -> Vec<Rung> {
    [Rung::Lease, Rung::LocalShare, Rung::Deny].into()
}

pub(super) fn on_unavailable(at: &At<'_, '_>) -> Option<Vec<Rung>> {
    const REMEDY: &str = "write [\"lease\", \"local_share\", \"deny\"], [\"deny\"] or [\"allow\"]";
    if at.is_text() {
        return rung(at).map(|rung| [rung].into());
    }
    let items = at.list(REMEDY)?;
    if items.is_empty() {
        at.wrong("no rung: what should become of the request?", REMEDY);
        return None;
    }
    let read: Vec<Option<Rung>> = items.iter().map(rung).collect();
    let rungs: Vec<Rung> = read.into_iter().collect::<Option<_>>()?;
    for (place, (item, rung)) in items.iter().zip(&rungs).enumerate() {
        let before = rungs.get(..place).unwrap_or_default();
        if before.contains(rung) {
            item.wrong("the rung stands twice", "keep the first");
            return None;
        }
        if let Some(last) = before.iter().find(|rung| matches!(rung, Rung::Allow | Rung::Deny)) {
            item.wrong(format!("a rung after \"{last}\" is never reached"), "leave it out");
            return None;
        }
    }
    Some(rungs)
}

fn rung(at: &At<'_, '_>) -> Option<Rung> {
    const REMEDY: &str = "write \"lease\", \"local_share\", \"allow\" or \"deny\"";
    let text = at.text(REMEDY)?;
    let found = RUNGS.iter().find(|(word, _)| *word == text).map(|(_, rung)| *rung);
    if found.is_none() {
        let words: Vec<&str> = RUNGS.iter().map(|(word, _)| *word).collect();
        let remedy = match nearest(text, &words) {
            Some(word) => format!("did you mean {word:?}?"),
            None => REMEDY.to_owned(),
        };
        at.is_no("rung", remedy);
    }
    found
}

pub(super) fn local_share(at: &At<'_, '_>) -> Option<LocalShare> {
    let table =
        at.table(shapes::LOCAL_SHARE.known, "write {\"fraction\": \"50%\", \"envoys\": 3}")?;
    let default = LocalShare::default();
    let fraction_bp = match table.get("fraction") {
        None => Some(default.fraction_bp),
        Some(at) => share_bp(&at).filter(|share| {
            if *share == 0 {
                at.wrong(
                    "a share of nothing admits nothing",
                    "leave \"local_share\" out of on_unavailable instead",
                );
            }
            *share > 0
        }),
    };
    let envoys = match table.get("envoys") {
        None => Some(default.envoys),
        Some(at) => at.whole(1, 100_000),
    };
    Some(LocalShare { fraction_bp: fraction_bp?, envoys: envoys? })
}

pub(super) fn breaker(at: &At<'_, '_>) -> Option<alone::Settings> {
    let remedy = "write {\"failures\": 5, \"open\": \"10s\", \"successes\": 3}";
    let table = at.table(shapes::BREAKER.known, remedy)?;
    let default = alone::Settings::default();
    let failures = match table.get("failures") {
        None => Some(default.failures),
        Some(at) => at.whole(1, 1_000_000),
    };
    let open_ms = match table.get("open") {
        None => Some(default.open_ms),
        Some(at) => duration_ms(&at, 100, 3_600_000, "write 10s, or another duration")
            .and_then(|ms| u32::try_from(ms).ok()),
    };
    let successes = match table.get("successes") {
        None => Some(default.successes),
        Some(at) => at.whole(1, 255).and_then(|tests| u8::try_from(tests).ok()),
    };
    Some(alone::Settings {
        failures: failures?,
        open_ms: open_ms?,
        successes: successes?,
        ..default
    })
}
