//! Stored answers that are sealed: a client notices nothing, and whoever reads the store nothing either.

use tidegate_tests::gateway::{self, Gateway, ROOMY};

use crate::idempotency::{Bench, bench, replayed, told};

const ONE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const TWO: &str = "0202020202020202020202020202020202020202020202020202020202020202";

/// The gateway starts again where it was, with these keys.
async fn restart(bench: &mut Bench, keys: &[(&str, &str)]) {
    let listen = bench.gateway.addr.to_string();
    bench.gateway.process().kill();
    let mut options = gateway::Options::redis(&bench.redis.url()).flags(&ROOMY);
    let keys = keys.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    options.variables.extend(keys);
    bench.gateway = Gateway::start(&gateway::Options { listen, ..options }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_is_given_again_until_its_key_is_gone() {
    let mut bench = bench(1).await;
    let (one, two) = (("TIDEGATE_SEAL_KEY_V1", ONE), ("TIDEGATE_SEAL_KEY_V2", TWO));
    restart(&mut bench, &[one]).await;
    // The way to the gateway is open again once it was asked.
    let first = tidegate_tests::eventually(crate::idempotency::WITHIN, "it runs", async || {
        let answer = bench.post("/orders", "k1", "", "{}").await;
        if answer.status == 201 { Ok(answer) } else { Err(answer) }
    })
    .await;
    let record = "idempotency:tenant:acme:ep:POST%20%2Forders:k1";
    let lies = bench.redis.command(&["GET", record]).await;
    assert!(lies.contains(":sealed"), "{lies}");
    for text in ["run ", "/orders/", "octet-stream", "x-order"] {
        assert!(!lies.contains(text), "{text}: {lies}");
    }
    let again = bench.post("/orders", "k1", "", "{}").await;
    assert_eq!((told(&again), replayed(&again)), (told(&first), true));

    for (keys, is_read) in [(vec![one, two], true), (vec![two], false)] {
        restart(&mut bench, &keys).await;
        let runs = bench.upstream.runs();
        let again = tidegate_tests::eventually(crate::idempotency::WITHIN, "asked", async || {
            let answer = bench.post("/orders", "k1", "", "{}").await;
            if answer.status == 503 { Err(answer) } else { Ok(answer) }
        })
        .await;
        if is_read {
            assert_eq!((told(&again), replayed(&again)), (told(&first), true));
        } else {
            let reply = again.header("x-tidegate-reply");
            assert_eq!((again.status, reply), (409, Some("idempotency-result-not-stored")));
            assert_eq!(again.json()["stored-status"].as_u64(), Some(201), "{again:?}");
            let body = r#"{"tenant": "acme", "endpoint": "POST /orders", "key": "k1"}"#;
            let look = bench.gateway.command("/v1/idempotency/look", body).await;
            assert_eq!(look.json()["state"], "unreadable", "{look:?}");
            let metrics = bench.gateway.admin("/metrics").await.body;
            let count = metrics.lines().find(|line| line.contains("store_unreadable_total "));
            assert!(count.is_some_and(|line| !line.ends_with(" 0")), "{count:?}");
        }
        assert_eq!(bench.upstream.runs(), runs, "and it never runs again");
    }
}
