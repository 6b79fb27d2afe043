//! A wrong configuration: the filter refuses to start and names the field; a wrong update leaves
//! the old configuration serving.

use std::time::Duration;

use tidegate_policy::config::Config;
use tidegate_policy::wire::Verdict;
use tidegate_tests::client;
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::scripted::{Script, Scripted};
use tidegate_tests::upstream::Upstream;

use crate::callout_faults::BOTH_RUNGS;

struct Parts {
    gateway: Scripted,
    upstream: Upstream,
}

async fn parts() -> Parts {
    Parts {
        gateway: Scripted::start(true, Script::Verdict(Verdict::Deny)).await,
        upstream: Upstream::start().await,
    }
}

impl Parts {
    fn options(&self, config: &str) -> Options {
        Options::new(self.gateway.addr, self.upstream.addr).config(config)
    }

    async fn refused(&self, options: &Options, expected: &[&str]) {
        let Err(output) = Envoy::try_start(options).await else { panic!("Envoy took {options:?}") };
        for line in expected {
            assert!(output.contains(line), "{line}\nis not in\n{output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_refuses_the_start_and_names_every_field() {
    let parts = parts().await;
    let wrong = BOTH_RUNGS.replacen("\"minute\"", "\"minut\"", 1).replacen("4s", "45", 1);
    let expected = [
        "tidegate: error: gateway.timeout: \"45\" is no duration; write 45ms",
        "tidegate: error: policies[0].rate_limits[0].per: \"minut\" is no duration; did you mean \"minute\"?",
        "(line 6, column",
    ];
    parts.refused(&parts.options(&wrong), &expected).await;
    parts.refused(&parts.options(""), &["tidegate: error: no configuration"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_there_refuses_the_start() {
    let parts = parts().await;
    let config =
        BOTH_RUNGS.replacen("\"timeout\": \"4s\"", "\"token\": {\"env\": \"TIDEGATE_TOKEN\"}", 1);
    let mut options = parts.options(&config);
    options.token = None;
    let expected = "gateway.token: the environment variable TIDEGATE_TOKEN is not set";
    parts.refused(&options, &[expected]).await;
}

/// As to the gateway: taken for `default` by one of them, it would be a mismatch nobody wrote.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_environment_refuses_the_start() {
    let parts = parts().await;
    let mut options = parts.options(BOTH_RUNGS);
    options.environment = Some(String::new());
    let expected =
        "TIDEGATE_ENVIRONMENT is empty: write the environment's name into it or unset it";
    parts.refused(&options, &[expected]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_update_leaves_the_old_configuration_serving() {
    let parts = parts().await;
    let mut options = parts.options(BOTH_RUNGS);
    options.dynamic = true;
    let envoy = Envoy::start(&options).await;
    assert_eq!(client::get(envoy.addr, "/strict/x").await.status, 429);
    assert_eq!(client::get(envoy.addr, "/other/x").await.status, 200);
    let hash = "tidegate_config_hash{filter=\"tidegate\"}";
    assert_eq!(envoy.metric(hash).await, hash_of(BOTH_RUNGS));

    envoy.update(&options.clone().config(&BOTH_RUNGS.replacen("\"limit\": 5", "\"limit\": 0", 1)));
    eventually(Duration::from_secs(60), "the update is refused", async || {
        let output = envoy.output();
        let field = "policies[0].rate_limits[0].limit: 0 admits no request at all";
        if output.contains(field) { Ok(()) } else { Err(output) }
    })
    .await;
    assert_eq!(client::get(envoy.addr, "/strict/x").await.status, 429, "the old one serves");
    assert_eq!(envoy.metric(hash).await, hash_of(BOTH_RUNGS));

    // A sound update is taken while the old one still serves.
    let sound = BOTH_RUNGS.replacen("/strict/**", "/other/**", 1);
    envoy.update(&options.clone().config(&sound));
    eventually(Duration::from_secs(60), "the update is taken", async || {
        // The listener of before closes its last connections while the new one takes over.
        let answer = client::try_get(envoy.addr, "/other/x").await;
        if answer.as_ref().is_some_and(|a| a.status == 429) { Ok(()) } else { Err(answer) }
    })
    .await;
    eventually(Duration::from_secs(60), "the old one is gone", async || {
        let answer = client::try_get(envoy.addr, "/strict/x").await;
        if answer.as_ref().is_some_and(|a| a.status == 200) { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!(envoy.metric(hash).await, hash_of(&sound));
}

fn hash_of(document: &str) -> u64 {
    Config::read(document).hash.expect("a document").gauge().into()
}
