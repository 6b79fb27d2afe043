//! Owns the fields of a policy's `mode`.

use alloc::borrow::ToOwned;
use alloc::format;

use super::reader::At;
use super::shapes;
use super::suggest::nearest;
use crate::mode::{Mode, Rollout};

const REMEDY: &str =
    "write \"off\", \"shadow\", \"enforce\", {\"shadow\": \"10%\"} or {\"enforce\": \"10%\"}";

pub(super) fn rollout(at: &At<'_, '_>) -> Option<Rollout> {
    if at.is_text() {
        return mode(at).map(Rollout::whole);
    }
    if at.is_bool() {
        at.is_no("mode", "write \"off\" in quotes: YAML takes a bare off for false");
        return None;
    }
    let table = at.table(shapes::ROLLOUT.known, REMEDY)?;
    match (table.get("shadow"), table.get("enforce")) {
        (Some(at), None) => share_bp(&at).map(|share_bp| Rollout { mode: Mode::Shadow, share_bp }),
        (None, Some(at)) => share_bp(&at).map(|share_bp| Rollout { mode: Mode::Enforce, share_bp }),
        _ => {
            at.wrong("not exactly one share", REMEDY);
            None
        }
    }
}

fn mode(at: &At<'_, '_>) -> Option<Mode> {
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
fn share_bp(at: &At<'_, '_>) -> Option<u16> {
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
