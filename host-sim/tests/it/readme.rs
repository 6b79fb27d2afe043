//! The README's scenario runs and passes, so that it cannot grow old.

use crate::support::passes;

#[test]
fn the_scenario_in_the_readme_passes() {
    let readme = include_str!("../../README.md");
    let yaml = readme
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a scenario in the README");
    passes(yaml, &crate::callouts::asking().build());
}
