//! The gateway without a socket, on a clock that the test moves: how a simulator holds it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use tidegate_gateway::clock::{Clock, ManualClock};
use tidegate_gateway::store::memory::MemoryStore;
use tidegate_gateway::store::{Store, Stores};
use tidegate_gateway::{Cores, Gateway, World};
use tidegate_policy::gcra::EPOCH_US;
use tidegate_policy::wire::{DecideReply, DecisionId, Verdict, encode};

use crate::bench::{decide, question, settings};

#[tokio::test(start_paused = true)]
async fn it_decides_in_virtual_time() {
    let settings = settings("");
    let start_us = EPOCH_US + 1_000_000;
    let clock = Arc::new(ManualClock::at(start_us));
    let shared: Arc<dyn Clock> = clock.clone();
    let machine = World::from_settings(&settings, Cores::here()).expect("a world");
    let counters = machine.metrics.store.clone();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&shared), 100, counters));
    let world = World { clock: shared, stores: Stores::single(store), ..machine };
    let gateway = Gateway::new(settings, world).expect("a gateway");

    let question = question("a");
    let ask = async || {
        let (head, _) = decide(([127, 0, 0, 1], 1).into(), &question).into_parts();
        let answer = gateway.data().answer(&head, &encode(&question)).await;
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("whole").to_bytes();
        DecideReply::decode(&body, DecisionId::new(9)).expect("a verdict")
    };
    for _ in 0..5 {
        assert_eq!(ask().await.verdict, Verdict::Allow);
    }
    let denied = ask().await;
    assert_eq!(denied.verdict, Verdict::Deny);
    assert_eq!(denied.limits[0].retry_us, Some(12_000_000));
    clock.set(start_us + 11_999_998);
    assert_eq!(ask().await.verdict, Verdict::Deny, "not before the promised instant");
    clock.set(start_us + 12_000_000);
    assert_eq!(ask().await.verdict, Verdict::Allow, "at the promised instant");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ask().await.verdict, Verdict::Deny, "timers are not the wall clock");
}
