//! Makes the JSON Schema (2020-12) of the document from the table of all fields.

use serde_json::{Map, Value, json};
use tidegate_policy::config::shape::{Field, Kind, Need, Shape};
use tidegate_policy::config::shapes;

const ID: &str = "https://tidegate.dev/schemas/policy/config.schema.json";

/// The schema, as policy/config.schema.json holds it.
pub fn schema() -> Value {
    let defs: Map<String, Value> = shapes::all()
        .filter(|shape| shape.name != shapes::DOCUMENT.name)
        .map(|shape| (shape.name.to_owned(), table(shape)))
        .collect();
    let mut root = table(&shapes::DOCUMENT);
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["$id"] = ID.into();
    root["title"] = "The configuration of the Tidegate filter".into();
    root["$defs"] = Value::Object(defs);
    root
}

/// Unknown fields are refused: the filter only warns of them, and an editor should, too.
fn table(shape: &Shape) -> Value {
    let names = |wanted: fn(&Field) -> bool| -> Vec<&str> {
        shape.fields.iter().filter(|field| wanted(field)).map(|field| field.name).collect()
    };
    let required = names(|field| matches!(field.need, Need::Must));
    let choice = names(|field| matches!(field.need, Need::OneOf));
    let any = names(|field| matches!(field.need, Need::AnyOf));
    let properties: Map<String, Value> = shape.fields.iter().map(property).collect();
    let mut table = json!({
        "type": "object",
        "description": shape.doc.trim(),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    for (word, names) in [("oneOf", choice), ("anyOf", any)] {
        if !names.is_empty() {
            let each = names.iter().map(|name| json!({ "required": [name] }));
            table[word] = each.collect();
        }
    }
    table
}

fn property(field: &Field) -> (String, Value) {
    let mut property = value(&field.kind);
    let unit = if field.unit.is_empty() { String::new() } else { format!(" In {}.", field.unit) };
    property["description"] = format!("{}{unit}", field.doc).into();
    property["examples"] = json!([parsed(field.example)]);
    if let Need::Default(default) = field.need {
        property["default"] = parsed(default);
    }
    (field.name.to_owned(), property)
}

fn value(kind: &Kind) -> Value {
    const PART: &str = "[0-9]{1,5}";
    match kind {
        Kind::Text { pattern, .. } => json!({ "type": "string", "pattern": pattern }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Whole { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::True => json!({ "const": true }),
        Kind::Duration { .. } => json!({
            "type": "string",
            "minLength": 2,
            "pattern": format!("^(second|minute|hour|day|week|({PART}d)?({PART}h)?({PART}m)?({PART}s)?({PART}ms)?)$"),
        }),
        Kind::Percentage => json!({
            "type": "string",
            "pattern": "^(100(\\.0{1,2})?|0{0,2}[0-9]{1,2}(\\.[0-9]{1,2})?)%$",
        }),
        Kind::Table(shape) => json!({ "$ref": format!("#/$defs/{}", shape.name) }),
        Kind::Map { key, value: each, min, max } => json!({
            "type": "object",
            "propertyNames": value(key),
            "additionalProperties": value(each),
            "minProperties": min,
            "maxProperties": max,
        }),
        Kind::List { item, min, max } => json!({
            "type": "array",
            "items": value(item),
            "minItems": min,
            "maxItems": max,
        }),
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(value).collect::<Vec<_>>() }),
    }
}

/// JSON of the table.
pub fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}
