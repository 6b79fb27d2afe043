//! Owns what of many like events becomes a record: the first of a kind and window at once, the rest as one
//! that counts them; and what a record says of whom an event is about. Knows no chain.
//!
//! Who is denied a million times leaves two records a minute. Who is denied as a million clients leaves at
//! most a thousand firsts and one for each limit.

use std::iter;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tidegate_policy::audit::record::Event;
use tidegate_policy::audit::tally::{Places, Tally, WINDOW_MS};
use tidegate_policy::audit::value::{Object, Unfit, Value};
use tidegate_policy::audit::{AuditEvent, Terms, Thinning};
use tidegate_policy::identity::Subject;

/// What is told and counted apart of one window.
pub const PLACES: Places = Places { firsts: 1_000, kinds: 1_000 };
const HASH_LEN: usize = 16;

/// How subjects stand in records: as an HMAC, or not at all.
#[derive(Clone, Default)]
pub struct Pseudonyms(Option<Hmac<Sha256>>);

/// Who is thinned out, within one window.
pub struct Thinner {
    pseudonyms: Pseudonyms,
    /// Tells this run's counting events from those of others.
    run: u64,
    state: Mutex<State>,
}

struct State {
    tally: Tally<AuditEvent>,
    /// Counting events so far.
    made: u64,
}

// === impl Pseudonyms ===

impl Pseudonyms {
    /// HMAC-SHA256 under `key`, of which 128 bits are kept.
    pub fn keyed(key: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(key).ok().map(|mac| Self(Some(mac)))
    }

    fn of(&self, subject: &Subject) -> Option<String> {
        let mut mac = self.0.clone()?;
        mac.update(subject.kind.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(subject.name.as_str().as_bytes());
        let digest = mac.finalize().into_bytes();
        Some(digest.iter().take(HASH_LEN).map(|byte| format!("{byte:02x}")).collect())
    }

    /// The record's part of an event. Of subjects it holds the kind, and the hash if there is a key.
    pub fn event(&self, event: &AuditEvent) -> Result<Event, Unfit> {
        let mut detail = config(event);
        if event.about.is_empty() && detail.is_empty() {
            return Event::new(event);
        }
        let terms = event.basis.terms.iter().map(Some).chain(iter::repeat(None));
        let limits = event.about.iter().zip(terms).map(|(about, terms)| {
            let mut fields = object([
                ("limit", Value::text(&about.limit)),
                ("kind", Value::text(about.subject.kind.as_str())),
            ]);
            if let Some(hash) = self.of(&about.subject) {
                fields.insert("subject".to_owned(), Value::Text(hash));
            }
            if let Some(Terms { units, period_us, burst }) = terms {
                fields.extend(object([
                    ("units", Value::number(u64::from(*units))),
                    ("period_us", Value::number(*period_us)),
                    ("burst", Value::number(u64::from(*burst))),
                ]));
            }
            Value::Object(fields)
        });
        let limits: Vec<Value> = limits.collect();
        if !limits.is_empty() {
            detail.insert("limits".to_owned(), Value::Array(limits));
        }
        if !event.detail.is_empty() {
            detail.insert("text".to_owned(), Value::text(&event.detail));
        }
        Event::with_detail(event, Value::Object(detail))
    }
}

// === impl Thinner ===

impl Thinner {
    /// Nothing was seen yet.
    pub fn new(pseudonyms: Pseudonyms, run: u64) -> Self {
        let state = State { tally: Tally::new(PLACES, run), made: 0 };
        Self { pseudonyms, run, state: Mutex::new(state) }
    }

    /// The events that are to be recorded now: this one unless it is one more of its kind, and the counts
    /// of a window that is over.
    pub fn take(&self, event: &AuditEvent) -> Vec<Result<Event, Unfit>> {
        if event.thinning == Thinning::Each {
            return vec![self.pseudonyms.event(event)];
        }
        let mut state = self.lock();
        let mut made = self.turn(&mut state, event.ts_ms);
        if state.tally.is_first(event, began(event.ts_ms)) {
            made.push(self.pseudonyms.event(event));
        }
        made
    }

    /// The counts of a window that is over.
    pub fn turned(&self, now_ms: u64) -> Vec<Result<Event, Unfit>> {
        self.turn(&mut self.lock(), now_ms)
    }

    /// The counts of the window under way: at the end.
    pub fn close(&self, now_ms: u64) -> Vec<Result<Event, Unfit>> {
        let State { tally, made } = &mut *self.lock();
        let mut told = Vec::new();
        tally.close(now_ms, |like, count, began_ms| {
            told.push(self.counted(made, like, count, began_ms, now_ms));
            None
        });
        told
    }

    fn turn(&self, state: &mut State, now_ms: u64) -> Vec<Result<Event, Unfit>> {
        let State { tally, made } = state;
        let mut told = Vec::new();
        tally.turn(began(now_ms), |like, count, began_ms| {
            told.push(self.counted(made, like, count, began_ms, now_ms));
            None
        });
        told
    }

    fn counted(
        &self,
        made: &mut u64,
        like: AuditEvent,
        count: u64,
        began_ms: u64,
        now_ms: u64,
    ) -> Result<Event, Unfit> {
        *made = made.saturating_add(1);
        let id = format!("counted-{:016x}-{made}", self.run);
        let mut detail = config(&like);
        detail.extend(object([
            ("more", Value::number(count)),
            ("window_ms", Value::number(WINDOW_MS)),
            ("since_ms", Value::number(began_ms)),
        ]));
        let limits: Vec<Value> = like.about.iter().map(|a| Value::text(&a.limit)).collect();
        if !limits.is_empty() {
            detail.insert("limits".to_owned(), Value::Array(limits));
        }
        let event = AuditEvent { id, ts_ms: now_ms, ..like };
        Event::with_detail(&event, Value::Object(detail))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Windows are minutes of the clock: what all gateways tell of one minute lies beside each other.
fn began(now_ms: u64) -> u64 {
    now_ms - now_ms % WINDOW_MS
}

/// The beginning of a detail: the configuration by which it was decided, if it is known.
fn config(event: &AuditEvent) -> Object {
    let config = event.basis.config.map(|config| Value::Text(config.digits()));
    Object::from_iter(config.map(|config| ("config".to_owned(), config)))
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Object {
    Object::from_iter(fields.map(|(key, value)| (key.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_policy::audit::{About, Action, Basis, Durability};
    use tidegate_policy::identity::{SubjectKind, SubjectName};
    use tidegate_policy::scope::{Region, Tenant};

    fn denial(id: usize, ts_ms: u64, subject: &str) -> AuditEvent {
        let name = SubjectName::from_bytes(subject.as_bytes());
        let about =
            About { limit: "p.one".to_owned(), subject: Subject { kind: SubjectKind::Ip, name } };
        AuditEvent {
            id: format!("d-{id}"),
            ts_ms,
            region: Region::fallback(),
            actor: "filter".to_owned(),
            tenant: Tenant::None,
            action: Action::Deny,
            outcome: "quota-exceeded".to_owned(),
            detail: String::new(),
            durability: Durability::Async,
            thinning: Thinning::First,
            about: vec![about],
            basis: Basis::default(),
        }
    }

    fn texts(events: Vec<Result<Event, Unfit>>) -> Vec<String> {
        let text = |event: Result<Event, Unfit>| event.expect("fit").bytes();
        events.into_iter().map(text).map(|b| String::from_utf8(b).expect("text")).collect()
    }

    fn key() -> Pseudonyms {
        Pseudonyms::keyed(b"key").expect("any length")
    }

    #[test]
    fn the_first_of_a_window_is_an_event_and_the_rest_is_counted() {
        let thinner = Thinner::new(key(), 7);
        let mut made = Vec::new();
        for n in 0..1_000 {
            let subject = if n % 4 == 0 { "192.0.2.1" } else { "192.0.2.2" };
            made.extend(texts(thinner.take(&denial(n, 61_000, subject))));
        }
        let ids: Vec<bool> =
            ["d-0", "d-1"].iter().zip(&made).map(|(id, t)| t.contains(id)).collect();
        assert_eq!((made.len(), ids), (2, vec![true, true]), "{made:?}");
        assert!(texts(thinner.turned(119_999)).is_empty(), "the window is not over");
        let counted = texts(thinner.turned(120_000));
        assert_eq!(counted.len(), 1);
        assert!(
            counted[0].contains(r#""limits":["p.one"],"more":998,"since_ms":60000"#),
            "{counted:?}"
        );
        assert!(texts(thinner.turned(120_000)).is_empty(), "once");
        assert_eq!(
            texts(thinner.take(&denial(1_001, 120_001, "192.0.2.1"))).len(),
            1,
            "a new window"
        );
    }

    #[test]
    fn a_flood_of_clients_is_bounded() {
        let thinner = Thinner::new(key(), 7);
        let mut made = 0;
        for n in 0..5 * PLACES.firsts {
            made += thinner.take(&denial(n, 1, &format!("client-{n}"))).len();
        }
        assert_eq!(made, PLACES.firsts);
        let counted = texts(thinner.close(2));
        assert!(counted.len() == 1 && counted[0].contains("\"more\":4000"), "{counted:?}");
    }

    #[test]
    fn subjects_are_hashed_or_left_out() {
        let event = denial(1, 1, "192.0.2.1");
        let hashed = texts(vec![key().event(&event)]).concat();
        let left_out = texts(vec![Pseudonyms::default().event(&event)]).concat();
        assert!(!hashed.contains("192.0.2.1") && !left_out.contains("192.0.2.1"));
        let expected = r#""limits":[{"kind":"ip","limit":"p.one","subject":""#;
        assert!(hashed.contains(expected), "{hashed}");
        assert!(left_out.contains(r#""limits":[{"kind":"ip","limit":"p.one"}]"#), "{left_out}");
        let other = Pseudonyms::keyed(b"other").expect("any length").event(&event);
        assert_ne!(hashed, texts(vec![other]).concat());
    }

    #[test]
    fn what_is_somebodys_own_doing_is_recorded_each_time() {
        let thinner = Thinner::new(Pseudonyms::default(), 7);
        let admin =
            AuditEvent { thinning: Thinning::Each, action: Action::Admin, ..denial(1, 1, "a") };
        assert_eq!((0..9).map(|_| thinner.take(&admin).len()).sum::<usize>(), 9);
    }
}
