//! Owns the fields that say what clients get to see: `problems`, `rate_limit_fields`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use super::reader::{At, Table};
use super::shapes;
use super::suggest::nearest;
use crate::answers::{Answers, Problems};
use crate::fields::Dialect;

pub(super) fn answers(table: &Table<'_, '_>) -> Option<Answers> {
    let problems = match table.get("problems") {
        None => Some(Problems::default()),
        Some(at) => problems(&at),
    };
    let rate_limit_fields = match table.get("rate_limit_fields") {
        None => Some(Dialect::default()),
        Some(at) => dialect(&at),
    };
    Some(Answers { problems: problems?, rate_limit_fields: rate_limit_fields? })
}

fn problems(at: &At<'_, '_>) -> Option<Problems> {
    const REMEDY: &str =
        "write {\"base\": \"https://api.example.com/problems/\"} or {\"registered\": true}";
    let table = at.table(shapes::PROBLEMS.known, REMEDY)?;
    let base = match table.get("base") {
        None => Some(Problems::default().base),
        Some(at) => base(&at),
    };
    let registered = match table.get("registered") {
        None => Some(false),
        Some(at) if at.is_bool() => Some(at.is_true()),
        Some(at) => {
            at.is_no("truth value", "write true or false");
            None
        }
    };
    Some(Problems { base: base?, registered: registered? })
}

fn base(at: &At<'_, '_>) -> Option<String> {
    const REMEDY: &str = "write an absolute URI such as \"https://api.example.com/problems/\"";
    const BASE_LEN_MAX: usize = 512;
    let text = at.text(REMEDY)?;
    let is_absolute = ["https://", "http://", "urn:", "tag:"]
        .iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    let sound = is_absolute
        && text.len() <= BASE_LEN_MAX
        && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\'));
    if !sound {
        at.is_no("base of problem types", REMEDY);
        return None;
    }
    if !text.ends_with(['/', '#', ':', '=']) {
        at.wrong(
            format!("a reason follows the base, so that types would begin {text}quota-exceeded"),
            format!("end it in / or #: {:?}", format!("{text}/")),
        );
        return None;
    }
    Some(text.to_owned())
}

fn dialect(at: &At<'_, '_>) -> Option<Dialect> {
    const REMEDY: &str = "write \"off\", \"x-draft-03\" or \"draft-10\"";
    if at.is_bool() {
        at.is_no("dialect", "write \"off\" in quotes: YAML takes a bare off for false");
        return None;
    }
    match at.text(REMEDY)? {
        "off" => Some(Dialect::Off),
        "x-draft-03" => Some(Dialect::XDraft03),
        "draft-10" => Some(Dialect::Draft10),
        other => {
            let remedy = match nearest(other, &["off", "x-draft-03", "draft-10"]) {
                Some(word) => format!("did you mean {word:?}?"),
                None => REMEDY.to_owned(),
            };
            at.is_no("dialect", remedy);
            None
        }
    }
}
