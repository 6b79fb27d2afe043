//! A YAML or JSON file as a tree whose every value knows where it stands. It must not know what the values mean.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// A value and the bytes of the file it is written in.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Range<usize>,
}

/// A value. Numbers stay as they are written where JSON can say them so.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

/// A field's name and where it is written.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) span: Range<usize>,
}

/// A file that is no YAML.
#[derive(Debug)]
pub(crate) struct NoTree {
    pub(crate) problem: String,
    pub(crate) at: usize,
}

/// What a few characters of YAML may become by repetition.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 10_000,
            max_recorded_anchor_bytes: 16 * 1024 * 1024,
            max_total_scalar_bytes: 32 * 1024 * 1024,
        },
    }
}

/// Reads a file of one document.
pub(crate) fn parse(text: &str) -> Result<Node, NoTree> {
    let parsed: Result<Spanned<Raw>, _> = serde_saphyr::from_str_with_options(text, options());
    match parsed {
        Ok(raw) => Ok(node(raw, text)),
        Err(error) => {
            let error = error.without_snippet();
            let at =
                error.location().map_or(0, |place| start(&place).unwrap_or(offset(&place, text)));
            // The place is shown, so the words need not say it again.
            let problem = error.to_string();
            let problem = problem.split(" at line ").next().unwrap_or(&problem);
            let problem = match problem.strip_prefix("duplicate mapping key: ") {
                Some(rest) => format!(
                    "{} stands twice; keep one of them",
                    rest.split(',').next().unwrap_or(rest)
                ),
                None => problem.to_owned(),
            };
            Err(NoTree { problem, at: at.min(text.len()) })
        }
    }
}

fn start(place: &Location) -> Option<usize> {
    usize::try_from(place.span().byte_offset()?).ok()
}

/// By line and column, where the parser counts no bytes.
fn offset(place: &Location, text: &str) -> usize {
    let before = |count: u64| usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
    let lines = text.split_inclusive('\n');
    let start: usize = lines.clone().take(before(place.line())).map(str::len).sum();
    let line = text.get(start..).unwrap_or_default();
    start + line.chars().take(before(place.column())).map(char::len_utf8).sum::<usize>()
}

/// The bytes of the file that the parser means, without blanks around them.
fn span(place: &Location, text: &str) -> Range<usize> {
    let start = start(place).unwrap_or(0).min(text.len());
    let len = place.span().byte_len().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    let end = start.saturating_add(len).min(text.len());
    let own = text.get(start..end).unwrap_or_default();
    start..start + own.trim_end().len()
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let own = span(&raw.referenced, text);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(truth) => Value::Bool(truth),
        Raw::Number(number) => {
            let written = text.get(own.clone()).unwrap_or_default();
            let is_json = serde_json::from_str::<serde_json::Number>(written).is_ok();
            Value::Number(if is_json { written.to_owned() } else { number })
        }
        Raw::Text(text) => Value::Text(text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Table(fields) => {
            let key =
                |raw: Spanned<String>| Key { span: span(&raw.referenced, text), name: raw.value };
            let field = |(name, value)| (key(name), node(value, text));
            Value::Table(fields.into_iter().map(field).collect())
        }
    };
    Node { value, span: own }
}

enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Table(Vec<(Spanned<String>, Spanned<Raw>)>),
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(truth))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Raw, E> {
        match serde_json::Number::from_f64(number) {
            Some(number) => Ok(Raw::Number(number.to_string())),
            // JSON has no word for it, so the plugin gets it as text and says what it thinks of it.
            None => Ok(Raw::Text(number.to_string())),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Raw::Table(fields))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

// === impl Node ===

impl Node {
    /// A field by its name, or by the same name in camel case, as Envoy takes both.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// The same, with the name as it is written.
    pub(crate) fn entry(&self, name: &str) -> Option<(&str, &Node)> {
        let by = |name: &str| self.fields().iter().find(|(key, _)| key.name == name);
        by(name).or_else(|| by(&camel(name))).map(|(key, node)| (key.name.as_str(), node))
    }

    /// A field of a field of a field.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn truth(&self) -> Option<bool> {
        match self.value {
            Value::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn fields(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Table(fields) => fields,
            _ => &[],
        }
    }
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
