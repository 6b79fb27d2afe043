//! `host-sim trace` from outside.

use crate::support::{FAILING, PASSING, folder, host_sim, printed, text};

#[test]
fn a_trace_is_for_people_for_programs_or_for_a_page() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let (people, code) = printed(folder.path(), &["trace", "a.yaml"]);
    assert!(
        people.contains("0ms w0       2 proxy_on_request_headers 6 headers, end=true -> 0\n"),
        "{people}"
    );
    assert_eq!(code, Some(0));
    let (json, _) = printed(folder.path(), &["trace", "a.yaml", "--json"]);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(lines.len(), people.lines().count());
    let call = lines.iter().find(|line| line["kind"] == "host_call").expect("a host call");
    assert_eq!(call["name"], "proxy_get_header_map_pairs");
    assert_eq!(
        (&call["vm"], &call["context"], &call["status"]),
        (&"w0".into(), &2.into(), &"Ok".into())
    );
    let (diagram, _) = printed(folder.path(), &["trace", "a.yaml", "--mermaid"]);
    let request = "  p_a->>host: sends GET /x\n  host->>p_w0: proxy_on_context_create parent 1\n  \
                   host->>p_w0: proxy_on_request_headers 6 headers, end=true → 0\n  host->>p_a: gets 200 after 0ms\n";
    assert!(diagram.starts_with("sequenceDiagram\n  actor p_a as a\n"), "{diagram}");
    assert!(diagram.ends_with(request), "{diagram}");
}

#[test]
fn a_failed_expectation_does_not_stand_in_the_trace() {
    let folder = folder(&[("a.yaml", FAILING)]);
    let output = host_sim(folder.path(), &["trace", "a.yaml", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).lines().all(|line| line.starts_with('{')), "{output:?}");
    assert!(
        text(&output.stderr).contains("client a: status: expected 201, seen 200"),
        "{output:?}"
    );
}
