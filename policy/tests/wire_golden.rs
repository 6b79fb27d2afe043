//! The messages between filter and gateway, frozen: each golden file must decode, and encode to
//! the same document. A change here is a change of the protocol and needs a new version.

use tidegate_policy::identity::SubjectName;
use tidegate_policy::wire::audit::{AuditNote, AuditReply, AuditRequest, Brief, Halves};
use tidegate_policy::wire::{
    BadMessage, DecideReply, DecideRequest, DecisionId, Refusal, SettleReply, SettleRequest, encode,
};

fn normal(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).expect("JSON")
}

#[test]
fn decide_request() {
    for text in [
        include_str!("golden/decide-request.json"),
        include_str!("golden/decide-request-minimal.json"),
        include_str!("golden/decide-request-tenant.json"),
    ] {
        let message = DecideRequest::decode(text.as_bytes()).expect("the golden file is read");
        assert_eq!(normal(&encode(&message)), normal(text.as_bytes()));
    }
}

#[test]
fn decide_reply() {
    let text = include_str!("golden/decide-reply.json");
    let asked: DecisionId =
        serde_json::from_str("\"01234567-89ab-8def-8123-456789abcdef\"").expect("an id");
    let message = DecideReply::decode(text.as_bytes(), asked).expect("the golden file is read");
    assert_eq!(normal(&encode(&message)), normal(text.as_bytes()));
    let other = DecisionId::new(7);
    assert!(matches!(DecideReply::decode(text.as_bytes(), other), Err(BadMessage::Malformed(_))));
}

#[test]
fn settle() {
    let text = include_str!("golden/settle-request.json");
    let message = SettleRequest::decode(text.as_bytes()).expect("the golden file is read");
    assert_eq!(normal(&encode(&message)), normal(text.as_bytes()));
    for (from, to, expected) in [
        ("\"by\": -3", "\"by\": 0", "limit api.strict is to be adjusted by 0"),
        ("\"by\": -3", "\"by\": -1000000001", "send -1000000000 to 1000000000"),
        ("\"burst\": 100,", "\"burst\": 99,", "a window has no burst of its own"),
        ("\"adjustments\": [", "\"adjustments\": [], \"x\": [", "0 limits: send 1 to 64"),
        ("\"window\"", "\"fixed\"", "unknown variant `fixed`"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text);
        let error = SettleRequest::decode(broken.as_bytes()).expect_err(to);
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
    let text = include_str!("golden/settle-reply.json");
    let reply = SettleReply::decode(text.as_bytes(), message.id).expect("the golden file is read");
    assert_eq!(normal(&encode(&reply)), normal(text.as_bytes()));
    assert!(SettleReply::decode(text.as_bytes(), DecisionId::new(7)).is_err());
}

#[test]
fn audit_events() {
    let text = include_str!("golden/audit-request.json");
    let message = AuditRequest::decode(text.as_bytes()).expect("the golden file is read");
    assert_eq!(normal(&encode(&message)), normal(text.as_bytes()));
    for (from, to, expected) in [
        ("\"deny\"", "\"admin\"", "its action is none of a filter's"),
        ("\"deny\"", "\"fly\"", "unknown variant `fly`"),
        ("\"00112233445566778899aabbccddeeff-1\"", "\"gateway-1\"", "its id is not 32 hex digits"),
        ("eeff-1\"", "eeff-\"", "its id is not 32 hex digits"),
        ("eeff-1\"", "eeFF-1\"", "its id is not 32 hex digits"),
        ("\"quota-exceeded\"", "\"\"", "its outcome is empty"),
        ("\"api.per-client\"", "\"api per client\"", "is no limit id"),
        ("\"events\": [", "\"events\": [], \"x\": [", "send 1 to 64 events"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text);
        let error = AuditRequest::decode(broken.as_bytes()).expect_err(to);
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
    // Filters of before say `null` where none is meant; filters of now leave it out.
    let older = text.replacen("\"config\":", "\"tenant\": null, \"config\":", 1);
    assert_ne!(older, text);
    assert_eq!(AuditRequest::decode(older.as_bytes()), Ok(message.clone()));
    // One that cannot be read does not keep the other from being taken.
    let broken = text.replacen("\"deny\"", "\"fly\"", 1);
    let heard = AuditRequest::hear(broken.as_bytes()).expect("the message is read");
    let sound: Vec<bool> = heard.events.iter().map(Result::is_ok).collect();
    assert_eq!(sound, [false, true]);
    let text = include_str!("golden/audit-reply.json");
    let reply =
        AuditReply::decode(text.as_bytes(), message.id, (2, 0)).expect("the golden file is read");
    assert_eq!(normal(&encode(&reply)), normal(text.as_bytes()));
    // A gateway of before does not say that it reads briefs, and so does not.
    assert!(reply.briefs);
    let older = text.replacen(", \"briefs\": true", "", 1);
    assert_ne!(older, text);
    let reply = AuditReply::decode(older.as_bytes(), message.id, (2, 0)).expect("it is read");
    assert!(!reply.briefs);
    for (events, briefs) in [(3, 0), (1, 0), (1, 1), (2, 1)] {
        assert!(AuditReply::decode(text.as_bytes(), message.id, (events, briefs)).is_err());
    }
    assert!(AuditReply::decode(text.as_bytes(), DecisionId::new(7), (2, 0)).is_err());
}

#[test]
fn what_became_of_brief_audit_events() {
    use tidegate_policy::wire::audit::Kept::{Kept, Later, Refused};
    let text = include_str!("golden/audit-reply-brief.json");
    let id = serde_json::from_value(normal(text.as_bytes())["id"].clone()).expect("an id");
    let reply = AuditReply::decode(text.as_bytes(), id, (2, 5)).expect("the golden file is read");
    let each = [Kept, Later, Kept, Kept, Kept, Later, Refused];
    assert_eq!((&reply.events[..], &reply.brief_events[..]), (&each[..], &[][..]));
    assert_eq!(normal(&encode(&AuditReply::new(id, each.to_vec(), 5))), normal(text.as_bytes()));
    for count in [(2, 4), (2, 6), (7, 0), (0, 7)] {
        assert!(AuditReply::decode(text.as_bytes(), id, count).is_err(), "{count:?}");
    }
    // No more than there are, whatever it says.
    let many = text.replacen("[\"kept\", 3]", "[\"kept\", 4294967295]", 1);
    assert_ne!(many, text);
    assert!(AuditReply::decode(many.as_bytes(), id, (2, 5)).is_err());
}

#[test]
fn brief_audit_events() {
    let text = include_str!("golden/audit-request-brief.json");
    let message = AuditRequest::decode(text.as_bytes()).expect("the golden file is read");
    let [first, second, like_first, like_second] = &message.events[..] else {
        panic!("{message:?}");
    };
    let detail = |id| format!("names=api.per-client decision={id}");
    assert_eq!(first.detail, detail("11111111-89ab-8def-8123-456789abcdef"));
    let mut about = first.about.clone();
    about[0].subject.name = SubjectName::from_bytes(b"192.0.2.1");
    let decision = "22222222-89ab-8def-8123-456789abcdee";
    let whole = AuditNote {
        id: "00112233445566778899aabbccddeeff-2".to_owned(),
        age_ms: 7,
        detail: detail(decision),
        more: 0,
        about,
        ..first.clone()
    };
    assert_eq!(like_first, &whole);
    let id = "00112233445566778899aabbccddeeff-4".to_owned();
    assert_eq!(like_second, &AuditNote { id, ..second.clone() });
    // A filter writes what is read here.
    let [first, id]: [DecisionId; 2] = ["11111111-89ab-8def-8123-456789abcdef", decision]
        .map(|id| serde_json::from_value(id.into()).expect("an id"));
    let brief = Brief {
        like: 0,
        number: 2,
        age_ms: 7,
        decision: Some(Halves::between(Some(first), id)),
        names: vec![SubjectName::from_bytes(b"192.0.2.1")],
    };
    let written: serde_json::Value = normal(text.as_bytes());
    assert_eq!(serde_json::to_value(&brief).expect("JSON"), written["briefs"][0]);
    // What is wrong with one is wrong with that one, and with those that are like it.
    for (from, to, sound) in [
        ("[0, 2", "[2, 2", [true, true, false, true]),
        ("[0, 2", "[-1, 2", [true, true, false, true]),
        ("[0, 2", "[0, -2", [true, true, false, true]),
        ("[0, 2", "[0, 18446744073709551615", [true, true, false, true]),
        ("[\"192.0.2.1\"]", "[]", [true, true, false, true]),
        ("[\"192.0.2.1\"]", "[\"192.0.2.1\", \"192.0.2.2\"]", [true, true, false, true]),
        ("[\"192.0.2.1\"]", "[\"a name\"]", [true, true, false, true]),
        ("null, []]", "null, [\"192.0.2.1\"]]", [true, true, true, false]),
        ("null, []]", "null, []], 7", [true, true, true, true]),
        ("\"deny\"", "\"fly\"", [false, true, false, true]),
        ("eeff-3\"", "eeff\"", [true, false, true, false]),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text);
        let heard = AuditRequest::hear(broken.as_bytes()).expect("the message is read");
        let heard: Vec<bool> = heard.events.iter().take(4).map(Result::is_ok).collect();
        assert_eq!(heard, sound, "{to}");
    }
    let many = |count| format!("\"briefs\": [{}", "[1, 4, 0, null, []], ".repeat(count));
    for (count, is_read) in [(764, true), (765, false)] {
        let long = text.replacen("\"briefs\": [", &many(count), 1);
        assert_eq!(AuditRequest::hear(long.as_bytes()).is_ok(), is_read, "{count}");
    }
    let none = text.replacen("\"briefs\": [", "\"briefs\": 7, \"x\": [", 1);
    assert!(AuditRequest::hear(none.as_bytes()).is_err());
}

#[test]
fn refusal() {
    let text = include_str!("golden/refusal.json");
    let message = Refusal::decode(text.as_bytes()).expect("the golden file is read");
    assert_eq!((message.reason.as_str(), message.detail.as_str()), ("store-timeout", "30 ms"));
}

#[test]
fn unknown_fields_are_tolerated_and_unknown_versions_are_not() {
    let text = include_str!("golden/decide-request-minimal.json");
    let wider = text.replacen('{', "{\"later\": [1], ", 1);
    assert!(DecideRequest::decode(wider.as_bytes()).is_ok());
    let newer = text.replacen("\"v\": 1", "\"v\": 9", 1);
    assert_eq!(DecideRequest::decode(newer.as_bytes()), Err(BadMessage::Version(9)));
    let other_shape = newer.replacen("\"limits\"", "\"budgets\"", 1);
    assert_eq!(DecideRequest::decode(other_shape.as_bytes()), Err(BadMessage::Version(9)));
}

#[test]
fn what_cannot_be_is_refused() {
    let text = include_str!("golden/decide-request-minimal.json");
    for (from, to, expected) in [
        ("\"limit\": 5", "\"limit\": 0", "must be at least 1"),
        ("\"limit\": 5", "\"limit\": -1", "cannot be read"),
        ("api.per-client", "api:per", "is no limit id"),
        ("192.0.2.1", "192.0.2.1:80", "is spelled in"),
        ("\"limits\": [", "\"limits\": [], \"x\": [", "0 limits: send 1 to 64"),
        ("\"key_format\": 1", "\"key_format\": 2", "unknown key format"),
        ("89ab-8def", "89AB-8def", "lower-case UUID"),
        ("8123-456789abcdef", "8123456789abcdef", "lower-case UUID"),
        ("-8123-456789abcdef", "-8123-456789abcdef-0", "lower-case UUID"),
        ("01234567-89ab", "01234567-89a+", "lower-case UUID"),
        ("\"environment\": \"default\"", "\"environment\": \"a|b\"", "is no environment"),
        ("\"ip\"", "\"tenant\"", "counts by the tenant: send its name in the scope"),
        ("\"ip\"", "\"nobody\"", "unknown variant"),
        ("192.0.2.1", "ip!192.0.2.1+nobody!a", "is spelled in"),
        ("192.0.2.1", "ip!192.0.2.1+192.0.2.2", "is spelled in"),
        ("192.0.2.1", "ip.0!192.0.2.1", "is spelled in"),
        ("192.0.2.1", "ip!a+ip!a+ip!a+ip!a+ip!a", "is spelled in"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text);
        let error = DecideRequest::decode(broken.as_bytes()).expect_err(to);
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
    let long = vec![b' '; 64 * 1024 + 1];
    assert_eq!(DecideRequest::decode(&long), Err(BadMessage::TooLong));
}
