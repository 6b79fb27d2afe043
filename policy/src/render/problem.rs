//! Owns the problem document (RFC 9457) of a denial, to the letter. Written by hand: nearly all of it is text that is
//! known before, and a serialiser takes ten times as long for each of the denials of a flood.

use alloc::string::String;

use super::{Look, OVERLOADED};
use crate::answers::Problems;
use crate::digits::push_number;
use crate::exchange::Denial;
use crate::octets::Octets;
use crate::reason::Reason;

/// About what a document takes, in bytes.
const LEN: usize = 256;

/// The document.
pub(super) fn problem(problems: Option<&Problems>, denial: &Denial, look: &Look) -> String {
    let mut text = String::with_capacity(LEN);
    let reason = denial.reason;
    text.push_str("{\"type\":");
    match problems {
        Some(problems) => push_joined(&mut text, problems.base_of(reason), reason.as_str()),
        None => push_joined(&mut text, Problems::default().base_of(reason), reason.as_str()),
    }
    text.push_str(",\"title\":\"");
    text.push_str(look.title);
    text.push_str("\",\"status\":");
    push_number(&mut text, look.status.into());
    text.push_str(",\"instance\":\"urn:uuid:");
    denial.id.push_to(&mut text);
    text.push_str("\",\"violated-policies\":[");
    for (place, name) in denial.violated.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        push_joined(&mut text, name, "");
    }
    text.push(']');
    if let Some(detail) = &denial.detail {
        text.push_str(",\"detail\":");
        push_joined(&mut text, detail, "");
    }
    if let Some(status) = denial.stored_status {
        text.push_str(",\"stored-status\":");
        push_number(&mut text, status.into());
    }
    if reason == Reason::ServiceOverloaded {
        text.push_str(",\"error\":\"service_overloaded\",\"message\":\"");
        text.push_str(OVERLOADED);
        text.push('"');
    }
    text.push('}');
    text
}

/// Two texts as one string of JSON.
fn push_joined(text: &mut String, first: &str, second: &str) {
    text.push('"');
    for part in [first, second] {
        if part.bytes().all(|octet| PLAIN.has(octet)) {
            text.push_str(part);
            continue;
        }
        // A string always serialises.
        let quoted = serde_json::to_string(part).unwrap_or_default();
        let bare = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        text.push_str(bare.unwrap_or_default());
    }
    text.push('"');
}

/// What stands for itself in a string of JSON.
static PLAIN: Octets = Octets::of(&[(b' ', b'!'), (b'#', b'['), (b']', b'~')]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DecisionId;
    use proptest::prelude::*;
    use serde::Serialize;
    use std::string::ToString;
    use std::vec::Vec;

    #[derive(Serialize)]
    struct Problem<'a> {
        r#type: String,
        title: &'a str,
        status: u16,
        instance: String,
        #[serde(rename = "violated-policies")]
        violated_policies: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
        #[serde(rename = "stored-status", skip_serializing_if = "Option::is_none")]
        stored_status: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    }

    proptest! {
        /// To the byte what a serialiser makes of it, whatever the names and the base hold.
        #[test]
        fn a_problem_is_written_as_a_serialiser_writes_it(
            reason in prop::sample::select(Reason::ALL),
            violated in prop::collection::vec(prop_oneof!["[a-z._-]{0,9}", any::<String>()], 0..4),
            detail in prop::option::of(any::<String>()),
            base in prop_oneof!["https://[a-z/#]{0,9}", any::<String>()],
            (registered, stored_status) in (any::<bool>(), any::<Option<u16>>()),
            id: u128,
        ) {
            let problems = Problems { base, registered };
            let denial = Denial {
                reason,
                id: DecisionId::new(id),
                violated,
                retry_after_s: None,
                fields: Vec::new(),
                grpc: false,
                worded_by: None,
                detail,
                stored_status,
                fallback: None,
                is_paid: false,
            };
            let look = super::super::look(reason);
            let overload = reason == Reason::ServiceOverloaded;
            let expected = serde_json::to_string(&Problem {
                r#type: [problems.base_of(reason), reason.as_str()].concat(),
                title: look.title,
                status: look.status,
                instance: ["urn:uuid:", &denial.id.to_string()].concat(),
                violated_policies: &denial.violated,
                detail: denial.detail.as_deref(),
                stored_status: denial.stored_status,
                error: overload.then_some("service_overloaded"),
                message: overload.then_some(OVERLOADED),
            });
            prop_assert_eq!(Some(problem(Some(&problems), &denial, &look)), expected.ok());
        }
    }
}
