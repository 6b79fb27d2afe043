//! Owns the bodies that authors word themselves: text with a short list of variables, taken apart
//! once and filled in per denial. Knows no request, so that nothing of one can get into a body.

use alloc::string::String;
use alloc::vec::Vec;

use crate::reason::Reason;
use crate::wire::DecisionId;

/// A body, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    escape: Escape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// What may stand between `{{` and `}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Reason,
    RetryAfter,
    Policy,
    Limit,
    DecisionId,
    Status,
}

/// How a value is written, so that it stays a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// As it is.
    Plain,
    /// Within a JSON string; a time that there is not is `null`.
    Json,
    /// Within HTML or XML.
    Markup,
}

/// What variables stand for in one denial.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// Why.
    pub reason: Reason,
    /// `Retry-After`, in s.
    pub retry_after_s: Option<u64>,
    /// The policy whose wording it is.
    pub policy: &'a str,
    /// What denies: `policy.limit`, or the policy.
    pub violated: &'a [String],
    /// The decision.
    pub id: DecisionId,
    /// The HTTP status.
    pub status: u16,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadTemplate {
    /// `{{` without `}}`.
    Unclosed,
    /// A name that stands for nothing.
    Unknown(String),
}

impl Variable {
    const ALL: [(&'static str, Self); 6] = [
        ("reason", Self::Reason),
        ("retry_after", Self::RetryAfter),
        ("policy", Self::Policy),
        ("limit", Self::Limit),
        ("decision_id", Self::DecisionId),
        ("status", Self::Status),
    ];
}

/// The names of all variables.
pub fn variables() -> [&'static str; 6] {
    Variable::ALL.map(|(name, _)| name)
}

// === impl Escape ===

impl Escape {
    /// The escaping that a content type asks for.
    pub fn of(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is =
            |suffix: &str, exact: &[&str]| essence.ends_with(suffix) || exact.contains(&essence);
        if is("+json", &["application/json", "text/json"]) {
            Self::Json
        } else if is("+xml", &["text/html", "text/xml", "application/xml"]) {
            Self::Markup
        } else {
            Self::Plain
        }
    }

    fn push(self, body: &mut String, text: &str) {
        for c in text.chars() {
            match (self, c) {
                (Self::Json, '"' | '\\') => body.extend(['\\', c]),
                (Self::Markup, '&') => body.push_str("&amp;"),
                (Self::Markup, '<') => body.push_str("&lt;"),
                (Self::Markup, '>') => body.push_str("&gt;"),
                (Self::Markup, '"') => body.push_str("&quot;"),
                (Self::Markup, '\'') => body.push_str("&#39;"),
                // No value has any; a string of JSON may not have them at all.
                (_, c) if c.is_control() => {}
                (_, c) => body.push(c),
            }
        }
    }
}

// === impl Template ===

impl Template {
    /// Takes a text apart.
    pub fn parse(text: &str, escape: Escape) -> Result<Self, BadTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or(BadTemplate::Unclosed)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let name = name.trim();
            let known = Variable::ALL.iter().find(|(known, _)| *known == name);
            let (_, variable) = known.ok_or_else(|| BadTemplate::Unknown(name.into()))?;
            parts.push(Part::Variable(*variable));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { parts, escape })
    }

    /// The body of one denial.
    pub fn fill(&self, values: &Values<'_>) -> String {
        let mut body = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => body.push_str(text),
                Part::Variable(variable) => self.value(*variable, values, &mut body),
            }
        }
        body
    }

    fn value(&self, variable: Variable, values: &Values<'_>, body: &mut String) {
        let text = match variable {
            Variable::Reason => values.reason.as_str().into(),
            Variable::RetryAfter => match (values.retry_after_s, self.escape) {
                (Some(seconds), _) => alloc::format!("{seconds}"),
                (None, Escape::Json) => "null".into(),
                (None, Escape::Plain | Escape::Markup) => String::new(),
            },
            Variable::Policy => values.policy.into(),
            Variable::Limit => values.violated.join(", "),
            Variable::DecisionId => alloc::format!("{}", values.id),
            Variable::Status => alloc::format!("{}", values.status),
        };
        self.escape.push(body, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::borrow::ToOwned;
    use std::string::ToString;
    use std::vec;

    fn values(violated: &[String]) -> Values<'_> {
        Values {
            reason: Reason::QuotaExceeded,
            retry_after_s: Some(12),
            policy: "api",
            violated,
            id: DecisionId::new(7),
            status: 429,
        }
    }

    #[test]
    fn every_variable_stands_for_its_value() {
        let violated = ["api.a".to_owned(), "api.b".to_owned()];
        let text = "{{reason}}|{{ retry_after }}|{{policy}}|{{limit}}|{{decision_id}}|{{status}}}}";
        let template = Template::parse(text, Escape::Plain).expect("sound");
        assert_eq!(
            template.fill(&values(&violated)),
            "quota-exceeded|12|api|api.a, api.b|00000000-0000-8000-8000-000000000007|429}}"
        );
        assert_eq!(Template::parse("", Escape::Plain).expect("sound").fill(&values(&[])), "");
    }

    #[test]
    fn a_time_that_there_is_not_is_nothing_or_null() {
        let never = Values { retry_after_s: None, ..values(&[]) };
        for (escape, expected) in
            [(Escape::Plain, ""), (Escape::Markup, ""), (Escape::Json, "null")]
        {
            let template = Template::parse("{{retry_after}}", escape).expect("sound");
            assert_eq!(template.fill(&never), expected);
        }
    }

    #[test]
    fn what_is_no_variable_is_named() {
        for (text, bad) in [
            ("{{resaon}}", BadTemplate::Unknown("resaon".to_string())),
            ("{{}}", BadTemplate::Unknown(String::new())),
            ("a {{reason", BadTemplate::Unclosed),
            ("{{a{{reason}}", BadTemplate::Unknown("a{{reason".to_string())),
        ] {
            assert_eq!(Template::parse(text, Escape::Plain), Err(bad), "{text}");
        }
    }

    #[test]
    fn the_content_type_chooses_the_escaping() {
        for (content_type, escape) in [
            ("application/json", Escape::Json),
            ("application/problem+json; charset=utf-8", Escape::Json),
            ("text/html;charset=utf-8", Escape::Markup),
            ("image/svg+xml", Escape::Markup),
            ("text/plain", Escape::Plain),
            ("", Escape::Plain),
        ] {
            assert_eq!(Escape::of(content_type), escape, "{content_type}");
        }
    }

    proptest! {
        /// Whatever a name held, it stays a value.
        #[test]
        fn no_value_leaves_its_place(name in any::<String>()) {
            let violated = vec![name.clone()];
            let fill = |text, escape| {
                Template::parse(text, escape).expect("sound").fill(&values(&violated))
            };
            let json = fill(r#"{"limit": "{{limit}}"}"#, Escape::Json);
            let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            let plain: String = name.chars().filter(|c| !c.is_control()).collect();
            prop_assert_eq!(&read["limit"], &plain);
            let markup = fill("<p>{{limit}}</p>", Escape::Markup);
            let inner = markup.strip_prefix("<p>").and_then(|m| m.strip_suffix("</p>")).expect("its own");
            prop_assert!(!inner.contains(['<', '>', '"', '\'']));
        }
    }
}
