//! Makes whole documents around one value, by the table of all fields.

use serde_json::{Map, Value, json};
use tidegate_policy::config::shape::{Field, Kind, Need, Shape};
use tidegate_policy::config::shapes;

use crate::schema::parsed;

/// The smallest document that is right around a table of this shape: one with `field` set to `value`,
/// or without it if that is `None`.
pub fn document(shape: &Shape, field: &Field, value: Option<Value>) -> Value {
    let mut table = smallest(shape, Some(field));
    table.remove(field.name);
    if let Some(value) = value {
        table.insert(field.name.to_owned(), value);
    }
    wrapped(shape, Value::Object(table))
}

/// What has to be there, and the first of what is to be chosen from unless `chosen` is among it.
fn smallest(shape: &Shape, chosen: Option<&Field>) -> Map<String, Value> {
    let is_choice = |field: &&Field| matches!(field.need, Need::OneOf | Need::AnyOf);
    let choice = match chosen {
        Some(field) if is_choice(&field) => Some(field.name),
        _ => shape.fields.iter().find(is_choice).map(|field| field.name),
    };
    let needed = |field: &&Field| matches!(field.need, Need::Must) || Some(field.name) == choice;
    let fields = shape.fields.iter().filter(needed);
    fields.map(|field| (field.name.to_owned(), parsed(field.example))).collect()
}

fn wrapped(shape: &Shape, value: Value) -> Value {
    if shape.name == shapes::DOCUMENT.name {
        return value;
    }
    let (parent, field) = parent(shape);
    let inner = holding(&field.kind, shape, &value).expect("the parent holds it");
    document(parent, field, Some(inner))
}

/// The first field of which a table of this shape may be the value, or a part of it.
fn parent(shape: &Shape) -> (&'static Shape, &'static Field) {
    let found = shapes::all().find_map(|parent| {
        let holds = |field: &&Field| holding(&field.kind, shape, &Value::Null).is_some();
        parent.fields.iter().find(holds).map(|field| (parent, field))
    });
    found.unwrap_or_else(|| panic!("no field holds a {}", shape.name))
}

/// A value of this kind that holds a table of this shape.
fn holding(kind: &Kind, shape: &Shape, value: &Value) -> Option<Value> {
    match kind {
        Kind::Table(own) => (own.name == shape.name).then(|| value.clone()),
        Kind::List { item, .. } => holding(item, shape, value).map(|inner| json!([inner])),
        Kind::Map { value: each, .. } => {
            holding(each, shape, value).map(|inner| json!({ "name": inner }))
        }
        Kind::Either(kinds) => kinds.iter().find_map(|kind| holding(kind, shape, value)),
        _ => None,
    }
}
