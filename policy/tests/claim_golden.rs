//! What messages say of claims, frozen: documents as in `wire_golden.rs`, and the frame behind them.

use tidegate_policy::wire::{
    BadMessage, ClaimState, DecideReply, DecideRequest, DecisionId, Finished, SettleReply,
    SettleRequest, encode, encode_framed,
};

const ASKED: &str = include_str!("golden/decide-claim-request.json");
const REPLY: &str = include_str!("golden/decide-claim-reply.json");
const FINISH: &str = include_str!("golden/settle-finish-request.json");
/// Headers of 16 octets, and a body that is no text.
const OCTETS: &[u8] = b"\x00\x08\x00\x04location/o/1\x00\xff";

fn normal(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).expect("JSON")
}

fn id() -> DecisionId {
    serde_json::from_str("\"01234567-89ab-8def-8123-456789abcdef\"").expect("an id")
}

fn framed(document: &str, octets: &[u8]) -> Vec<u8> {
    let len = u32::try_from(octets.len()).expect("short").to_be_bytes();
    [document.as_bytes(), b"\0", &len, octets].concat()
}

#[test]
fn a_claim_beside_a_decision() {
    let message = DecideRequest::decode(ASKED.as_bytes()).expect("the golden file is read");
    assert_eq!(normal(&encode(&message)), normal(ASKED.as_bytes()));
    let plain = message.claim.clone().map(|mut claim| {
        (claim.takeover, claim.look, claim.older_keys, claim.ephemeral) =
            (false, false, false, false);
        (claim.keyed.configured, claim.replicas) = (false, None);
        normal(&encode(&claim)).as_object().map(serde_json::Map::len)
    });
    assert_eq!(plain, Some(Some(5)), "what is not wanted is not written");
    for (from, to, expected) in [
        ("\"acme\"", "null", "send the tenant's name"),
        ("\"lock_ms\": 20000", "\"lock_ms\": 0", "lock_ms is at least 1"),
        ("\"life_s\": 86400", "\"life_s\": 20", "shorter than life_s"),
        ("\"life_s\": 86400", "\"life_s\": 2592001", "life_s is 1 to 2592000"),
        ("\"8e03978e-40d5-43e8-bc93-6894a57f9324\"", "\"\"", "is empty"),
        ("POST /v1", "POST v1", "an endpoint is a method"),
        ("07d585c4", "07D585C4", "64 lower-case"),
        ("\"count\": 1", "\"count\": 0", "count is at least 1"),
        ("\"within_ms\": 100", "\"within_ms\": 2001", "within_ms 1 to 2000"),
        ("\"claim\"", "\"later\"", "0 limits: send 1 to 64"),
    ] {
        let broken = ASKED.replacen(from, to, 1);
        assert_ne!(broken, ASKED);
        let error = DecideRequest::decode(broken.as_bytes()).expect_err(to);
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
}

#[test]
fn an_answer_in_a_frame() {
    let bytes = framed(REPLY, OCTETS);
    let reply = DecideReply::decode(&bytes, id()).expect("the golden file is read");
    let answer = reply.answer().expect("sound").expect("there is one");
    let headers: Vec<_> = answer.headers.iter().collect();
    assert_eq!(headers, [(b"location".as_slice(), b"/o/1".as_slice())]);
    assert_eq!((answer.status, answer.body), (201, Some(b"\x00\xff".to_vec())));
    let written = encode_framed(&reply, &reply.octets);
    assert_eq!(DecideReply::decode(&written, id()).as_ref(), Ok(&reply));
    let bad = [
        (REPLY.to_owned(), &OCTETS[..10]),
        (REPLY.replacen("16", "17", 1), OCTETS),
        (REPLY.replacen("16", "99", 1), OCTETS),
        (REPLY.replacen("true", "false", 1), OCTETS),
        (REPLY.replacen("\"done\"", "\"conflict\"", 1), OCTETS),
    ];
    for (document, octets) in bad {
        let read = DecideReply::decode(&framed(&document, octets), id());
        assert_eq!(read, Err(BadMessage::Frame), "{document}");
    }
}

#[test]
fn every_state_is_written_as_it_is_read() {
    let states = [
        (
            r#"{"state":"claimed","fence":3}"#,
            ClaimState::Claimed { fence: 3, taken_over: false, replicas: None },
        ),
        (
            r#"{"state":"claimed","fence":4,"taken_over":true}"#,
            ClaimState::Claimed { fence: 4, taken_over: true, replicas: None },
        ),
        (
            r#"{"state":"claimed","fence":4,"replicas":2}"#,
            ClaimState::Claimed { fence: 4, taken_over: false, replicas: Some(2) },
        ),
        (r#"{"state":"in_flight","wait_us":7}"#, ClaimState::InFlight { wait_us: 7 }),
        (r#"{"state":"unreadable","status":201}"#, ClaimState::Unreadable { status: 201 }),
        (r#"{"state":"conflict"}"#, ClaimState::Conflict),
        (r#"{"state":"unknown"}"#, ClaimState::Unknown),
        (r#"{"state":"absent"}"#, ClaimState::Absent),
        (r#"{"state":"spent"}"#, ClaimState::Spent),
        (r#"{"state":"forgets"}"#, ClaimState::Forgets),
    ];
    for (text, state) in states {
        assert_eq!(String::from_utf8(encode(&state)).as_deref(), Ok(text));
        assert_eq!(serde_json::from_str::<ClaimState>(text).ok(), Some(state));
    }
}

#[test]
fn a_claim_is_finished() {
    let message = SettleRequest::decode(&framed(FINISH, OCTETS)).expect("the golden file is read");
    assert_eq!(normal(&encode(&message)), normal(FINISH.as_bytes()));
    assert_eq!(message.octets, OCTETS);
    let abandon = r#""by": {"step": "abandon", "life_s": 60}"#;
    let extend = r#""by": {"step": "extend", "lock_ms": 9, "life_s": 60}"#;
    let by = &FINISH[FINISH.find("\"by\"").expect("there")..FINISH.rfind("\n  }").expect("there")];
    let with = |step: &str| FINISH.replacen(by, step, 1);
    for (document, octets, expected) in [
        (FINISH.to_owned(), &b""[..], "not the frame it tells of"),
        (FINISH.replacen("16", "99", 1), OCTETS, "not the frame it tells of"),
        (with(abandon), OCTETS, "not the frame it tells of"),
        (with(extend).replacen("\"fence\": 1", "\"fence\": 0", 1), b"", "without a fence"),
        (
            with(extend).replacen("\"fence\": 1", "\"fence\": 9007199254740992", 1),
            b"",
            "below 2^53",
        ),
        (with(extend).replacen("\"life_s\": 60", "\"life_s\": 0", 1), b"", "life_s is 1 to"),
        (FINISH.replacen("\"acme\"", "null", 1), OCTETS, "send the tenant's name"),
        (FINISH.replacen("\"finish\"", "\"later\"", 1), b"", "0 limits"),
    ] {
        let bytes = encode_frame(&document, octets);
        let error = SettleRequest::decode(&bytes).expect_err(expected);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    let unheard = with(abandon).replacen("\"fence\": 1", "\"fence\": 0", 1);
    for document in [with(abandon), unheard, with(extend)] {
        assert!(SettleRequest::decode(document.as_bytes()).is_ok(), "{document}");
    }
    let text = include_str!("golden/settle-finish-reply.json");
    let reply = SettleReply::decode(text.as_bytes(), id()).expect("the golden file is read");
    assert_eq!(normal(&encode(&reply)), normal(text.as_bytes()));
    assert_eq!(reply.finish, Some(Finished::AlreadyDone));
}

/// No octets, no frame.
fn encode_frame(document: &str, octets: &[u8]) -> Vec<u8> {
    if octets.is_empty() { document.as_bytes().to_vec() } else { framed(document, octets) }
}
