//! What is published is what the table says now. `BLESS=1` writes it anew.

use crate::{cookbook, reference, root, schema};

/// Compares a file of the checkout with what it should hold, or writes it.
fn current(path: &str, wanted: &str) {
    let file = root().join(path);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, wanted).unwrap_or_else(|error| panic!("{path}: {error}"));
        return;
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == wanted,
        "{path} is old: BLESS=1 cargo test -p tidegate-policy --test authoring"
    );
}

#[test]
fn the_published_schema_is_current() {
    let text = serde_json::to_string_pretty(&schema::schema()).expect("JSON") + "\n";
    current("policy/config.schema.json", &text);
}

#[test]
fn the_reference_is_current() {
    current("docs/configuration.md", &reference::reference());
}

#[test]
fn the_cookbook_is_current() {
    current("docs/cookbook.md", &cookbook::cookbook());
}
