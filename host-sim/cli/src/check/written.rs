//! A configuration as the plugin gets it, and where each piece of it stands in the file that an author wrote. It must not
//! know what the plugin says.

use std::ops::Range;

use super::tree::{Node, Value};

/// JSON for the plugin.
pub(crate) struct Written {
    pub(crate) json: String,
    places: Places,
}

enum Places {
    /// The file is the JSON.
    Same,
    /// Ranges of the JSON with those of the file, in the order in which values end.
    Values(Vec<(Range<usize>, Range<usize>)>),
    /// Starts of the JSON's lines with where they stand in the file; and the whole text there.
    Lines(Vec<(usize, usize)>, Range<usize>),
}

// === impl Written ===

impl Written {
    /// A file of JSON, as it is: so that the plugin sees what stands twice in it.
    pub(crate) fn json(text: &str) -> Self {
        Self { json: text.to_owned(), places: Places::Same }
    }

    /// A value of a file.
    pub(crate) fn value(node: &Node) -> Self {
        let mut written = Self { json: String::new(), places: Places::Same };
        let mut places = Vec::new();
        written.write(node, &mut places);
        written.places = Places::Values(places);
        written
    }

    /// A text that a file holds as one of its values.
    pub(crate) fn text(text: &str, span: &Range<usize>, file: &str) -> Self {
        let lines = lines(text, span, file).unwrap_or_default();
        Self { json: text.to_owned(), places: Places::Lines(lines, span.clone()) }
    }

    /// Where in the file the bytes of the JSON come from: the same value, or the smallest around them.
    pub(crate) fn place(&self, span: Range<usize>) -> Range<usize> {
        match &self.places {
            Places::Same => span,
            Places::Values(values) => {
                let holds = |own: &Range<usize>| own.start <= span.start && span.end <= own.end;
                let smallest = values
                    .iter()
                    .filter(|(own, _)| holds(own))
                    .min_by_key(|(own, _)| own.end - own.start);
                smallest.map_or(0..0, |(_, place)| place.clone())
            }
            Places::Lines(lines, whole) => {
                let place = |at: usize| {
                    let line = lines.iter().rev().find(|(start, _)| *start <= at)?;
                    Some(line.1 + (at - line.0))
                };
                match (place(span.start), place(span.end)) {
                    (Some(start), Some(end)) => start..end,
                    _ => whole.clone(),
                }
            }
        }
    }

    fn write(&mut self, node: &Node, places: &mut Vec<(Range<usize>, Range<usize>)>) {
        let start = self.json.len();
        match &node.value {
            Value::Null => self.json.push_str("null"),
            Value::Bool(truth) => self.json.push_str(if *truth { "true" } else { "false" }),
            Value::Number(number) => self.json.push_str(number),
            Value::Text(text) => self.json.push_str(&quoted(text)),
            Value::List(items) => {
                self.json.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.comma(index);
                    self.write(item, places);
                }
                self.json.push(']');
            }
            Value::Table(fields) => {
                self.json.push('{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    self.comma(index);
                    let start = self.json.len();
                    self.json.push_str(&quoted(&key.name));
                    places.push((start..self.json.len(), key.span.clone()));
                    self.json.push_str(": ");
                    self.write(value, places);
                }
                self.json.push('}');
            }
        }
        places.push((start..self.json.len(), node.span.clone()));
    }

    fn comma(&mut self, index: usize) {
        if index > 0 {
            self.json.push_str(", ");
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Where each line of a text stands in the file; `None` if the file does not spell it line by line.
fn lines(text: &str, span: &Range<usize>, file: &str) -> Option<Vec<(usize, usize)>> {
    let from = file.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let mut source = file.get(from..)?.split_inclusive('\n').scan(from, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    });
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim_end();
        if !body.is_empty() {
            // A block stands below its header, a text in quotes beside it.
            let (at, column) =
                source.find_map(|(at, line)| line.find(body).map(|column| (at, column)))?;
            found.push((start, at + column));
        }
        start += line.len();
    }
    Some(found)
}
