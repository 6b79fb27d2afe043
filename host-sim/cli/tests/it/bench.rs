//! `host-sim bench` from outside: what it counts, and what exceeds a budget.

use crate::support::{PASSING, folder, host_sim, printed, text};

/// What each request of [`PASSING`] costs: one host call, whose answer takes one allocation, and one page.
const BUDGET: &str =
    "{\"passes\": {\"host_calls\": 1, \"allocations\": 1, \"grown_bytes\": 65536, \"fuel\": FUEL}}";

fn fuel(table: &str) -> u64 {
    let row = table.lines().nth(1).expect("a row");
    row.split_whitespace().nth(6).and_then(|fuel| fuel.parse().ok()).expect("a number")
}

#[test]
fn each_cost_of_a_request_is_counted_and_bounded_by_the_budget() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let (table, code) = printed(folder.path(), &["bench", "a.yaml", "--repeat", "1"]);
    let row: Vec<_> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..6], ["1", "1", "190", "0", "1", "65536"], "{table}");
    assert_eq!(code, Some(0));
    let budget = |text: &str| {
        std::fs::write(folder.path().join("budget.json"), text).expect("written");
        printed(folder.path(), &["bench", "a.yaml", "--repeat", "1", "--budget", "budget.json"])
    };
    let fits = BUDGET.replace("FUEL", &fuel(&table).to_string());
    assert_eq!(budget(&fits).1, Some(0));
    for (field, seen, allowed) in
        [("host_calls", 1, 0), ("allocations", 1, 0), ("grown_bytes", 65536, 65535)]
    {
        let tight =
            fits.replace(&format!("\"{field}\": {seen}"), &format!("\"{field}\": {allowed}"));
        let (output, code) = budget(&tight);
        let line = format!(
            "over budget: passes: {field} is {seen}, the budget is {allowed} (client a, request 1)\n"
        );
        assert!(output.ends_with(&line), "{output}");
        assert_eq!(code, Some(1));
    }
    let (output, _) = budget(&BUDGET.replace("FUEL", &(fuel(&table) - 1).to_string()));
    assert!(output.contains("over budget: passes: fuel is "), "{output}");
    let misspelt = host_sim(folder.path(), &["bench", "a.yaml", "--budget", "a.yaml"]);
    assert!(text(&misspelt.stderr).contains("--budget a.yaml"), "{misspelt:?}");
}

#[test]
fn a_written_budget_is_kept_and_a_failing_scenario_is_no_measure() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let write = ["bench", "a.yaml", "--repeat", "1", "--budget", "b.json", "--write-budget"];
    assert_eq!(printed(folder.path(), &write).1, Some(0));
    let read = ["bench", "a.yaml", "--repeat", "1", "--budget", "b.json"];
    assert_eq!(printed(folder.path(), &read).1, Some(0));
    let budget = std::fs::read_to_string(folder.path().join("b.json")).expect("a budget");
    assert!(budget.contains("\"passes\": {\n    \"host_calls\": 1,"), "{budget}");
    std::fs::write(folder.path().join("a.yaml"), PASSING.replace("status: 200", "status: 201"))
        .expect("written");
    let (output, code) = printed(folder.path(), &read);
    assert!(output.contains("FAILED: passes"), "{output}");
    assert_eq!(code, Some(1));
}
