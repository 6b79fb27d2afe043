//! Sixteen clients at once whose decisions wait for their events, of which each is told, while the gateway is killed and
//! started again, and then Redis.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tidegate_tests::eventually::as_told;

use super::*;
use crate::audit::events;

const CLIENTS: usize = 16;
const A_MINUTE: Duration = Duration::from_secs(60);
/// Answers of either kind before the gateway is killed, and as many again when it is back.
const ANSWERS: usize = 200;

/// The filter lets go on by itself, and refuses without a record; the gateway denies the second request of a key.
const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "5s", "token": {"env": "TIDEGATE_TOKEN"}, "breaker": {"open": "300ms"}},
  "audit": {"sync": ["allow"], "timeout": "5s", "unrecorded": "refuse"},
  "policies": [
    {"name": "ready", "match": {"path": "/ready"},
     "rate_limits": [{"name": "ip", "by": "ip", "limit": 1000, "per": "day"}], "on_unavailable": ["deny"]},
    {"name": "once", "match": {"path": "/once"},
     "rate_limits": [{"name": "key", "by": {"header": "x-key"}, "limit": 1, "per": "day"}], "on_unavailable": ["deny"]},
    {"name": "allow", "match": {"path": "/allow"}, "audit": {"allows": "100%"}, "circuit_breaker": {"open": "1s"}}
  ]
}"#;

/// What clients were told.
#[derive(Debug, Default)]
struct Told {
    /// Admissions of the filter's.
    admitted: usize,
    /// Those of the gateway's.
    passed: usize,
    /// The decisions of those that the filter refused for want of a record.
    refused: BTreeSet<String>,
    /// The decisions of the gateway's denials.
    denied: BTreeSet<String>,
}

struct Clients {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    tasks: tokio::task::JoinSet<()>,
}

// === impl Clients ===

impl Clients {
    /// Half of them ask for what the filter decides, half for what the gateway does.
    fn start(bench: &Bench) -> Self {
        let (told, stop) = (Arc::<Mutex<Told>>::default(), Arc::new(AtomicBool::new(false)));
        let (mut tasks, to) = (tokio::task::JoinSet::new(), bench.envoy.addr);
        for client in 0..CLIENTS {
            let (told, stop) = (Arc::clone(&told), Arc::clone(&stop));
            tasks.spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("x-key: {client}-{number}\r\n");
                    let path = if client % 2 == 0 { "/allow" } else { "/once" };
                    let mut answer = client::get_from(to, None, path, &key).await;
                    if path == "/once" && answer.status == 200 {
                        told.lock().expect("no panic").passed += 1;
                        answer = client::get_from(to, None, path, &key).await;
                    }
                    let is_unavailable = answer.status == 503;
                    told.lock().expect("no panic").take(path, &answer);
                    if is_unavailable {
                        as_told(Duration::from_secs(1)).await;
                    }
                }
            });
        }
        Self { told, stop, tasks }
    }

    async fn until(&self, what: &str, enough: impl Fn(&Told) -> bool) {
        eventually(PATIENCE, what, async || {
            let told = self.told.lock().expect("no panic");
            if enough(&told) { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    }

    /// So many more of both kinds.
    async fn answered(&self, what: &str, count: usize) {
        let of = |told: &Told| (told.admitted, told.denied.len());
        let (admitted, denied) = of(&self.told.lock().expect("no panic"));
        let goal = (admitted + count, denied + count);
        self.until(what, |told| of(told).0 >= goal.0 && of(told).1 >= goal.1).await;
    }

    async fn end(self) -> Told {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
        std::mem::take(&mut *self.told.lock().expect("no panic"))
    }
}

// === impl Told ===

impl Told {
    fn take(&mut self, path: &str, answer: &Answer) {
        let decision = || answer.header("x-tidegate-decision").expect("a decision").to_owned();
        match (path, answer.status) {
            ("/allow", 200) => self.admitted += 1,
            ("/allow", 503) => assert!(self.refused.insert(decision()), "{answer:?}"),
            ("/once", 429) => assert!(self.denied.insert(decision()), "{answer:?}"),
            // The filter's own denial for want of a verdict, which waits for nothing here.
            ("/once", 503) => {}
            _ => panic!("{path}: {answer:?}"),
        }
    }
}

/// Whether the record tells of admissions that were refused for want of one.
fn is_unrecorded(record: &Value) -> bool {
    text(record).contains("cause=event-not-recorded")
}

/// The decision that the filter's record is of.
fn decision(record: &Value) -> Option<String> {
    let rest = text(record).split("decision=").nth(1)?;
    rest.split([' ', ';']).next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_each_answer_is_in_the_chain_once_although_the_gateway_is_killed_and_redis() {
    let mut bench = Bench::of(CONFIG, &["--audit-sync", "deny"]).await;
    let seen = bench.upstream.seen();
    let clients = Clients::start(&bench);
    clients.answered("answers with their records", ANSWERS).await;
    bench.lose_gateway().await;
    clients.until("each is refused without one", |told| told.refused.len() >= CLIENTS / 2).await;
    bench.bring_gateway().await;
    clients.answered("answers with their records again", ANSWERS).await;
    bench.site.redis.restart().await;
    clients.answered("and while they wait on the disk", ANSWERS).await;
    let told = clients.end().await;

    let refused = u64::try_from(told.refused.len()).expect("few");
    // Those that are only counted are told when their minute is over.
    let records = eventually(2 * PATIENCE + A_MINUTE, "all is on record", async || {
        let records = bench.site.records().await;
        let unrecorded: Vec<Value> = records.iter().filter(|r| is_unrecorded(r)).cloned().collect();
        let refusals = events(&unrecorded, "deny", "policy-store-unavailable");
        let allows = of(&records, "allow", "ok").len();
        let ids: BTreeSet<&str> =
            records.iter().filter_map(|record| record["id"].as_str()).collect();
        let missing = told.denied.iter().filter(|id| !ids.contains(id.as_str())).count();
        let is_all = allows >= told.admitted && refusals >= refused && missing == 0;
        if is_all { Ok(records) } else { Err((allows, refusals, missing, told.admitted, refused)) }
    })
    .await;
    // What went on is on record once as that, and nothing else is but what was refused afterwards.
    let mut allowed = BTreeSet::new();
    for record in of(&records, "allow", "ok") {
        says(&record, &["class=sync"]);
        let decision = decision(&record).expect("of a decision");
        assert!(allowed.insert(decision), "twice: {record}");
    }
    let went_on: Vec<_> = allowed.difference(&told.refused).collect();
    assert_eq!(went_on.len(), told.admitted, "{} refused", told.refused.len());
    // What the gateway denied is on record once, by its decision.
    for id in &told.denied {
        let count = records.iter().filter(|record| record["id"] == id.as_str()).count();
        assert_eq!(count, 1, "{id}");
    }
    // Whatever says that it goes on, and did not, is contradicted by its decision.
    let unrecorded = records.iter().filter(|record| is_unrecorded(record));
    let contradicted: BTreeSet<String> = unrecorded.filter_map(decision).collect();
    assert!(allowed.intersection(&told.refused).all(|id| contradicted.contains(id)));
    let ids: BTreeSet<&str> = records.iter().filter_map(|record| record["id"].as_str()).collect();
    assert_eq!(ids.len(), records.len(), "no event stands twice");
    assert_eq!(
        bench.upstream.seen() - seen,
        told.admitted + told.passed,
        "and nobody else went on"
    );
    let counted = (bench.unrecorded("refused").await, bench.unrecorded("late").await);
    assert_eq!(counted, (refused, 0));
    assert_eq!(bench.envoy.metric("tidegate_audit_events_total{outcome=\"lost\"}").await, 0);
    bench.site.verify().await;
}
