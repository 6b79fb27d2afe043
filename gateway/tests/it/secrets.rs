//! Tokens in files, changed while the gateway runs.

use std::fs;
use std::time::Duration;

use http::Method;
use tidegate_gateway::{Cores, Environment, Gateway, StartError, World};
use tidegate_policy::wire::{DECIDE_PATH, encode};

use crate::bench::{Caller, Speaks, question, request, settings_with, start};
use tidegate_tests::eventually;

#[tokio::test]
async fn a_token_is_rotated_without_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    fs::write(&file, "old-token\n").expect("written");
    let flags = format!("--token-file {}", file.display());
    let gateway = start(settings_with(&flags, &Environment::default())).await;
    let caller = Caller::new(Speaks::Http2);
    let status = async |token: &str| {
        let body = encode(&question("a"));
        let request = request(gateway.data_addr, Method::POST, DECIDE_PATH, Some(token), body);
        caller.send(request).await.status.as_u16()
    };
    let becomes = async |token: &str, expected: u16| {
        eventually(Duration::from_secs(60), token, async || match status(token).await {
            found if found == expected => Ok(()),
            found => Err(found),
        })
        .await;
    };
    assert_eq!((status("old-token").await, status("new-token").await), (200, 401));
    fs::write(&file, "old-token\nnew-token\n").expect("written");
    becomes("new-token", 200).await;
    assert_eq!(status("old-token").await, 200, "both are good during the rotation");
    fs::write(&file, "new-token\n").expect("written");
    becomes("old-token", 401).await;
    assert_eq!(status("new-token").await, 200);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_stops_the_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    let refused = async |flags: String| {
        let settings = settings_with(&flags, &Environment::default());
        let world = World::from_settings(&settings, Cores::here()).expect("a world");
        match Gateway::start(settings, world).await {
            Err(error @ StartError::Secret(_)) => error.to_string(),
            Err(error) => panic!("{error}"),
            Ok(_running) => panic!("started"),
        }
    };
    let token = format!("--token-file {}", file.display());
    assert!(refused(token.clone()).await.starts_with("--token-file: cannot read "));
    fs::write(&file, " \n\n").expect("written");
    let empty = refused(token).await;
    assert!(empty.contains("is empty: write the secret into it"), "{empty}");
    fs::write(&file, "ann:king:t0psecret").expect("written");
    let admin = refused(format!("--dev --admin-tokens-file {}", file.display())).await;
    assert!(admin.contains("the role must be viewer, operator or admin"), "{admin}");
    assert!(!admin.contains("t0psecret"), "{admin}");
}
