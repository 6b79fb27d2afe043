//! Every order in which workers' calls on shared state can come: races show, and what holds in all orders is proved to.

use tidegate_host_sim::{Answer, Report, Runner, Scenario, Service, ServiceRequest, Services};

use crate::support::{Plugin, at, run, trace};

/// Counts requests in shared data, one byte; without a retry when another worker was faster, or with one.
fn counting(retries: bool) -> Vec<u8> {
    let mut plugin =
        Plugin::new().import("proxy_get_shared_data", 5).import("proxy_set_shared_data", 5);
    let key = at(plugin.data(b"count"));
    // 0: the value's place, 4: its length, 8: its compare-and-swap number, 16: the new value.
    let retry =
        if retries { "(br_if $again (i32.eq (local.get $status) (i32.const 8)))" } else { "" };
    plugin
        .code(&format!(
            r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
              (i32.store8 (i32.const 16) (i32.const 48))
              (drop (call $proxy_set_shared_data {key} (i32.const 16) (i32.const 1) (i32.const 0)))
              (i32.const 1))"#
        ))
        .on_request_headers(&format!(
            r#"(local $status i32)
            (loop $again
              (drop (call $proxy_get_shared_data {key} (i32.const 0) (i32.const 4) (i32.const 8)))
              (i32.store8 (i32.const 16) (i32.add (i32.load8_u (i32.load (i32.const 0))) (i32.const 1)))
              (local.set $status (call $proxy_set_shared_data {key} (i32.const 16) (i32.const 1) (i32.load (i32.const 8))))
              {retry})
            (i32.const 0)"#
        ))
        .build()
}

fn two_workers(interleavings: &str) -> String {
    format!(
        "name: race
plugin: {{}}
host: {{ workers: 2, interleavings: {interleavings} }}
timeline: [{{ at: 0ms, client: a, worker: 0, send: {{}} }}, {{ at: 0ms, client: b, worker: 1, send: {{}} }}]
expect: [{{ shared_data: count, value: '2' }}, {{ client: a, status: 200 }}, {{ client: b, status: 200 }}]"
    )
}

fn seen(report: &Report) -> (bool, u64) {
    (report.passed(), report.interleavings)
}

#[test]
fn a_lost_update_is_found_and_its_order_can_be_run_again() {
    let wasm = counting(false);
    assert_eq!(seen(&run(&two_workers("all").replace("all", "[]"), &wasm)), (true, 1));
    let report = run(&two_workers("all"), &wasm);
    assert!(!report.passed(), "{}", trace(&report));
    let text = report.to_string();
    let again = format!("interleavings: {:?}", report.choices);
    assert!(text.contains("expected \"2\"") && text.contains(&again), "{text}");
    let repeated = run(&two_workers(&format!("{:?}", report.choices)), &wasm);
    assert_eq!(trace(&repeated), trace(&report));
    // One thread after the other loses nothing: only an order shows it.
    let alone = run(&two_workers("all").replace(", interleavings: all", ""), &wasm);
    assert_eq!(seen(&alone), (true, 0));
}

#[test]
fn a_retry_holds_in_all_orders() {
    let report = run(&two_workers("all"), &counting(true));
    assert!(report.passed(), "{report}");
    // Two calls each without a conflict are six orders; every conflict adds some.
    assert!(report.interleavings > 6, "{}", report.interleavings);
}

#[test]
fn seeds_find_it_too_and_the_same_seed_finds_the_same() {
    let first = run(&two_workers("50"), &counting(false));
    assert!(!first.passed());
    let second = run(&two_workers("50"), &counting(false));
    assert_eq!(seen(&first), seen(&second));
    assert_eq!(trace(&first), trace(&second));
}

struct Count(u64);

impl Service for Count {
    fn call(&mut self, _: u64, _: &ServiceRequest) -> tidegate_host_sim::Reply {
        self.0 += 1;
        tidegate_host_sim::Reply::now(Answer::new(200, self.0.to_string()))
    }
}

#[test]
fn a_service_is_made_anew_for_each_order() {
    let wasm = counting(true);
    let scenario =
        Scenario::parse(&two_workers("all").replace("timeline", "gateway: in-process\ntimeline"))
            .expect("a scenario");
    let runner = Runner::with_cache(None).expect("no cache, no error");
    let once = runner.run_bytes(&scenario, &wasm, Services::default().bind_any(Count(0)));
    assert!(once.is_err_and(|error| error.to_string().contains("bind_fresh")));
    let fresh = Services::default().bind_fresh(|| Count(0));
    let report = runner.run_bytes(&scenario, &wasm, fresh).expect("it runs");
    assert!(report.passed() && report.interleavings > 6, "{report}");
}

/// Ticks of main and workers come at the same moment too, and requests that wait, bodies and updates go on as ever.
#[test]
fn everything_else_works_apart_as_it_does_together() {
    let yaml = |interleavings: &str| {
        format!(
            "name: apart
plugins: [{{ name: a, config: one, vm_id: x }}, {{ name: b, vm_id: y }}]
host: {{ workers: 2, until: 1s, drain: 100ms{interleavings} }}
upstream: [{{ on: POST /slow, after: 20ms, answer: {{ status: 201, chunks: [{{ data: a }}, {{ after: 5ms, data: b }}] }} }}, {{ answer: 200 }}]
timeline:
  - {{ at: 0ms, client: a, worker: 1, send: {{ method: POST, path: /slow, chunks: [{{ data: x }}, {{ after: 10ms, data: q }}] }} }}
  - {{ at: 5ms, update: {{ plugin: a, config: two }} }}
  - {{ at: 5ms, client: b, worker: 0, send: {{}} }}
  - {{ at: 6ms, client: c, worker: 1, send: {{ method: POST, unfinished: true, body: z }} }}
  - {{ at: 9ms, client: c, disconnect: true }}
expect:
  - {{ client: a, status: 201, body: ab, at: 35ms }}
  - {{ client: b, status: 200 }}
  - {{ client: c, reset: true }}
  - {{ upstream_request: 1, body: xq }}
  - {{ shared_data: count, value: {{ present: true }} }}"
        )
    };
    for interleavings in ["", ", interleavings: [0]", ", interleavings: 20"] {
        let report = run(&yaml(interleavings), &counting(true));
        assert!(report.passed(), "{interleavings}: {report}\n{}", trace(&report));
    }
}
