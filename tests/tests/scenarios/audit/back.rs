//! What an admission took while it waited for its record, and is there again for the next one where it had none: the
//! units of its limit, the claim of its key, its circuit breaker's one test. With the gateway's own limits and claims.

use host_sim::in_process::InProcess;

use super::*;

/// The gateway, but for the messages that a decision waits for.
struct Withholds {
    gateway: InProcess,
    /// How many of these came.
    urgent: usize,
    /// Which of them has no record.
    withheld: usize,
    /// Whether it has no answer, either.
    is_mute: bool,
}

impl Service for Withholds {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        if request.path() != AUDIT_PATH {
            return self.gateway.call(now_unix_ns, request);
        }
        let message = AuditRequest::decode(&request.body).expect("a sound message");
        let mut fate = Kept::Kept;
        if message.urgent {
            if self.urgent == self.withheld {
                fate = Kept::Later;
            }
            self.urgent += 1;
        }
        if fate == Kept::Later && self.is_mute {
            return Reply { after_ns: 0, outcome: Outcome::Fault(Fault::Timeout), tries: 1 };
        }
        let reply = AuditReply::new(message.id, vec![fate; message.events.len()], 0);
        let mut headers = HeaderMap::default();
        headers.add(b"x-tidegate-gateway", b"v1");
        Reply::now(Answer { headers, ..Answer::new(200, wire::encode(&reply)) })
    }
}

fn run(timeline: &str, withheld: usize, is_mute: bool) -> Report {
    let yaml = format!(
        "name: what an admission without a record took
plugin:
  config:
    version: 1
    gateway: {{ cluster: tidegate, timeout: 45ms }}
    identities: {{ tenant: {{ header: x-tenant, trusted: true }} }}
    audit: {{ allows: 100%, sync: [allow], timeout: 200ms, unrecorded: refuse }}
    policies:
      - name: pay
        match: {{ path: /pay }}
        rate_limits: [{{ name: ip, by: ip, limit: 2, per: day }}]
        idempotency: {{ key: required, tenant: tenant, upstream_timeout: 60s, ephemeral: true }}
      - name: again
        match: {{ path: /again }}
        circuit_breaker: {{ consecutive: 1, open: 1s, upstream_timeout: 60s }}
host: {{ workers: 1, until: 30s, allow_on_headers_stop_iteration: true }}
gateway: in-process
upstream:
  - {{ on: GET /again, answer: {{ status: 500 }}, times: 1 }}
  - {{ answer: {{ status: 200, body: done }} }}
timeline:
{timeline}"
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let wasm = std::fs::read(parts::filter("tidegate")).expect("the built filter");
    let gateway = InProcess::new(&[]).expect("the gateway's defaults");
    let services =
        Services::default().bind_any(Withholds { gateway, urgent: 0, withheld, is_mute });
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    report
}

/// Status and reason of a client's request.
fn told(report: &Report, client: &str, nth: usize) -> (Option<u16>, String) {
    let sent = report.exchange(client, nth).unwrap_or_else(|| panic!("{client} {nth}: {report}"));
    let reason = sent.headers.text("x-tidegate-reply").map(|text| text.to_string());
    (sent.status, reason.unwrap_or_default())
}

/// Its limit is two a day, a replay counts too, and its key would be locked for a minute.
#[test]
fn the_unit_and_the_key_of_an_admission_without_a_record_are_there_for_the_next() {
    let send = "send: { method: POST, path: /pay, headers: { x-tenant: acme, idempotency-key: k }, body: b }";
    for leaves in [false, true] {
        let gone = if leaves { "  - { at: 150ms, client: a, disconnect: true }\n" } else { "" };
        let timeline = format!(
            "  - {{ at: 100ms, client: a, {send} }}\n{gone}  - {{ at: 1s, client: b, {send} }}\n  - {{ at: 2s, client: c, {send} }}\n"
        );
        let report = run(&timeline, 0, leaves);
        if !leaves {
            let refused = (Some(503), "policy-store-unavailable".to_owned());
            assert_eq!(told(&report, "a", 1), refused, "{report}");
        }
        assert_eq!(told(&report, "b", 1), (Some(200), String::new()), "{report}");
        let replayed = report.exchange("c", 1).expect("it was sent");
        assert_eq!(replayed.status, Some(200), "{report}");
        assert_eq!(replayed.headers.text("idempotent-replayed").as_deref(), Some("true"));
    }
}

/// Its breaker, which is open, gives leave to one request at a time; one that is lost would be waited for for a minute.
#[test]
fn the_test_of_a_breaker_by_an_admission_without_a_record_is_made_by_the_next() {
    let timeline =
        "  - { at: 100ms, client: y, times: 80, every: 200ms, send: { path: /again } }\n";
    let report = run(timeline, 1, false);
    let all: Vec<_> = (1..=80).map(|nth| told(&report, "y", nth)).collect();
    let is = |reply: &(Option<u16>, String), status: u16, reason: &str| {
        *reply == (Some(status), reason.to_owned())
    };
    assert!(is(&all[0], 500, ""), "{report}");
    let tested = all.iter().position(|reply| is(reply, 503, "policy-store-unavailable"));
    let tested = tested.unwrap_or_else(|| panic!("the breaker was never tested: {all:?}"));
    assert!(all[1..tested].iter().all(|reply| is(reply, 503, "circuit-open")), "{all:?}");
    let after = all.iter().skip(tested).position(|reply| is(reply, 200, ""));
    // The region hears of it with a tick. A test that failed would have shut the breaker for five of these.
    assert!(after.is_some_and(|after| after <= 2), "the test was not given back: {all:?}");
}
