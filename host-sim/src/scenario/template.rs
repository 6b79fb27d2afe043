//! Answers that repeat a piece of their request: `{{request.json./id}}` and its like. It must not know rules or networks.

use crate::host::service::ServiceRequest;

/// A text with placeholders, checked once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    /// A JSON pointer into the request's body: text without its quotes, anything else as JSON.
    Json(String),
    Header(String),
    Method,
    Path,
    Body,
    NowUnixMs,
}

impl Template {
    /// An unknown placeholder is an error that lists the known ones.
    pub(crate) fn parse(source: &[u8]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some(start) = find(rest, b"{{") {
            let (literal, opened) = rest.split_at(start);
            let inner = opened.get(2..).unwrap_or_default();
            let Some(end) = find(inner, b"}}") else {
                break;
            };
            let (name, closed) = inner.split_at(end);
            parts.push(Part::Literal(literal.to_vec()));
            parts.push(placeholder(String::from_utf8_lossy(name).trim())?);
            rest = closed.get(2..).unwrap_or_default();
        }
        parts.push(Part::Literal(rest.to_vec()));
        Ok(Self { parts })
    }

    pub(crate) fn render(&self, now_unix_ns: u64, request: &ServiceRequest) -> Vec<u8> {
        self.parts.iter().flat_map(|part| part.render(now_unix_ns, request)).collect()
    }
}

impl Part {
    fn render(&self, now_unix_ns: u64, request: &ServiceRequest) -> Vec<u8> {
        match self {
            Self::Literal(bytes) => bytes.clone(),
            Self::Json(pointer) => json_piece(&request.body, pointer),
            Self::Header(name) => {
                request.headers.first(name.as_bytes()).unwrap_or_default().to_vec()
            }
            Self::Method => request.method().into_bytes(),
            Self::Path => request.path().into_bytes(),
            Self::Body => request.body.clone(),
            Self::NowUnixMs => (now_unix_ns / 1_000_000).to_string().into_bytes(),
        }
    }
}

fn placeholder(name: &str) -> Result<Part, String> {
    if let Some(pointer) = name.strip_prefix("request.json.") {
        return Ok(Part::Json(pointer.to_owned()));
    }
    if let Some(header) = name.strip_prefix("request.header.") {
        return Ok(Part::Header(header.to_owned()));
    }
    Ok(match name {
        "request.method" => Part::Method,
        "request.path" => Part::Path,
        "request.body" => Part::Body,
        "now_unix_ms" => Part::NowUnixMs,
        _ => {
            return Err(format!(
                "{{{{{name}}}}} is no placeholder; known are request.json./POINTER, request.header.NAME, request.method, \
                 request.path, request.body, now_unix_ms"
            ));
        }
    })
}

/// The first JSON document of a body: what follows it may be anything. A missing piece is empty, as a scripted answer
/// has nobody to complain to.
fn json_piece(body: &[u8], pointer: &str) -> Vec<u8> {
    let document =
        serde_json::Deserializer::from_slice(body).into_iter::<serde_json::Value>().next();
    let Some(Ok(document)) = document else {
        return Vec::new();
    };
    match document.pointer(pointer) {
        None => Vec::new(),
        Some(serde_json::Value::String(text)) => {
            let quoted = serde_json::Value::String(text.clone()).to_string();
            quoted.trim_matches('"').as_bytes().to_vec()
        }
        Some(other) => other.to_string().into_bytes(),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::headers::HeaderMap;

    fn rendered(source: &str) -> String {
        let mut headers = HeaderMap::default();
        headers.add(b":path", "/v1/decide");
        headers.add(b"x-id", "7");
        let body = br#"{"id":"a\"b","limits":[{"n":5}]}tail"#.to_vec();
        let request = ServiceRequest { headers, body, ..ServiceRequest::default() };
        String::from_utf8(
            Template::parse(source.as_bytes()).unwrap().render(1_500_000_000, &request),
        )
        .unwrap()
    }

    #[test]
    fn placeholders_take_pieces_of_the_request() {
        assert_eq!(rendered(r#"{"id":"{{request.json./id}}"}"#), r#"{"id":"a\"b"}"#);
        assert_eq!(
            rendered("{{request.json./limits/0/n}} {{ request.json./limits }}"),
            r#"5 [{"n":5}]"#
        );
        assert_eq!(
            rendered(
                "{{request.json./none}}{{request.header.x-id}}{{request.path}} {{now_unix_ms}}"
            ),
            "7/v1/decide 1500"
        );
        assert_eq!(rendered("no {{end"), "no {{end");
    }

    #[test]
    fn an_unknown_placeholder_names_the_known() {
        let error = Template::parse(b"{{request.jsn./id}}").unwrap_err();
        assert!(
            error.contains("request.jsn./id") && error.contains("request.json./POINTER"),
            "{error}"
        );
    }
}
