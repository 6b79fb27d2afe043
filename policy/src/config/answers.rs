//! Owns the fields that say what clients get to see: `problems`, `rate_limit_fields`, `denied`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::read::truth;
use super::reader::{At, Table};
use super::shapes;
use super::suggest::nearest;
use crate::answers::{Answers, Denied, Problems, STATUSES, Wording};
use crate::fields::Dialect;
use crate::reason::Reason;
use crate::template::{BadTemplate, Escape, Template, Values, variables};
use crate::wire::DecisionId;

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
        Some(at) => truth(&at),
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

pub(super) fn denied(at: &At<'_, '_>) -> Option<Denied> {
    const REMEDY: &str =
        "write {\"content_type\": \"text/plain\", \"body\": \"come back in {{retry_after}} s\"}";
    const CONTENT_TYPE_DEFAULT: &str = "text/plain; charset=utf-8";
    let table = at.table(shapes::DENIED.known, REMEDY)?;
    let content_type = match table.get("content_type") {
        None => Some(CONTENT_TYPE_DEFAULT.to_owned()),
        Some(at) => content_type(&at),
    };
    let statuses = match table.get("status") {
        None => Some(Vec::new()),
        Some(at) => statuses(&at),
    };
    let wording = match table.get("body") {
        None => {
            if table.get("content_type").is_some() || table.get("status").is_none() {
                at.doubt("without a body the usual problem document is sent", REMEDY);
            }
            Some(None)
        }
        Some(at) => {
            let content_type = content_type.clone()?;
            body(&at, &content_type).map(|body| Some(Wording { content_type, body }))
        }
    };
    content_type?;
    Some(Denied { wording: wording?, statuses: statuses? })
}

pub(super) fn content_type(at: &At<'_, '_>) -> Option<String> {
    const REMEDY: &str =
        "write a media type such as \"application/json\" or \"text/html; charset=utf-8\"";
    const LEN_MAX: usize = 128;
    let text = at.text(REMEDY)?;
    let token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let sound = text.len() <= LEN_MAX
        && text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && essence.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub));
    if !sound {
        at.is_no("content type", REMEDY);
    }
    sound.then(|| text.to_owned())
}

/// A body that is JSON by its type has to be JSON with whatever its variables stand for.
fn body(at: &At<'_, '_>, content_type: &str) -> Option<Template> {
    const REMEDY: &str = "write the text of the answer";
    const BODY_BYTES_MAX: usize = 16 * 1024;
    let text = at.text(REMEDY)?;
    if text.trim().is_empty() || text.len() > BODY_BYTES_MAX {
        let remedy = format!("{REMEDY}, at most {BODY_BYTES_MAX} bytes");
        at.wrong(format!("a body of {} bytes, blanks left aside", text.trim().len()), remedy);
        return None;
    }
    let escape = Escape::of(&content_type.to_ascii_lowercase());
    let template = match Template::parse(text, escape) {
        Ok(template) => template,
        Err(BadTemplate::Unclosed) => {
            at.wrong("\"{{\" is not closed", "write {{reason}}, or leave the braces out");
            return None;
        }
        Err(BadTemplate::Unknown(name)) => {
            let known = variables();
            let remedy = match nearest(&name, &known) {
                Some(word) => format!("did you mean {{{{{word}}}}}?"),
                None => format!("known are {}", known.join(", ")),
            };
            at.wrong(format!("{{{{{name}}}}} stands for nothing"), remedy);
            return None;
        }
    };
    for retry_after_s in [Some(1), None] {
        let violated = ["policy.limit".to_string()];
        let values = Values {
            reason: Reason::QuotaExceeded,
            retry_after_s,
            policy: "policy",
            violated: &violated,
            id: DecisionId::new(0),
            status: 429,
        };
        let filled = template.fill(&values);
        if escape == Escape::Json
            && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&filled)
        {
            at.wrong(
                format!("{content_type}, but the body is no JSON once it is filled in: {error}"),
                format!("it would be {filled}"),
            );
            return None;
        }
    }
    Some(template)
}

fn statuses(at: &At<'_, '_>) -> Option<Vec<(Reason, u16)>> {
    let table = at.table(shapes::STATUS.known, "write {\"service-overloaded\": 503}")?;
    let mut statuses = Vec::new();
    let mut sound = true;
    for (reason, allowed) in STATUSES {
        let Some(at) = table.get(reason.as_str()) else { continue };
        let (Some(least), Some(most)) = (allowed.iter().min(), allowed.iter().max()) else {
            continue;
        };
        let status = at.whole((*least).into(), (*most).into());
        match allowed.iter().position(|allowed| status == Some(u32::from(*allowed))) {
            Some(0) => {}
            Some(place) => statuses.extend(allowed.get(place).map(|status| (reason, *status))),
            None => {
                if status.is_some() {
                    let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                    at.is_no("status of this denial", format!("write {}", allowed.join(" or ")));
                }
                sound = false;
            }
        }
    }
    sound.then_some(statuses)
}

#[cfg(test)]
mod tests;
