//! Every configuration in the checkout (examples, scenarios, documents) fits the published schema.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{root, schema};

/// Every file below a folder with one of these endings.
fn files(dir: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "invalid" {
            files(&path, endings, found);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// Every table in a value that is a configuration of ours.
fn configurations(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(fields)
            if fields.contains_key("version") && fields.contains_key("gateway") =>
        {
            found.push(value.clone());
        }
        Value::Object(fields) => fields.values().for_each(|value| configurations(value, found)),
        Value::Array(items) => items.iter().for_each(|value| configurations(value, found)),
        // Envoy's StringValue.
        Value::String(text) if text.trim_start().starts_with('{') => {
            if let Ok(inner) = serde_json::from_str::<Value>(text) {
                configurations(&inner, found);
            }
        }
        _ => {}
    }
}

/// Every configuration in the checkout with the file that it stands in.
pub fn all() -> Vec<(PathBuf, Value)> {
    let mut paths = Vec::new();
    for dir in ["docs", "envoy", "tests", "host-sim"] {
        files(&root().join(dir), &[".yaml", ".md"], &mut paths);
    }
    paths.push(root().join("README.md"));
    let mut found = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let is_document = path.extension().is_some_and(|ending| ending == "md");
        let pieces = match is_document {
            true => fenced(&text),
            false => text.split("\n---\n").map(str::to_owned).collect(),
        };
        for piece in pieces {
            let mut inner = Vec::new();
            // A document shows pieces of other languages, too.
            match serde_saphyr::from_str::<Value>(&piece) {
                Ok(value) => configurations(&value, &mut inner),
                Err(error) => assert!(is_document, "{}: {error}", path.display()),
            }
            found.extend(inner.into_iter().map(|value| (path.clone(), value)));
        }
    }
    found
}

/// What stands between fences of YAML or JSON.
fn fenced(text: &str) -> Vec<String> {
    let pieces = text.split("\n```").skip(1).step_by(2);
    let kinds = ["yaml\n", "json\n"];
    pieces
        .filter_map(|piece| kinds.iter().find_map(|kind| piece.strip_prefix(kind)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_configuration_in_the_checkout_fits_the_schema() {
    let schema = jsonschema::validator_for(&schema::schema()).expect("a schema");
    let all = all();
    assert!(all.len() >= 15, "only {} configurations found", all.len());
    let mut problems = Vec::new();
    for (path, document) in &all {
        // A scenario about a wrong configuration holds one.
        if path.ends_with("tests/scenarios/wrong-configuration.yaml") {
            continue;
        }
        for error in schema.iter_errors(document) {
            problems.push(format!("{}: {}: {error}", path.display(), error.instance_path()));
        }
    }
    assert_eq!(problems, [""; 0]);
}
