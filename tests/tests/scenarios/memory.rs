//! What requests take of the filter's memory: nothing that stays. A VM never gives back what it took, so that whatever
//! grows with requests ends the worker.

use super::breakers_many::run;

const HEAD: &str = "name: memory\n\
    plugin: { config: { version: 1, gateway: { cluster: tidegate, timeout: 2s }, policies: [{ name: p, match: { path: /p/** }, rate_limits: [{ name: l, by: { header: x-key, trusted: true }, limit: 1, per: 1h }] }] } }\n\
    host: { workers: 1, main: false, canary: false, lints: \"off\" }\n";

/// Requests with a header of each of these lengths, so many of each.
fn requests(
    client: &str,
    at_ms: usize,
    times: usize,
    lengths: impl Iterator<Item = usize>,
) -> String {
    let one = |length: usize| {
        let value = "k".repeat(length);
        format!(
            "  - {{ at: {at_ms}ms, client: {client}, times: {times}, every: 1us, send: {{ path: /p/x, headers: {{ x-key: {value} }} }} }}\n"
        )
    };
    lengths.map(one).collect()
}

fn grown(report: &tidegate_host_sim::Report, client: &str) -> u64 {
    let of_client = report.exchanges.iter().filter(|one| one.client == client);
    of_client.map(|one| one.usage.grown_bytes).sum()
}

/// Blocks of every size below and above those that are kept, again and again: the first rounds take what there is to take, with the
/// one time that a map of those that are alive doubles (docs/decisions/0126-streams-by-number.md).
#[test]
fn memory_does_not_grow_with_requests() {
    let lengths = || (1..1_300).step_by(13).chain([2_000, 5_000, 20_000]);
    const ROUNDS: usize = 20;
    let rounds: String = (0..ROUNDS)
        .map(|round| {
            let client = if round < 5 { "first" } else { "later" };
            requests(client, round * 1_000, 5, lengths())
        })
        .collect();
    let report = run(&format!("{HEAD}gateway: in-process\ntimeline:\n{rounds}"));
    let (first, later) = (grown(&report, "first"), grown(&report, "later"));
    println!(
        "{} requests: {first} bytes by the first ones, {later} by the later",
        report.exchanges.len()
    );
    assert_eq!(report.exchanges.len(), ROUNDS * 5 * lengths().count());
    assert_eq!(later, 0);
}

/// Thousands of requests held at once, and then let go, leave room for a large one: of one size only so much is kept apart.
#[test]
fn what_many_requests_held_at_once_took_is_there_for_a_large_one() {
    const LATE: &str = "gateway: [{ after: 1s, answer: { status: 503, headers: { x-tidegate-gateway: v1 }, body: '{\"v\":1,\"reason\":\"store-timeout\"}' } }]\n";
    let small = requests("small", 0, 4_000, [200].into_iter());
    let large = requests("large", 5_000, 1, [900_000].into_iter());
    let alone = run(&format!("{HEAD}{LATE}timeline:\n{large}"));
    let alone = grown(&alone, "large");
    let report = run(&format!("{HEAD}{LATE}timeline:\n{small}{large}"));
    let (small, large) = (grown(&report, "small"), grown(&report, "large"));
    println!("{small} bytes by those that are held, {large} by a large one, alone {alone}");
    assert!(alone > 512 << 10 && small > 4 * alone, "{small} bytes for {alone}");
    assert_eq!(large, 0);
}
