//! Reports for machines: JUnit and JSON.

use crate::support::{FAILING, PASSING, folder, printed};

#[test]
fn reports_hold_every_scenario_and_every_failure() {
    let odd = FAILING.replace("name: fails", "name: \"<fails> & \\x07\"");
    let folder = folder(&[("a.yaml", &odd), ("b.yaml", PASSING), ("c.yaml", "name: x\nhots: 1\n")]);
    let (_, code) =
        printed(folder.path(), &["run", ".", "--junit", "junit.xml", "--json", "run.json"]);
    assert_eq!(code, Some(1));
    let junit = std::fs::read_to_string(folder.path().join("junit.xml")).expect("a report");
    for part in [
        "tests=\"3\" skipped=\"0\" errors=\"1\" failures=\"1\"",
        "<testcase name=\"&lt;fails&gt; &amp; \" classname=\"./a.yaml\">",
        "<failure message=\"client a: status\">line 4: client a: status\n  expected 201\n",
        "proxy_on_request_headers 6 headers, end=true",
        "<testcase name=\"passes\" classname=\"./b.yaml\"/>",
        "<error message=\"the scenario could not run\">./c.yaml:2:1",
    ] {
        assert!(junit.contains(part), "{part}\n{junit}");
    }
    let json = std::fs::read_to_string(folder.path().join("run.json")).expect("a report");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["version"], &json["passed"], &json["failed"]),
        (&1.into(), &1.into(), &2.into())
    );
    let failed = &json["scenarios"][0];
    assert_eq!((&failed["file"], &failed["passed"]), (&"./a.yaml".into(), &false.into()));
    let check = &failed["checks"][0];
    assert_eq!((&check["line"], &check["what"]), (&4.into(), &"client a: status".into()));
    assert_eq!((&check["expected"], &check["passed"]), (&"201".into(), &false.into()));
    assert!(check["trace"].as_array().is_some_and(|lines| lines.len() == 5), "{check}");
    let request = &json["scenarios"][1]["requests"][0];
    assert_eq!((&request["client"], &request["status"]), (&"a".into(), &200.into()));
    assert_eq!((&request["host_calls"], &request["allocations"]), (&1.into(), &1.into()));
    assert!(json["scenarios"][2]["error"].as_str().is_some_and(|error| error.contains("hots")));
}

#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let folder = folder(&[("a.yaml", PASSING)]);
    for flag in ["--json", "--junit"] {
        assert_eq!(printed(folder.path(), &["run", "a.yaml", flag, "no/such/folder"]).1, Some(1));
    }
}
