//! Rules of a scripted service, as written: which request, what answer. It must not count or answer.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::units::Span;
use super::values::{Bytes, Headers};
use crate::host::service::{Fault, ServiceRequest};

/// One rule; the first that fits and is not used up answers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    /// `POST /v1/decide`, `/any-method`, `GET /prefix*`; without it, every request.
    pub(crate) on: Option<Pattern>,
    pub(crate) cluster: Option<String>,
    pub(crate) answer: Option<RawAnswer>,
    pub(crate) fault: Option<Fault>,
    #[serde(default)]
    pub(crate) after: Span,
    /// Answers when the request's headers are there, not when all of it is.
    #[serde(default)]
    pub(crate) early: bool,
    /// How often the rule answers; without it, always.
    pub(crate) times: Option<u32>,
    /// How often Envoy has sent the request by then: 1, or more where its retry policy tried again.
    pub(crate) tries: Option<u64>,
}

/// A status alone, or a whole answer.
#[derive(Debug, Clone)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) chunks: Vec<RawChunk>,
    pub(crate) trailers: Option<Headers>,
}

/// A later piece of a body.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawChunk {
    /// After the headers.
    #[serde(default)]
    pub(crate) after: Span,
    pub(crate) data: Bytes,
}

/// A method and a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    method: Option<String>,
    path: String,
    is_prefix: bool,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let (method, path) = text.trim().rsplit_once(' ').unwrap_or(("*", text.trim()));
        let is_wild = method == "*";
        let is_method = method.chars().all(|c| c.is_ascii_uppercase() || c == '-');
        if !(is_wild || is_method) || path.is_empty() {
            return Err(format!(
                "{text:?} is no request; write \"POST /v1/decide\", \"/path\" or \"GET /prefix*\""
            ));
        }
        let is_prefix = path.len() > 1 && path.ends_with('*');
        let path = path.strip_suffix('*').filter(|_| is_prefix).unwrap_or(path);
        Ok(Self {
            method: Some(method.to_owned()).filter(|_| !is_wild),
            path: path.to_owned(),
            is_prefix,
        })
    }

    /// The query counts only where the pattern has one.
    pub(crate) fn fits(&self, request: &ServiceRequest) -> bool {
        let path = request.path();
        let path = if self.path.contains('?') {
            path.as_str()
        } else {
            path.split('?').next().unwrap_or_default()
        };
        let path_fits =
            if self.is_prefix { path.starts_with(&self.path) } else { path == self.path };
        path_fits && self.method.as_ref().is_none_or(|method| *method == request.method())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        write!(f, "{}{}", self.path, if self.is_prefix { "*" } else { "" })
    }
}

struct PatternVisitor;

impl Visitor<'_> for PatternVisitor {
    type Value = Pattern;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request like \"POST /v1/decide\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Pattern, E> {
        Pattern::parse(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(PatternVisitor)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WholeAnswer {
    status: u16,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    body: Bytes,
    #[serde(default)]
    chunks: Vec<RawChunk>,
    trailers: Option<Headers>,
}

struct AnswerVisitor;

impl<'de> Visitor<'de> for AnswerVisitor {
    type Value = RawAnswer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status, or {status, headers, body, chunks, trailers}")
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<RawAnswer, E> {
        let status = u16::try_from(status)
            .map_err(|_too_large| E::custom(format!("{status} is no HTTP status")))?;
        let status = final_status(status).map_err(E::custom)?;
        Ok(RawAnswer {
            status,
            headers: Headers::default(),
            body: Bytes::default(),
            chunks: Vec::new(),
            trailers: None,
        })
    }

    fn visit_i64<E: de::Error>(self, status: i64) -> Result<RawAnswer, E> {
        self.visit_u64(status.unsigned_abs())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawAnswer, A::Error> {
        let WholeAnswer { status, headers, body, chunks, trailers } =
            WholeAnswer::deserialize(MapAccessDeserializer::new(map))?;
        let status = final_status(status).map_err(de::Error::custom)?;
        Ok(RawAnswer { status, headers, body, chunks, trailers })
    }
}

/// Envoy shows no filter of this kind an informational response, so it would be a scenario of nothing.
fn final_status(status: u16) -> Result<u16, String> {
    if (100..200).contains(&status) && status != 101 {
        return Err(format!(
            "{status} is an informational response, which no plugin gets to see; write the status of the response that follows it"
        ));
    }
    Ok(status)
}

impl<'de> Deserialize<'de> for RawAnswer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnswerVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::headers::HeaderMap;

    #[test]
    fn patterns_fit_by_method_path_prefix_and_query() {
        let request = |method: &str, path: &str| {
            let mut headers = HeaderMap::default();
            headers.add(b":method", method);
            headers.add(b":path", path);
            ServiceRequest { headers, ..ServiceRequest::default() }
        };
        let rows = [
            ("POST /a", "POST", "/a?x=1", true),
            ("POST /a", "GET", "/a", false),
            ("/a", "GET", "/a", true),
            ("* /a", "PUT", "/a", true),
            ("GET /a*", "GET", "/abc", true),
            ("GET /a", "GET", "/abc", false),
            ("GET /a?x=1", "GET", "/a?x=2", false),
            ("OPTIONS *", "OPTIONS", "*", true),
        ];
        for (pattern, method, path, expected) in rows {
            assert_eq!(
                Pattern::parse(pattern).unwrap().fits(&request(method, path)),
                expected,
                "{pattern} {method} {path}"
            );
        }
        assert!(Pattern::parse("post /a").is_err());
        assert!(Pattern::parse("").is_err());
    }

    #[test]
    fn an_answer_is_final() {
        for (text, is_final) in
            [("100", false), ("103", false), ("{status: 102}", false), ("101", true), ("200", true)]
        {
            let read = serde_saphyr::from_str::<RawAnswer>(text);
            assert_eq!(read.is_ok(), is_final, "{text}");
        }
    }
}
