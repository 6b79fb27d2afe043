//! The filter's audit events over minutes of virtual time, with a gateway that keeps a book of them: what is
//! told, sent again, counted and lost; and what it costs a request, in calls of the host and in instructions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tidegate_host_sim::{
    Answer, Fault, HeaderMap, Outcome, Reply, Report, Scenario, Service, ServiceRequest, Services,
};
use tidegate_policy::audit::Action;
use tidegate_policy::config::ConfigHash;
use tidegate_policy::wire::audit::{AUDIT_PATH, AuditNote, AuditReply, AuditRequest, Kept};
use tidegate_policy::wire::{self, DECIDE_PATH, DecideReply, DecideRequest, LimitState, Verdict};
use tidegate_tests::parts;

use super::runner;

mod back;
mod busy;
mod leaves;
mod sync;

/// What the gateway heard.
#[derive(Debug, Default)]
struct Book {
    /// By id: the events on record.
    kept: BTreeMap<String, AuditNote>,
    /// The ids of every message, heard or not.
    messages: Vec<Vec<String>>,
    /// When urgent messages were answered, since 1970.
    urgent_ns: Vec<u64>,
    /// How many events came in brief to who reads that, and to who does not.
    briefs: (usize, usize),
}

/// A gateway that admits everything and keeps the book; the first messages with events are lost on their way back.
#[derive(Debug, Clone)]
struct Keeper {
    book: Arc<Mutex<Book>>,
    unanswered: usize,
    /// Whether what is not answered was heard all the same.
    hears: bool,
    /// What becomes of messages that a decision waits for.
    urgent: Urgent,
    /// Whether questions have no answer.
    is_mute: bool,
    /// Whether every second message reaches one that was not upgraded.
    is_mixed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgent {
    /// They are answered after so many ms, and so are others.
    After(u64),
    /// The answer says that they are not on record yet.
    Later,
    /// The answer says that they never will be.
    Unwanted,
    /// They have no answer, though they are heard.
    Unanswered,
    /// They are never sent: there is nobody.
    Refused,
}

impl Keeper {
    fn events(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let mut message = AuditRequest::decode(body).expect("a sound message");
        let is_older =
            self.is_mixed && self.book.lock().expect("no panic").messages.len().is_multiple_of(2);
        let body: Value = serde_json::from_slice(body).expect("JSON");
        let briefs = body["briefs"].as_array().map_or(0, Vec::len);
        // To who was not upgraded, what it does not know of is not there.
        let read = if is_older { 0 } else { briefs };
        message.events.truncate(message.events.len() - (briefs - read));
        if message.urgent && self.urgent == Urgent::Later {
            let later = vec![Kept::Later; message.events.len()];
            return Some(wire::encode(&AuditReply::new(message.id, later, read)));
        }
        let mut book = self.book.lock().expect("no panic");
        let came = if is_older { &mut book.briefs.1 } else { &mut book.briefs.0 };
        *came += briefs;
        book.messages.push(message.events.iter().map(|note| note.id.clone()).collect());
        let is_answered = book.messages.len() > self.unanswered;
        let kept = vec![Kept::Kept; message.events.len()];
        if message.urgent && self.urgent == Urgent::Unwanted {
            let refused = vec![Kept::Refused; message.events.len()];
            return Some(wire::encode(&AuditReply::new(message.id, refused, read)));
        }
        if is_answered || self.hears {
            for note in message.events {
                let note = AuditNote { config: note.config.or(message.config), ..note };
                let told = book.kept.entry(note.id.clone()).or_insert_with(|| note.clone());
                assert_eq!(
                    (&told.detail, told.more),
                    (&note.detail, note.more),
                    "one id, one event"
                );
            }
        }
        let reply = AuditReply { briefs: !is_older, ..AuditReply::new(message.id, kept, read) };
        is_answered.then(|| wire::encode(&reply))
    }
}

impl Service for Keeper {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        let (mut status, path) = (200, request.path());
        let fault = |fault| Reply { after_ns: 0, outcome: Outcome::Fault(fault), tries: 1 };
        let after_ns = match self.urgent {
            Urgent::After(after_ms) if path == AUDIT_PATH => after_ms * 1_000_000,
            _ => 0,
        };
        if path == AUDIT_PATH && AuditRequest::decode(&request.body).is_ok_and(|m| m.urgent) {
            match self.urgent {
                Urgent::After(_) | Urgent::Later | Urgent::Unwanted => {}
                Urgent::Unanswered => {
                    self.events(&request.body);
                    return fault(Fault::Timeout);
                }
                Urgent::Refused => return fault(Fault::Refused),
            }
            let mut book = self.book.lock().expect("no panic");
            book.urgent_ns.push(now_unix_ns + after_ns);
        }
        if path == DECIDE_PATH && self.is_mute {
            return fault(Fault::Refused);
        }
        let body = if path == AUDIT_PATH {
            self.events(&request.body)
        } else if path != DECIDE_PATH {
            // What circuit breakers report is nothing to this one.
            status = 404;
            Some(Vec::new())
        } else {
            let asked = DecideRequest::decode(&request.body).expect("a question");
            let config = request.headers.text(wire::CONFIG_HEADER).expect("by a configuration");
            assert!(ConfigHash::read(&config).is_some(), "{config}");
            let state = |id: String| LimitState {
                id,
                allowed: true,
                remaining: 7,
                next_us: 1,
                reset_us: 1,
                retry_us: Some(0),
                limit: None,
                unread: false,
                charged_us: None,
            };
            Some(wire::encode(&DecideReply {
                v: wire::VERSION,
                id: asked.id,
                verdict: Verdict::Allow,
                limits: asked.limits.into_iter().map(|limit| state(limit.id)).collect(),
                claim: None,
                leases: Vec::new(),
                octets: Vec::new(),
            }))
        };
        let Some(body) = body else {
            return fault(Fault::Timeout);
        };
        let mut headers = HeaderMap::default();
        headers.add(b"x-tidegate-gateway", b"v1");
        let reply = Reply::now(Answer { headers, ..Answer::new(status, body) });
        Reply { after_ns, ..reply }
    }
}

/// Runs a timeline under one policy of each kind.
fn run(audit: &str, until: &str, timeline: &str, unanswered: usize, hears: bool) -> (Report, Book) {
    let book = Arc::default();
    let urgent = Urgent::After(0);
    let keeper = Keeper { book, unanswered, hears, urgent, is_mute: false, is_mixed: false };
    run_with(audit, until, timeline, keeper)
}

fn run_with(audit: &str, until: &str, timeline: &str, keeper: Keeper) -> (Report, Book) {
    let yaml = format!(
        "name: audit
plugin:
  config:
    version: 1
    gateway: {{ cluster: tidegate, timeout: 45ms }}
    {audit}
    policies:
      - name: p
        match: {{ path: /p }}
        rate_limits: [{{ name: ip, by: ip, limit: 100, per: minute }}]
      - name: who
        match: {{ path: /who }}
        rate_limits: [{{ name: key, by: {{ header: x-key }}, limit: 100, per: minute }}]
      - name: up
        match: {{ path: /up }}
        circuit_breaker: {{ open: 1h }}
      - name: again
        match: {{ path: /again }}
        circuit_breaker: {{ open: 1s }}
      - name: open
        match: {{ path: /open }}
        rate_limits: [{{ name: ip, by: ip, limit: 100, per: minute }}]
        on_unavailable: [allow]
host: {{ workers: 1, until: {until} }}
gateway: in-process
upstream:
  - {{ on: GET /up, answer: {{ status: 500 }} }}
  - {{ on: GET /again, answer: {{ status: 500 }}, times: 5 }}
  - {{ on: GET /again, answer: {{ status: 200 }}, times: 10 }}
  - {{ on: GET /again, answer: {{ status: 500 }}, times: 5 }}
  - {{ answer: {{ status: 200 }} }}
timeline:
{timeline}"
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let wasm = std::fs::read(parts::filter("tidegate")).expect("the built filter");
    let book = Arc::clone(&keeper.book);
    let services = Services::default().bind_fresh(move || keeper.clone());
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    let book = std::mem::take(&mut *book.lock().expect("no panic"));
    (report, book)
}

fn told(book: &Book, action: Action) -> Vec<&AuditNote> {
    let mut notes: Vec<_> = book.kept.values().filter(|note| note.action == action).collect();
    notes.sort_by_key(|note| (note.more, note.detail.clone()));
    notes
}

fn metric(report: &Report, fate: &str) -> u64 {
    let name = format!("tidegate_audit_events_total.outcome.{fate}");
    report.metrics.get(&name).copied().unwrap_or_default()
}

const DENIALS: &str = "
  - { at: 100ms, client: nobody, times: 40, every: 10ms, send: { path: /who } }
  - { at: 100ms, client: up, times: 25, every: 10ms, send: { path: /up } }
  - { at: 100ms, client: p, times: 10, every: 10ms, send: { path: /p } }
";

#[test]
fn what_the_filter_denies_is_told_once_then_counted_and_what_the_gateway_admits_is_not() {
    let (report, book) = run("audit: {}", "70s", DENIALS, 0, false);
    let denials = told(&book, Action::Deny);
    let seen: Vec<_> = denials.iter().map(|n| (n.outcome.as_str(), n.more)).collect();
    // Five failures open the circuit; twenty requests are refused.
    let expected = [
        ("circuit-open", 0),
        ("client-identity-required", 0),
        ("circuit-open", 19),
        ("client-identity-required", 39),
    ];
    assert_eq!(seen, expected, "{book:?}");
    assert!(denials[0].detail.starts_with("names=up decision="), "{denials:?}");
    assert!(denials[1].detail.starts_with("names=who.key decision="), "{denials:?}");
    let breakers = told(&book, Action::Breaker);
    assert_eq!(breakers.len(), 1, "{book:?}");
    let configs = told(&book, Action::Config);
    assert_eq!(configs.len(), 1, "{book:?}");
    assert!(configs[0].detail.contains("policies=5 audit=on"), "{configs:?}");
    assert_eq!(told(&book, Action::Allow), Vec::<&AuditNote>::new());
    assert_eq!((metric(&report, "kept"), metric(&report, "lost")), (62, 0));
    // Of the worker one message for the beginning and one for the window's counts; and the configuration.
    assert_eq!(book.messages.len(), 3, "{book:?}");
}

/// Twice within a minute, for the worse and for the better.
#[test]
fn each_change_of_a_process_s_circuit_is_told() {
    let timeline = "
  - { at: 100ms, client: c, times: 5, every: 10ms, send: { path: /again } }
  - { at: 5s, client: c, times: 40, every: 100ms, send: { path: /again } }
  - { at: 15s, client: c, times: 20, every: 100ms, send: { path: /again } }
";
    let (_, book) = run("audit: {}", "30s", timeline, 0, false);
    let mut breakers = told(&book, Action::Breaker);
    breakers.sort_by_key(|note| note.id.rsplit_once('-').and_then(|(_, n)| n.parse::<u64>().ok()));
    let outcomes: Vec<_> = breakers.iter().map(|note| note.outcome.as_str()).collect();
    assert_eq!(outcomes, ["circuit-open", "ok", "circuit-open", "ok"], "{breakers:?}");
}

#[test]
fn without_the_field_nothing_is_sent() {
    let (report, book) = run("strict: false", "70s", DENIALS, 0, false);
    assert_eq!((book.messages.len(), metric(&report, "kept")), (0, 0));
}

#[test]
fn a_gateway_that_is_away_gets_the_same_events_later_and_records_none_twice() {
    for hears in [false, true] {
        let (report, book) = run("audit: {}", "100s", DENIALS, 3, hears);
        // The same events in the same order, and others behind them.
        let run = |ids: &[String]| ids[0].split('-').next().map(str::to_owned);
        let (first, others) = book.messages.split_first().expect("a message");
        let again = others.iter().find(|other| run(other) == run(first)).expect("it comes again");
        assert_eq!(again.get(..first.len()), Some(first.as_slice()), "{book:?}");
        assert!(book.messages.len() >= 6, "{book:?}");
        let total: u32 = told(&book, Action::Deny).iter().map(|note| note.more.max(1)).sum();
        assert_eq!(total, 60, "{book:?}");
        assert_eq!(metric(&report, "lost"), 0);
    }
}

#[test]
fn a_share_of_what_is_admitted_is_told_with_whom() {
    let many = "  - { at: 100ms, client: p, times: 2000, every: 10ms, send: { path: /p } }\n";
    let (_, book) = run("audit: { allows: 10% }", "30s", many, 0, false);
    let allows = told(&book, Action::Allow);
    assert!((130..=270).contains(&allows.len()), "{} of 2000", allows.len());
    for note in allows {
        assert!(note.detail.starts_with("names=p share_bp=1000 decision="), "{note:?}");
        let about: Vec<_> = note.about.iter().map(|about| about.limit.as_str()).collect();
        assert_eq!(about, ["p.ip"]);
    }
}

/// Most events of a busy limit are alike, and told in brief to a gateway that reads that; beside one that does not, all
/// arrive all the same.
#[test]
fn events_that_are_told_in_brief_arrive_whole_also_among_gateways_of_two_builds() {
    let many = "
  - { at: 100ms, client: p, times: 600, every: 10ms, send: { path: /p } }
  - { at: 100ms, client: who, times: 600, every: 10ms, send: { path: /who, headers: { x-key: k } } }
";
    for is_mixed in [false, true] {
        let keeper = Keeper { is_mixed, ..sync::keep(Urgent::After(0), false) };
        let (report, book) = run_with("audit: { allows: 100% }", "60s", many, keeper);
        let allows = told(&book, Action::Allow);
        assert_eq!((allows.len(), metric(&report, "lost")), (1_200, 0));
        let decisions: BTreeSet<_> = allows.iter().map(|note| note.detail.as_str()).collect();
        assert_eq!(decisions.len(), 1_200, "each tells of a decision of its own");
        for note in allows {
            let [about] = &note.about[..] else { panic!("{note:?}") };
            let names = about.limit.split_once('.').map(|(policy, _)| policy).expect("a limit");
            let begin = format!("names={names} share_bp=10000 decision=");
            assert!(note.detail.starts_with(&begin), "{note:?}");
            let name = if names == "who" { "k" } else { "127.0.0.1" };
            assert_eq!(about.subject.name.as_str(), name);
        }
        let (read, unread) = book.briefs;
        assert_eq!((read > 100, unread > 0), (!is_mixed, is_mixed), "{read} and {unread}");
    }
}

#[test]
fn a_new_configuration_is_on_record_and_takes_over_what_waits_even_where_it_ends_the_audit() {
    let timeline = "
  - { at: 1500ms, client: nobody, send: { path: /who } }
  - at: 1600ms
    update:
      config: { version: 1, gateway: { cluster: tidegate, timeout: 45ms }, policies: [] }
";
    let (_, book) = run("audit: {}", "60s", timeline, 1, false);
    let configs = told(&book, Action::Config);
    let details: Vec<_> = configs.iter().map(|note| note.detail.as_str()).collect();
    assert_eq!(details.len(), 2, "{details:?}");
    let off = details.iter().find(|detail| detail.contains("audit=off")).expect("the later one");
    assert!(off.contains(" replaces="), "{details:?}");
    // What waited is of the one before, and each names the whole hash that a record of its own tells.
    let says = |note: &&&AuditNote| {
        let digits = note.config.expect("of some configuration").digits();
        note.detail.contains(&format!("configuration={} sha256={digits} ", &digits[..8]))
    };
    assert_eq!(configs.iter().filter(says).count(), 2, "{configs:?}");
    let on = configs.iter().find(|note| note.detail.contains("audit=on")).expect("the first");
    let denials = told(&book, Action::Deny);
    assert_eq!(denials.iter().map(|note| note.config).collect::<Vec<_>>(), [on.config], "{book:?}");
}

/// Each request is an event: admitted by the gateway, denied by the filter, refused by the circuit.
#[test]
fn an_audited_request_costs_no_call_of_the_host() {
    let (with, book) = run("audit: { allows: 100% }", "3s", DENIALS, 0, false);
    let (without, _) = run("strict: false", "3s", DENIALS, 0, false);
    // Ten by their limit, five by their circuit breaker before it opens.
    assert!(told(&book, Action::Allow).len() == 15, "{book:?}");
    assert_eq!(with.exchanges.len(), without.exchanges.len());
    for (with, without) in with.exchanges.iter().zip(&without.exchanges) {
        assert_eq!(with.client, without.client);
        let (with, without) = (with.usage, without.usage);
        assert_eq!((with.host_calls, with.callouts), (without.host_calls, without.callouts));
        assert_eq!(with.host_bytes, without.host_bytes);
    }
}
