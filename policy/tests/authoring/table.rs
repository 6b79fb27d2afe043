//! The table of all fields says what the reader does: every example, default, word and range is put
//! into a document and read, and the schema made from the table says the same.

use jsonschema::Validator;
use serde_json::{Value, json};
use tidegate_policy::config::shape::{Field, Kind, Need, Shape};
use tidegate_policy::config::{Config, Reading, Severity, shapes};

use crate::samples::document;
use crate::schema::{parsed, schema};

fn each(mut check: impl FnMut(&Shape, &Field)) {
    for shape in shapes::all() {
        for field in shape.fields {
            check(shape, field);
        }
    }
}

fn read(document: &Value) -> Reading {
    Config::read(&document.to_string())
}

fn errors(reading: &Reading) -> Vec<String> {
    let errors = reading.diagnostics.iter().filter(|d| d.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

fn fits(schema: &Validator) -> impl Fn(&Value) -> Vec<String> {
    |document| {
        let line = |error: jsonschema::ValidationError<'_>| {
            format!("schema: {}: {error}", error.instance_path())
        };
        schema.iter_errors(document).map(line).collect()
    }
}

fn validator() -> Validator {
    jsonschema::validator_for(&schema()).expect("a schema")
}

#[test]
fn every_example_is_read_and_fits_the_schema() {
    let schema = validator();
    each(|shape, field| {
        let document = document(shape, field, Some(parsed(field.example)));
        let reading = read(&document);
        assert_eq!(errors(&reading), [""; 0], "{}.{} in {document}", shape.name, field.name);
        assert_eq!(fits(&schema)(&document), [""; 0], "{document}");
    });
}

#[test]
fn a_default_written_out_changes_nothing() {
    each(|shape, field| {
        let Need::Default(default) = field.need else { return };
        let without = read(&document(shape, field, None));
        let written = read(&document(shape, field, Some(parsed(default))));
        let place = format!("{}.{}", shape.name, field.name);
        assert_eq!(errors(&without), [""; 0], "{place}");
        assert_eq!(without.config, written.config, "{place}: {:?}", errors(&written));
    });
}

#[test]
fn what_has_to_be_there_is_missed() {
    let schema = validator();
    each(|shape, field| {
        if !matches!(field.need, Need::Must) {
            return;
        }
        let document = document(shape, field, None);
        let found = errors(&read(&document));
        let expected = format!("{}: missing; ", field.name);
        assert!(found.iter().any(|line| line.contains(&expected)), "{document}: {found:?}");
        assert_ne!(fits(&schema)(&document), [""; 0], "{document}");
    });
}

#[test]
fn of_two_that_exclude_each_other_one_is_too_many() {
    let schema = validator();
    for shape in shapes::all() {
        let choice: Vec<&Field> =
            shape.fields.iter().filter(|field| matches!(field.need, Need::OneOf)).collect();
        for pair in choice.windows(2) {
            let mut document = document(shape, pair[0], Some(parsed(pair[0].example)));
            // The one table of this shape in the document is that which holds the first.
            add_beside(&mut document, pair[0].name, pair[1]);
            let place = format!("{}: {} and {}", shape.name, pair[0].name, pair[1].name);
            assert_ne!(errors(&read(&document)), [""; 0], "{place} in {document}");
            assert_ne!(fits(&schema)(&document), [""; 0], "{place}");
        }
    }
}

fn add_beside(value: &mut Value, name: &str, other: &Field) {
    match value {
        Value::Object(fields) if fields.contains_key(name) => {
            fields.insert(other.name.to_owned(), parsed(other.example));
        }
        Value::Object(fields) => fields.values_mut().for_each(|v| add_beside(v, name, other)),
        Value::Array(items) => items.iter_mut().for_each(|item| add_beside(item, name, other)),
        _ => {}
    }
}

#[test]
fn what_the_table_excludes_is_refused_at_its_field() {
    let schema = validator();
    each(|shape, field| {
        for (value, in_schema) in outside(&field.kind) {
            let document = document(shape, field, Some(value));
            let found = errors(&read(&document));
            // The value's own place, or a place in it.
            let named = found.iter().any(|line| {
                line.contains(&format!("{}: ", field.name))
                    || line.contains(&format!("{}[", field.name))
                    || line.contains(&format!("{}.", field.name))
            });
            assert!(named, "{}.{} in {document}: {found:?}", shape.name, field.name);
            if in_schema {
                assert_ne!(fits(&schema)(&document), [""; 0], "{document}");
            }
        }
    });
}

/// Values that this kind does not take in, and whether a schema can say so.
fn outside(kind: &Kind) -> Vec<(Value, bool)> {
    let mut values = vec![(json!([[[]]]), true)];
    match kind {
        Kind::Whole { min, max } => {
            values.push((json!(u64::from(*max) + 1), true));
            values.push((json!(i64::from(*min) - 1), true));
            values.push((json!(1.5), true));
            values.push((json!("1"), true));
        }
        Kind::Duration { min_ms, max_ms } => {
            values.push((json!(format!("{}d", max_ms / 86_400_000 + 1)), false));
            values.push((json!("soon"), true));
            values.push((json!(1), true));
            values.push((json!(format!("{}ms", min_ms - 1)), false));
        }
        Kind::Percentage => {
            values.extend([(json!("101%"), true), (json!(10), true), (json!("10"), true)]);
        }
        Kind::List { item, min, max } => {
            values.push((json!(7), true));
            if *min > 0 {
                values.push((json!([]), true));
            }
            // A list of ten thousand policies is tested by the reader's own tests.
            if *max <= 1_000 {
                let item = inside(item);
                values.push((Value::Array(vec![item; max + 1]), true));
            }
        }
        Kind::Either(_) | Kind::Text { .. } | Kind::Word(_) => {
            if !takes_in_numbers(kind) {
                values.push((json!(7), true));
            }
            if !takes_in(kind, "") {
                values.push((json!(""), true));
            }
        }
        Kind::Table(_) | Kind::Map { .. } | Kind::True | Kind::Bool => {
            values.push((json!(7), true));
            values.push((json!("x"), true));
        }
    }
    values
}

/// Some value of a kind, as the table has one.
fn inside(kind: &Kind) -> Value {
    match kind {
        Kind::Word(words) => json!(words[0]),
        Kind::Table(shape) => {
            let needed = shape.fields.iter().filter(|field| matches!(field.need, Need::Must));
            needed.map(|field| (field.name.to_owned(), parsed(field.example))).collect()
        }
        Kind::Whole { min, .. } => json!(min),
        _ => {
            let text =
                ["GET", "a.example", "a-name", "503"].into_iter().find(|text| takes_in(kind, text));
            json!(text.unwrap_or_else(|| panic!("add a text that is a {kind:?}")))
        }
    }
}

fn takes_in_numbers(kind: &Kind) -> bool {
    match kind {
        Kind::Either(kinds) => kinds.iter().any(takes_in_numbers),
        _ => matches!(kind, Kind::Whole { .. }),
    }
}

/// Whether a text is of this kind, by its pattern.
fn takes_in(kind: &Kind, text: &str) -> bool {
    let kinds = match kind {
        Kind::Either(kinds) => kinds,
        Kind::Text { .. } => std::slice::from_ref(kind),
        _ => return false,
    };
    kinds.iter().any(|kind| {
        let Kind::Text { pattern, .. } = kind else { return false };
        jsonschema::is_valid(&json!({ "pattern": pattern }), &json!(text))
    })
}

#[test]
fn every_word_is_known_to_the_reader() {
    each(|shape, field| {
        let mut words: Vec<&str> = Vec::new();
        collect_words(&field.kind, &mut words);
        for word in words {
            let value = match field.kind {
                Kind::List { .. } => json!([word]),
                _ => json!(word),
            };
            let document = document(shape, field, Some(value));
            assert_eq!(errors(&read(&document)), [""; 0], "{document}");
        }
    });
}

fn collect_words(kind: &Kind, words: &mut Vec<&'static str>) {
    match kind {
        Kind::Word(own) => words.extend(*own),
        Kind::List { item, .. } => collect_words(item, words),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| collect_words(kind, words)),
        _ => {}
    }
}

#[test]
fn every_field_is_described_once_and_in_a_sentence() {
    for shape in shapes::all() {
        let mut names: Vec<&str> = shape.fields.iter().map(|field| field.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), shape.fields.len(), "{}: a name stands twice", shape.name);
        assert!(shape.doc.trim().ends_with('.'), "{}", shape.name);
    }
    each(|shape, field| {
        let place = format!("{}.{}", shape.name, field.name);
        assert!(field.doc.ends_with('.'), "{place}");
        if matches!(field.kind, Kind::Whole { .. }) {
            let counts = !field.unit.is_empty() || ["version", "priority"].contains(&field.name);
            assert!(counts, "{place}: what does it count?");
        }
    });
}

#[test]
fn both_ends_of_every_range_are_taken() {
    each(|shape, field| {
        for value in ends(&field.kind) {
            let document = document(shape, field, Some(value));
            let found = errors(&read(&document));
            // Whether the numbers go together is another question.
            let refused = |line: &String| {
                line.contains(&format!("{}: ", field.name))
                    && [
                        "is no valid number here",
                        "is out of range",
                        "is no duration",
                        "is no size",
                    ]
                    .iter()
                    .any(|words| line.contains(words))
            };
            assert!(
                !found.iter().any(refused),
                "{}.{} in {document}: {found:?}",
                shape.name,
                field.name
            );
        }
    });
}

fn ends(kind: &Kind) -> Vec<Value> {
    match kind {
        Kind::Whole { min, max } => vec![json!(min), json!(max)],
        Kind::Duration { min_ms, max_ms } => {
            let written = |ms: &u64| match (ms % 86_400_000, ms % 1_000) {
                (0, _) => json!(format!("{}d", ms / 86_400_000)),
                (_, 0) => json!(format!("{}s", ms / 1_000)),
                _ => json!(format!("{ms}ms")),
            };
            vec![written(min_ms), written(max_ms)]
        }
        Kind::Percentage => vec![json!("0%"), json!("100%")],
        Kind::Either(kinds) => kinds.iter().flat_map(ends).collect(),
        _ => Vec::new(),
    }
}
