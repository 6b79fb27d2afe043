//! The graceful end, in process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::bench::{BOTH, Caller, GatedStore, Speaks, question, settings, start_around};
use tidegate_tests::eventually;

#[tokio::test]
async fn what_is_under_way_is_finished_and_nothing_new_is_taken() {
    for speaks in BOTH {
        let store = GatedStore::new(false);
        let gateway = start_around(settings("--deadline 20s"), store.clone()).await;
        let (data, admin) = (gateway.data_addr, gateway.admin_addr);
        let mut asked = question("a");
        asked.timeout_ms = 30_000;
        let caller = Caller::new(speaks);
        let under_way = tokio::spawn(async move { caller.decide(data, &asked).await });
        eventually(Duration::from_secs(60), "the call is out", async || {
            if store.calls.load(Ordering::SeqCst) == 1 { Ok(()) } else { Err("not yet") }
        })
        .await;

        let ended = tokio::spawn(gateway.shutdown());
        let probe = Caller::new(Speaks::Http1);
        eventually(Duration::from_secs(60), "readyz says draining", async || {
            let answer = probe.get(admin, "/readyz", None).await;
            if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        eventually(Duration::from_secs(60), "new connections are refused", async || {
            match TcpStream::connect(data).await {
                Ok(_connected) => Err("accepted"),
                Err(_refused) => Ok(()),
            }
        })
        .await;
        assert!(!under_way.is_finished());
        store.gate.send_replace(true);
        let answer = under_way.await.expect("no panic");
        assert_eq!(answer.status, 200, "{speaks:?}");
        assert!(ended.await.expect("no panic"), "everything was finished");
    }
}

#[tokio::test]
async fn a_call_that_never_ends_is_cut_off_after_the_drain_timeout() {
    let store = GatedStore::new(false);
    let flags = settings("--deadline 20s --drain-timeout 50ms");
    let gateway = start_around(flags, store.clone()).await;
    let data = gateway.data_addr;
    let mut asked = question("a");
    asked.timeout_ms = 30_000;
    let caller = Caller::new(Speaks::Http2);
    let under_way = tokio::spawn(async move { caller.decide(data, &asked).await });
    eventually(Duration::from_secs(60), "the call is out", async || {
        if store.calls.load(Ordering::SeqCst) == 1 { Ok(()) } else { Err("not yet") }
    })
    .await;
    assert!(!gateway.shutdown().await, "something was left");
    under_way.abort();
}
