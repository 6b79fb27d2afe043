//! Owns what a circuit breaker says of answers: those of its upstream that fail or say nothing, and the one
//! that a refused request gets.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::super::answers::content_type;
use super::super::cost::header_name;
use super::super::reader::{At, Table};
use super::super::shapes;
use super::Fallback;
use crate::breaker::outcome::{Rules, Statuses};

const BODY_LEN_MAX: usize = 16 * 1024;

/// What `failures` and `ignored` say.
pub(super) fn rules(table: &Table<'_, '_>) -> Option<Rules> {
    let usual = Rules::default();
    let failures = says(table, "failures", usual.failures);
    let ignored = says(table, "ignored", usual.ignored);
    Some(Rules { failures: failures?, ignored: ignored? })
}

fn says(table: &Table<'_, '_>, name: &str, usual: Statuses) -> Option<Statuses> {
    const REMEDY: &str = "write {\"statuses\": [\"5xx\"], \"grpc\": [14]}";
    const LIST: &str = "write a list such as [\"5xx\", \"404\"]";
    let Some(at) = table.get(name) else { return Some(usual) };
    let table = at.table(shapes::SAYS.known, REMEDY)?;
    let http = match table.get("statuses") {
        None => Some(usual),
        Some(at) => few(&at, 32, LIST).and_then(|items| {
            let read: Vec<_> = items.iter().map(range).collect();
            let ranges: Option<Vec<_>> = read.into_iter().collect();
            Some(usual.with_http(ranges?))
        }),
    };
    let grpc = match table.get("grpc") {
        None => Some(None),
        Some(at) => few(&at, 16, "write a list of gRPC statuses such as [14]").and_then(|items| {
            let read: Vec<_> = items.iter().map(|item| item.whole(1, 16)).collect();
            let codes: Option<Vec<_>> = read.into_iter().collect();
            Some(Some(codes?.into_iter().filter_map(|code| u8::try_from(code).ok())))
        }),
    };
    let (http, grpc) = (http?, grpc?);
    Some(match grpc {
        None => http,
        Some(codes) => http.with_grpc(codes),
    })
}

fn few<'r, 'd>(at: &At<'r, 'd>, max: usize, remedy: &str) -> Option<Vec<At<'r, 'd>>> {
    let items = at.list(remedy)?;
    if items.len() > max {
        at.wrong(format!("{} statuses", items.len()), format!("keep it to {max}"));
        return None;
    }
    Some(items)
}

/// `503`, `500-504` or `5xx`.
fn range(at: &At<'_, '_>) -> Option<RangeInclusive<u16>> {
    const REMEDY: &str = "write \"503\", \"500-504\" or \"5xx\", in quotes, from 100 to 599";
    let text = at.text(REMEDY)?;
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse::<u16>().ok()).flatten();
        number.filter(|number| (100..=599).contains(number))
    };
    let range = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(hundred), _) => {
            status(&format!("{hundred}00")).map(|first| first..=first.saturating_add(99))
        }
        (None, Some((first, last))) => {
            let ends = status(first).zip(status(last)).filter(|(first, last)| first <= last);
            ends.map(|(first, last)| first..=last)
        }
        (None, None) => status(text).map(|only| only..=only),
    };
    if range.is_none() {
        at.is_no("status", REMEDY);
    }
    range
}

/// What `fallback` says; `None` inside if nothing.
pub(super) fn fallback(table: &Table<'_, '_>) -> Option<Option<Fallback>> {
    const REMEDY: &str = "write {\"answer\": {\"body\": \"[]\", \"content_type\": \"application/json\"}} or {\"header\": {\"name\": \"x-upstream\", \"value\": \"standby\"}}";
    let Some(at) = table.get("fallback") else { return Some(None) };
    let table = at.table(shapes::FALLBACK.known, REMEDY)?;
    match (table.get("answer"), table.get("header")) {
        (Some(at), None) => answer(&at).map(Some),
        (None, Some(at)) => header(&at).map(Some),
        (Some(_), Some(_)) => {
            at.wrong("both answer and header", "keep one of them");
            None
        }
        (None, None) => {
            at.wrong("neither answer nor header", REMEDY);
            None
        }
    }
}

fn answer(at: &At<'_, '_>) -> Option<Fallback> {
    let table = at.table(shapes::STATIC_ANSWER.known, "write {\"body\": \"[]\"}")?;
    let status = match table.get("status") {
        None => Some(200),
        Some(at) => at.whole(200, 599).and_then(|status| u16::try_from(status).ok()),
    };
    let kind = match table.get("content_type") {
        None => Some("text/plain; charset=utf-8".to_owned()),
        Some(at) => content_type(&at),
    };
    let body = match table.get("body") {
        None => Some(""),
        Some(at) => at.text("write the text of the answer").filter(|body| {
            let fits = body.len() <= BODY_LEN_MAX;
            if !fits {
                let remedy = format!("keep it to {BODY_LEN_MAX} bytes");
                at.wrong(format!("a body of {} bytes", body.len()), remedy);
            }
            fits
        }),
    };
    Some(Fallback::Answer { status: status?, content_type: kind?, body: body?.to_owned() })
}

fn header(at: &At<'_, '_>) -> Option<Fallback> {
    const REMEDY: &str = "write {\"name\": \"x-upstream\", \"value\": \"standby\"}";
    /// What Envoy, or the way of a message, depends on.
    const TAKEN: [&str; 8] = [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "upgrade",
        "content-type",
        "x-request-id",
    ];
    let table = at.table(shapes::HEADER_FIELD.known, REMEDY)?;
    let name = table.must("name", REMEDY).and_then(|at| {
        let name = header_name(&at)?;
        if TAKEN.contains(&name.as_str()) || name.starts_with("x-envoy-") {
            at.wrong(format!("{name:?} has a meaning of its own"), REMEDY);
            return None;
        }
        Some(name)
    });
    let value = table.must("value", REMEDY).and_then(|at| {
        let text = at.text(REMEDY)?;
        let sound = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !sound {
            at.is_no("value", "write 1 to 128 visible ASCII characters");
        }
        sound.then(|| text.to_owned())
    });
    Some(Fallback::Header { name: name?, value: value? })
}
