//! The message of a filter's tick, frozen: the golden files must decode, and encode to the same
//! document. A change here is a change of the protocol and needs a new version.

use tidegate_policy::wire::{
    DecideRequest, DecisionId, LEASES_MAX, LeaseCall, SyncReply, SyncRequest, encode,
};

const REQUEST: &str = include_str!("golden/sync-request.json");
const REPLY: &str = include_str!("golden/sync-reply.json");

fn normal(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).expect("JSON")
}

#[test]
fn the_golden_files_decode_and_encode() {
    let message = SyncRequest::decode(REQUEST.as_bytes()).expect("the golden file is read");
    assert_eq!(normal(&encode(&message)), normal(REQUEST.as_bytes()));
    let reply = SyncReply::decode(REPLY.as_bytes(), message.id).expect("the golden file is read");
    assert_eq!(normal(&encode(&reply)), normal(REPLY.as_bytes()));
    assert!(SyncReply::decode(REPLY.as_bytes(), DecisionId::new(7)).is_err());
    assert_eq!(SyncReply::beside_verdict(REPLY.as_bytes()), reply.leases);
    assert!(SyncReply::beside_verdict(b"{}").is_empty());
}

/// An older gateway hears a newer filter: parts that it does not know, and none that it does.
#[test]
fn every_part_is_optional_and_unknown_ones_are_passed_over() {
    let mut document = normal(REQUEST.as_bytes());
    let object = document.as_object_mut().expect("an object");
    object.remove("leases");
    object.insert("later".to_owned(), serde_json::json!([{ "a": 1 }]));
    let message = SyncRequest::decode(document.to_string().as_bytes()).expect("no part");
    assert!(message.leases.is_empty());
}

#[test]
fn what_cannot_be_is_refused() {
    for (from, to, expected) in [
        ("\"seq\": 17", "\"seq\": 0", "send seq from 1 on"),
        ("\"left\": 12", "\"left\": 1000000001", "units up to 1000000000"),
        ("\"left\": 12", "\"left\": -1", "cannot be read"),
        ("\"demand\": 800", "\"demand\": 2000000000", "units up to 1000000000"),
        ("00f067aa0ba902b7", "0f067aa0ba902b7", "16 digits of 0-9 a-f"),
        ("00f067aa0ba902b7", "+0f067aa0ba902b7", "16 digits of 0-9 a-f"),
        ("00f067aa0ba902b7", "00F067AA0BA902B7", "16 digits of 0-9 a-f"),
        ("\"tenant\": \"acme\",", "", "counts by the tenant"),
        ("\"limit\": 1000", "\"limit\": 0", "must be at least 1"),
        ("api.per-client", "api per-client", "is no limit id"),
        ("\"ahead\"", "\"more\"", "unknown variant `more`"),
    ] {
        let broken = REQUEST.replacen(from, to, 1);
        assert_ne!(broken, REQUEST, "{from}");
        let error = SyncRequest::decode(broken.as_bytes()).expect_err(to);
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
    let mut message = SyncRequest::decode(REQUEST.as_bytes()).expect("sound");
    message.leases = vec![message.leases[0].clone(); LEASES_MAX + 1];
    let error = SyncRequest::decode(&encode(&message)).expect_err("too many");
    assert!(error.to_string().contains("129 leases: send at most 128"), "{error}");
}

/// A full message of long names is below the longest that the gateway reads.
#[test]
fn as_many_leases_as_may_be_fit_into_a_message() {
    let mut message = SyncRequest::decode(REQUEST.as_bytes()).expect("sound");
    let mut lease = message.leases[1].clone();
    lease.id = "p".repeat(80);
    let subject = serde_json::json!({"kind": "tenant", "name": "a".repeat(96)});
    lease.subject = serde_json::from_value(subject).expect("a subject");
    message.leases = vec![lease; LEASES_MAX];
    assert!(SyncRequest::decode(&encode(&message)).is_ok());
}

#[test]
fn leases_travel_beside_a_decision_and_are_checked_there() {
    let text = include_str!("golden/decide-request-minimal.json");
    let mut message = DecideRequest::decode(text.as_bytes()).expect("sound");
    let sync = SyncRequest::decode(REQUEST.as_bytes()).expect("sound");
    message.leases = sync.leases;
    let read = DecideRequest::decode(&encode(&message)).expect("read");
    assert_eq!(read.leases, message.leases);
    message.leases[0] = LeaseCall { seq: 0, ..message.leases[0].clone() };
    assert!(DecideRequest::decode(&encode(&message)).is_err());
}
