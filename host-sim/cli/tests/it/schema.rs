//! The published schema fits every scenario that the parser takes, and refuses what it refuses.

use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

use crate::support::printed;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).expect("the checkout")
}

fn schema() -> Validator {
    let (text, code) = printed(root(), &["schema"]);
    assert_eq!(code, Some(0));
    let published = std::fs::read_to_string(root().join("host-sim/scenario.schema.json"));
    assert_eq!(published.expect("the published schema"), text);
    jsonschema::validator_for(&serde_json::from_str(&text).expect("JSON")).expect("a schema")
}

fn document(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn problems(schema: &Validator, yaml: &str) -> Vec<String> {
    let document = document(yaml);
    schema
        .iter_errors(&document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn every_scenario_in_the_checkout_fits() {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root().join("tests/scenarios")).expect("the scenarios") {
        let path = entry.expect("an entry").path();
        all.push(std::fs::read_to_string(&path).expect("a scenario"));
    }
    assert!(all.len() >= 19, "only {} scenarios found", all.len());
    let readme = std::fs::read_to_string(root().join("host-sim/README.md")).expect("the README");
    let whole = root().join("host-sim/tests/it/whole.yaml");
    all.push(std::fs::read_to_string(whole).expect("every field once"));
    all.extend(
        readme
            .split("```yaml\n")
            .skip(1)
            .filter_map(|rest| Some(rest.split("```").next()?.to_owned())),
    );
    let schema = schema();
    for yaml in all {
        assert_eq!(problems(&schema, &yaml), Vec::<String>::new(), "{yaml}");
    }
}

#[test]
fn what_the_parser_refuses_is_refused_too() {
    let schema = schema();
    let right = "name: x\nplugin: {}\n";
    assert_eq!(problems(&schema, right), Vec::<String>::new());
    for wrong in [
        "hots: {}",
        "host: { worker: 2 }",
        "host: { reload_base_interval: 10 }",
        "host: { memory_max: 1GB }",
        "host: { fail_policy: FAIL_SOMEHOW }",
        "gateway: yes please",
        "gateway: [{ on: post /x, answer: 200 }]",
        "gateway: [{ fault: broken }]",
        "gateway: [{ answer: { statis: 200 } }]",
        "timeline: [{ client: a, send: {} }]",
        "timeline: [{ at: soon, client: a, send: {} }]",
        "timeline: [{ at: 0ms, client: a, send: again }]",
        "timeline: [{ at: 0ms, client: a, send: { methd: GET } }]",
        "timeline: [{ at: 0ms, client: a, send: { headers: [[a]] } }]",
        "timeline: [{ at: 0ms, client: a, send: { body: { text: x } } }]",
        "expect: [{ client: a, stats: 200 }]",
        "expect: [{ client: a, at: 1ms.2ms }]",
        "expect: [{ client: a, body: { contain: x } }]",
        "expect: [{ upstream: request, equals: 1 }]",
        "expect: [{ no_log_at: fatal }]",
    ] {
        assert_ne!(
            problems(&schema, &format!("{right}{wrong}\n")),
            Vec::<String>::new(),
            "{wrong}"
        );
    }
}
