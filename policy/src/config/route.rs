//! Owns the fields of `match.route`.

use alloc::format;

use super::matcher::want;
use super::reader::At;
use super::shapes;
use crate::matching::RouteMatch;

/// Conditions on one route.
const CONDITIONS_MAX: usize = 16;
const NAME_LEN_MAX: usize = 128;

pub(super) fn route(at: &At<'_, '_>) -> Option<RouteMatch> {
    const REMEDY: &str =
        "write {\"name\": \"orders\"} or {\"metadata\": {\"tidegate\": {\"tier\": \"gold\"}}}";
    let table = at.table(shapes::ROUTE.known, REMEDY)?;
    let mut route = RouteMatch::default();
    let mut sound = true;
    let mut count: usize = 0;
    if let Some(at) = table.get("name") {
        count = 1;
        match want(&at) {
            Some(want) => route.name(want),
            None => sound = false,
        }
    }
    if let Some(at) = table.get("metadata") {
        for (namespace, at) in at.entries(REMEDY)? {
            for (key, at) in at.entries(REMEDY)? {
                count = count.saturating_add(1);
                match want(&at).filter(|_| named(&at, namespace) && named(&at, key)) {
                    Some(want) => route.metadata(namespace, key, want),
                    None => sound = false,
                }
            }
        }
    }
    if count == 0 || count > CONDITIONS_MAX {
        at.wrong(
            format!("{count} conditions"),
            format!("write 1 to {CONDITIONS_MAX}, or leave route out"),
        );
        return None;
    }
    sound.then_some(route)
}

/// A NUL would name another property than the one that is written.
fn named(at: &At<'_, '_>, name: &str) -> bool {
    let sound = (1..=NAME_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if !sound {
        at.wrong(
            format!("{name:?} is no name in metadata"),
            format!("write 1 to {NAME_LEN_MAX} bytes without control characters"),
        );
    }
    sound
}
