//! Owns the fields of a policy's `mode`.

use alloc::borrow::ToOwned;
use alloc::format;

use super::identities::Names;
use super::missing::Missing;
use super::reader::{At, Table};
use super::shapes;
use super::suggest::nearest;
use crate::identity::Identity;
use crate::matching::PathPattern;
use crate::mode::{Mode, Rollout};

const REMEDY: &str = "write \"off\", \"shadow\", \"enforce\", {\"shadow\": \"10%\"} or {\"enforce\": \"10%\", \"by\": \"client\"}";

/// A policy's mode, for all mechanisms or for one, and who falls on which side of its share.
pub(super) struct Said {
    /// The mode of the rate limits.
    pub rollout: Rollout,
    /// The mode of the other mechanisms.
    pub others: Rollout,
    pub by: Option<Identity>,
}

/// Reads a policy's `mode`.
pub(super) fn rollout(
    at: &At<'_, '_>,
    names: &Names<'_, '_>,
    path: Option<&PathPattern>,
) -> Option<Said> {
    let of_all = |(rollout, by)| Said { rollout, others: rollout, by };
    let of_limits = |(rollout, by)| Said { rollout, others: Rollout::ENFORCE, by };
    if !at.is_text() && !at.is_bool() {
        let table = at.table(shapes::ROLLOUT.known, REMEDY)?;
        let alone = ["shadow", "enforce", "by"].iter().all(|name| table.get(name).is_none());
        match table.get("rate_limits") {
            None => return share(at, &table, names, path).map(of_all),
            Some(one) if alone => return mechanism(&one, names, path).map(of_limits),
            Some(one) => {
                one.wrong(
                    "a mode for all mechanisms stands beside it",
                    "write the mechanisms alone",
                );
                return None;
            }
        }
    }
    mechanism(at, names, path).map(of_all)
}

/// The mode of one mechanism.
fn mechanism(
    at: &At<'_, '_>,
    names: &Names<'_, '_>,
    path: Option<&PathPattern>,
) -> Option<(Rollout, Option<Identity>)> {
    if at.is_bool() {
        at.is_no("mode", "write \"off\" in quotes: YAML takes a bare off for false");
        return None;
    }
    if at.is_text() {
        return mode(at).map(|mode| (Rollout::whole(mode), None));
    }
    share(at, &at.table(shapes::SHARE.known, REMEDY)?, names, path)
}

fn share(
    at: &At<'_, '_>,
    table: &Table<'_, '_>,
    names: &Names<'_, '_>,
    path: Option<&PathPattern>,
) -> Option<(Rollout, Option<Identity>)> {
    let of = |mode, at: &At<'_, '_>| share_bp(at).map(|share_bp| Rollout { mode, share_bp });
    let rollout = match (table.get("shadow"), table.get("enforce")) {
        (Some(at), None) => of(Mode::Shadow, &at),
        (None, Some(at)) => of(Mode::Enforce, &at),
        _ => {
            at.wrong("not exactly one share", REMEDY);
            None
        }
    };
    let by = match table.get("by") {
        None => Some(None),
        // Whoever is missing what he would be told apart by is among the last to be taken in.
        Some(at) => {
            names.by(&at).and_then(|atoms| Missing::default().bind(&at, &atoms, path)).map(Some)
        }
    };
    Some((rollout?, by?))
}

pub(super) fn mode(at: &At<'_, '_>) -> Option<Mode> {
    match at.text(REMEDY)? {
        "off" => Some(Mode::Off),
        "shadow" => Some(Mode::Shadow),
        "enforce" => Some(Mode::Enforce),
        other => {
            let remedy = match nearest(other, &["off", "shadow", "enforce"]) {
                Some(word) => format!("did you mean {word:?}?"),
                None => REMEDY.to_owned(),
            };
            at.is_no("mode", remedy);
            None
        }
    }
}

/// `10%`, `0.5%`, `12.34%`: hundredths of a percent, exactly.
pub(super) fn share_bp(at: &At<'_, '_>) -> Option<u16> {
    const REMEDY: &str = "write a percentage from \"0%\" to \"100%\", with at most two decimals";
    let text = at.text(REMEDY)?;
    let share = text.strip_suffix('%').and_then(basis_points).filter(|share| *share <= 10_000);
    if share.is_none() {
        at.is_no("percentage", REMEDY);
    }
    share
}

fn basis_points(number: &str) -> Option<u16> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !(digits(whole) && digits(decimals) && decimals.len() <= 2 && whole.len() <= 3) {
        return None;
    }
    let scale = if decimals.len() == 1 { 10 } else { 1 };
    let whole: u16 = whole.parse().ok()?;
    let decimals: u16 = decimals.parse().ok()?;
    whole.checked_mul(100)?.checked_add(decimals.checked_mul(scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_to_the_letter() {
        let rows = [
            ("10", Some(1_000)),
            ("0.5", Some(50)),
            ("12.34", Some(1_234)),
            ("100", Some(10_000)),
            ("0", Some(0)),
            ("1.234", None),
            (".5", None),
            ("5.", None),
            ("-1", None),
            ("1e1", None),
            ("9999", None),
        ];
        for (text, share) in rows {
            assert_eq!(basis_points(text), share, "{text}");
        }
    }
}
