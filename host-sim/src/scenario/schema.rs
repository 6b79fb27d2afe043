//! The JSON Schema of scenario files, generated from the types that read them. It must not describe a field by hand that
//! serde derives: only what has its own spelling stands here.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::file::{RawGateway, RawScenario};
use super::interleavings::{RUNS_MAX, RawInterleavings};
use super::matchers::{TextMatcher, TextWants};
use super::rules::{Pattern, RawAnswer, RawRule, WholeAnswer};
use super::timeline::{RawRequest, RawSend};
use super::units::{Moments, Size, Span};
use super::values::{Bytes, Headers, Keyed};

/// Where the schema can be had without a checkout.
const ID: &str = "https://tidegate.dev/schemas/host-sim/scenario.schema.json";

/// The JSON Schema of scenario files, as `host-sim/scenario.schema.json` holds it.
pub fn scenario_schema() -> serde_json::Value {
    let mut schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<RawScenario>();
    schema.insert("$id".to_owned(), ID.into());
    schema.insert("title".to_owned(), "A scenario of host-sim".into());
    schema.to_value()
}

/// Gives a type that reads itself a name and a schema.
macro_rules! described {
    ($type:ty, $name:literal, |$generator:ident| $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

described!(Span, "Duration", |_generator| json_schema!({
    "type": "string",
    "description": "A duration: 10ms, 1.5s, 2m, 1h.",
    "pattern": "^[0-9]+(\\.[0-9]*)?(ns|us|ms|s|m|h)$",
}));

described!(Moments, "Moments", |_generator| json_schema!({
    "type": "string",
    "description": "A moment since the run began, or a range with both its ends: 300ms, 300ms..320ms.",
    "pattern": "^[0-9]+(\\.[0-9]*)?(ns|us|ms|s|m|h)(\\s*\\.\\.\\s*[0-9]+(\\.[0-9]*)?(ns|us|ms|s|m|h))?$",
}));

described!(Size, "Size", |_generator| json_schema!({
    "description": "A number of bytes: 7, 64KiB, 1MiB, 1GiB.",
    "anyOf": [
        { "type": "string", "pattern": "^[0-9]+\\s*(GiB|MiB|KiB|B)?$" },
        { "type": "integer", "minimum": 0 },
    ],
}));

described!(Bytes, "Bytes", |generator| json_schema!({
    "description": "Text as it is, or bytes by one key, or a list whose parts are joined.",
    "anyOf": [
        { "type": ["string", "number", "boolean"] },
        generator.subschema_for::<Keyed>(),
        { "type": "array", "items": { "$ref": "#/$defs/Bytes" } },
    ],
}));

described!(Headers, "Headers", |generator| {
    let bytes = generator.subschema_for::<Bytes>();
    json_schema!({
        "description": "A map of names to values, or a list of [name, value] where order or duplicates matter.",
        "anyOf": [
            { "type": "object", "additionalProperties": bytes },
            {
                "type": "array",
                "items": { "type": "array", "prefixItems": [bytes, bytes], "items": false, "minItems": 2 },
            },
        ],
    })
});

described!(TextMatcher, "Text", |generator| json_schema!({
    "description": "What a text must be: equal to this, or what the keys say.",
    "anyOf": [
        { "type": ["string", "integer", "boolean"] },
        generator.subschema_for::<TextWants>(),
    ],
}));

described!(Pattern, "Pattern", |_generator| json_schema!({
    "type": "string",
    "description": "A request: POST /v1/decide, /any-method, GET /prefix*.",
    "pattern": "^\\s*((\\*|[A-Z-]+) )?\\S+\\s*$",
}));

described!(RawAnswer, "Answer", |generator| json_schema!({
    "description": "A status alone, or a whole answer.",
    "anyOf": [
        { "type": "integer", "minimum": 0, "maximum": u16::MAX },
        generator.subschema_for::<WholeAnswer>(),
    ],
}));

described!(RawSend, "Send", |generator| json_schema!({
    "description": "A request, or the words: same as CLIENT.",
    "anyOf": [
        { "type": "string", "pattern": "^same as ." },
        generator.subschema_for::<RawRequest>(),
    ],
}));

described!(RawInterleavings, "Interleavings", |_generator| json_schema!({
    "description": "Every order of the workers' calls on shared state, a number of seeded ones, or the choices that a failure printed.",
    "anyOf": [
        { "const": "all" },
        { "type": "integer", "minimum": 1, "maximum": RUNS_MAX },
        { "type": "array", "items": { "type": "integer", "minimum": 0 } },
    ],
}));

described!(RawGateway, "Gateway", |generator| json_schema!({
    "description": "Rules, or in-process for a service that the caller binds.",
    "anyOf": [
        { "const": "in-process" },
        { "type": "array", "items": generator.subschema_for::<RawRule>() },
    ],
}));
