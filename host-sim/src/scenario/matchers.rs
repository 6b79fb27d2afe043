//! What a value must be: texts, headers, bodies, numbers. It must not know whose value it is.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_json::Value;

use super::values::Bytes;
use crate::host::headers::HeaderMap;

/// What a text or a body must be. Written as plain text it must equal that.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextWants {
    equals: Option<Bytes>,
    contains: Option<Bytes>,
    lacks: Option<Bytes>,
    present: Option<bool>,
    absent: Option<bool>,
    /// JSON pointers and what stands there.
    #[serde(default)]
    json: BTreeMap<String, Value>,
}

/// [`TextWants`], which text alone abbreviates.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextMatcher(TextWants);

/// Bounds of a number; plain equality is `equals`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NumberMatcher {
    pub(crate) equals: Option<u64>,
    pub(crate) min: Option<u64>,
    pub(crate) max: Option<u64>,
}

/// One comparison, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) expected: String,
    pub(crate) seen: String,
    pub(crate) is_met: bool,
}

impl Compared {
    pub(crate) fn new(expected: impl fmt::Display, seen: impl fmt::Display, is_met: bool) -> Self {
        Self { expected: expected.to_string(), seen: seen.to_string(), is_met }
    }
}

impl TextMatcher {
    /// Every wish of this matcher against a value that may be missing.
    pub(crate) fn compare(&self, seen: Option<&[u8]>) -> Vec<Compared> {
        let wants = &self.0;
        let shown = seen.map_or_else(|| "absent".to_owned(), show);
        let has = |part: &Bytes| seen.is_some_and(|seen| contains(seen, &part.0));
        let mut all = Vec::new();
        let mut add = |expected: String, is_met: bool| {
            all.push(Compared { expected, seen: shown.clone(), is_met })
        };
        if let Some(text) = &wants.equals {
            add(show(&text.0), seen == Some(text.0.as_slice()));
        }
        if let Some(part) = &wants.contains {
            add(format!("contains {}", show(&part.0)), has(part));
        }
        if let Some(part) = &wants.lacks {
            add(format!("lacks {}", show(&part.0)), !has(part));
        }
        for is_present in [wants.present, wants.absent.map(|absent| !absent)].into_iter().flatten()
        {
            add(
                (if is_present { "present" } else { "absent" }).to_owned(),
                seen.is_some() == is_present,
            );
        }
        if !wants.json.is_empty() {
            all.extend(compare_json(&wants.json, seen.unwrap_or_default()));
        }
        all
    }
}

fn compare_json(wants: &BTreeMap<String, Value>, seen: &[u8]) -> Vec<Compared> {
    let document = serde_json::Deserializer::from_slice(seen).into_iter::<Value>().next();
    let Some(Ok(document)) = document else {
        return vec![Compared::new("a JSON document", show(seen), false)];
    };
    wants
        .iter()
        .map(|(pointer, wanted)| {
            let found = document.pointer(pointer);
            let shown = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
            Compared::new(format!("{pointer} is {wanted}"), shown, found == Some(wanted))
        })
        .collect()
}

impl NumberMatcher {
    pub(crate) fn is_empty(self) -> bool {
        self.equals.is_none() && self.min.is_none() && self.max.is_none()
    }

    pub(crate) fn compare(self, seen: u64) -> Compared {
        let is_met = self.equals.is_none_or(|equals| seen == equals)
            && self.min.is_none_or(|min| seen >= min)
            && self.max.is_none_or(|max| seen <= max);
        Compared::new(self, seen, is_met)
    }
}

impl fmt::Display for NumberMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = [("", self.equals), ("at least ", self.min), ("at most ", self.max)];
        let words: Vec<_> = bounds
            .iter()
            .filter_map(|(word, bound)| bound.map(|bound| format!("{word}{bound}")))
            .collect();
        f.write_str(&words.join(", "))
    }
}

/// Every wished header of a map.
pub(crate) fn compare_headers(
    wants: &BTreeMap<String, TextMatcher>,
    seen: &HeaderMap,
) -> Vec<(String, Compared)> {
    let mut all = Vec::new();
    for (name, matcher) in wants {
        // A list of values reads like one line, as in HTTP itself.
        let values: Vec<_> = seen.all(name).collect();
        let joined = values.join(b", ".as_slice());
        let seen = (!values.is_empty()).then_some(joined.as_slice());
        all.extend(matcher.compare(seen).into_iter().map(|compared| (name.clone(), compared)));
    }
    all
}

/// Bytes for people: text where they are text, cut where they are long.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 400;
    let text = String::from_utf8_lossy(bytes);
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    let more = if cut.len() < text.len() {
        format!(" ... ({} bytes)", bytes.len())
    } else {
        String::new()
    };
    format!("{cut:?}{more}")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

struct MatcherVisitor;

impl<'de> Visitor<'de> for MatcherVisitor {
    type Value = TextMatcher;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or {equals, contains, lacks, present, absent, json}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TextMatcher, E> {
        Ok(TextMatcher(TextWants {
            equals: Some(Bytes(text.as_bytes().to_vec())),
            ..TextWants::default()
        }))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<TextMatcher, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<TextMatcher, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<TextMatcher, E> {
        self.visit_str(&truth.to_string())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextMatcher, A::Error> {
        TextWants::deserialize(MapAccessDeserializer::new(map)).map(TextMatcher)
    }
}

impl<'de> Deserialize<'de> for TextMatcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MatcherVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(matcher: &str, seen: Option<&str>) -> bool {
        let matcher: TextMatcher = serde_saphyr::from_str(matcher).unwrap();
        let all = matcher.compare(seen.map(str::as_bytes));
        assert!(!all.is_empty());
        all.iter().all(|compared| compared.is_met)
    }

    #[test]
    fn texts_are_compared_as_written() {
        let rows = [
            ("abc", Some("abc"), true),
            ("abc", Some("abcd"), false),
            ("5", Some("5"), true),
            ("true", None, false),
            ("{contains: b}", Some("abc"), true),
            ("{contains: x}", Some("abc"), false),
            ("{lacks: x}", Some("abc"), true),
            ("{lacks: b}", Some("abc"), false),
            ("{present: true}", None, false),
            ("{absent: true}", None, true),
            ("{absent: true}", Some(""), false),
            ("{json: {/a/0: 1}}", Some("{\"a\":[1]}"), true),
            ("{json: {/a/0: 2}}", Some("{\"a\":[1]}"), false),
            ("{json: {/a: 1}}", Some("no json"), false),
        ];
        for (matcher, seen, expected) in rows {
            assert_eq!(met(matcher, seen), expected, "{matcher} {seen:?}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        let both = NumberMatcher { equals: None, min: Some(2), max: Some(3) };
        assert!(!both.compare(1).is_met && both.compare(2).is_met && !both.compare(4).is_met);
        assert_eq!(both.compare(4), Compared::new("at least 2, at most 3", 4, false));
    }
}
