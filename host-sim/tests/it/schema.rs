//! The published schema is the types' own, so that no field can be added without it.

use tidegate_host_sim::scenario_schema;

const PUBLISHED: &str = include_str!("../../scenario.schema.json");

#[test]
fn the_published_schema_is_what_the_types_say() {
    let own = serde_json::to_string_pretty(&scenario_schema()).expect("JSON") + "\n";
    assert!(
        own == PUBLISHED,
        "scenario.schema.json is old: cargo run -p host-sim -- schema > host-sim/scenario.schema.json"
    );
}
