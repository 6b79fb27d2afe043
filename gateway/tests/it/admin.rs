//! The operators' listener: probes are open, everything else wants a token.

use std::time::Duration;

use http::Method;
use tidegate_gateway::Environment;

use crate::bench::{
    Caller, Speaks, TOKEN, VIEWER, question, request, settings, settings_with, start,
};
use tidegate_tests::eventually;

async fn ready(caller: &Caller, gateway: &tidegate_gateway::Running) {
    eventually(Duration::from_secs(60), "the gateway is ready", async || {
        let answer = caller.get(gateway.admin_addr, "/readyz", None).await;
        if answer.text() == r#"{"status":"ok"}"# { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

#[tokio::test]
async fn probes_are_open_and_say_little() {
    let gateway = start(settings("")).await;
    let caller = Caller::new(Speaks::Http1);
    ready(&caller, &gateway).await;
    let live = caller.get(gateway.admin_addr, "/livez", None).await;
    assert_eq!((live.status.as_u16(), live.text().as_str()), (200, r#"{"status":"ok"}"#));
    let post = request(gateway.admin_addr, Method::POST, "/livez", None, "");
    assert_eq!(caller.send(post).await.status, 405);
}

#[tokio::test]
async fn metrics_and_status_want_an_administrators_token() {
    let gateway = start(settings("--region here")).await;
    let caller = Caller::new(Speaks::Http1);
    ready(&caller, &gateway).await;
    let decided = caller.decide(gateway.data_addr, &question("a")).await;
    assert_eq!(decided.status, 200);
    for path in ["/metrics", "/v1/status", "/nothing"] {
        for token in [None, Some("wrong"), Some(TOKEN)] {
            let answer = caller.get(gateway.admin_addr, path, token).await;
            assert_eq!(answer.status, 401, "{path} {token:?}");
            assert_eq!(answer.reason(), "unauthorized");
        }
    }
    assert_eq!(caller.get(gateway.admin_addr, "/nothing", Some(VIEWER)).await.status, 404);
    let metrics = caller.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await;
    assert!(metrics.headers["content-type"].to_str().is_ok_and(|t| t.contains("openmetrics")));
    let text = metrics.text();
    for line in [
        "tidegate_gateway_decisions_total{verdict=\"allow\"} 1\n",
        "tidegate_gateway_decisions_total{verdict=\"deny\"} 0\n",
        "tidegate_gateway_in_flight_max 100\n",
        "tidegate_gateway_store_up{role=\"regional\"} 1\n",
        "tidegate_gateway_store_call_seconds_count{outcome=\"ok\"} 1\n",
        "tidegate_gateway_http_requests_total{listener=\"data\",status=\"200\"} 1\n",
        "tidegate_gateway_audit_events_total{action=\"refuse_caller\"} 9\n",
        "# EOF\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let status = caller.get(gateway.admin_addr, "/v1/status", Some(VIEWER)).await;
    let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
    assert_eq!(status["region"], "here");
    assert_eq!(status["stores"][0]["kind"], "memory");
    assert_eq!(status["pool"]["max_in_flight"], 100);
    let text = caller.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
    let accesses = "tidegate_gateway_audit_events_total{action=\"admin\"} 4\n";
    assert!(text.contains(accesses), "each access by a token is an event: {text}");
}

#[tokio::test]
async fn without_tokens_the_door_is_shut_and_says_how_to_open_it() {
    let gateway = start(settings_with("", &Environment::from([("TIDEGATE_TOKEN", TOKEN)]))).await;
    let caller = Caller::new(Speaks::Http1);
    let answer = caller.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("TIDEGATE_ADMIN_TOKENS"), "{}", answer.text());
}

#[tokio::test]
async fn dev_opens_only_what_has_no_token() {
    let open = start(settings_with("--dev", &Environment::default())).await;
    let caller = Caller::new(Speaks::Http1);
    assert_eq!(caller.get(open.admin_addr, "/metrics", None).await.status, 200);
    assert_eq!(caller.decide(open.data_addr, &question("a")).await.status, 200);

    let shut = start(settings("--dev")).await;
    assert_eq!(caller.get(shut.admin_addr, "/metrics", None).await.status, 401);
    let body = tidegate_policy::wire::encode(&question("a"));
    let untold = request(shut.data_addr, Method::POST, "/v1/decide", None, body);
    assert_eq!(caller.send(untold).await.status, 401);
}
