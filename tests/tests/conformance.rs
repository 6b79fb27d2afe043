//! The simulator against a real Envoy: every scenario under tests/conformance/, and the document that
//! shows them.

use tidegate_tests::conformance::{Options, corpus, run, strayed_exceptions, table, written};

#[tokio::test(flavor = "multi_thread")]
async fn both_hosts_tell_the_same() {
    let cases = corpus();
    assert!(cases.len() >= 60, "only {} scenarios found", cases.len());
    assert_eq!(strayed_exceptions(&cases), Vec::<String>::new(), "EXCEPTIONS.md names no scenario");
    let judged = run(cases, &Options::default()).await;
    let failed: Vec<String> = judged
        .iter()
        .filter(|one| !one.passes())
        .map(|one| format!("{} {}\n{}", one.id, one.name, one.difference()))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(
        table(&judged) == written(),
        "docs/conformance.md shows another table; run `target/debug/conformance --write`"
    );
}
