//! Owns the fields of circuit breakers: those that the document names, those that a policy writes out,
//! and which of them depend on which.

mod adaptive;
mod answers;
mod circles;
mod many;

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use self::circles::circle;
use self::many::{Many, many};
use super::identities::Names;
use super::read::{duration_ms, name_remedy, sound_name};
use super::reader::{At, Table};
use super::rollout::share_bp;
use super::shapes;
use super::suggest::nearest;
use crate::breaker::by::By;
use crate::breaker::mesh::{Terms, Window};
use crate::breaker::outcome::Rules;
use crate::breaker::process::Own;
use crate::matching::PathPattern;

/// Breakers per document, those that are one for each of many with all that they may be: each has its
/// place in Envoy's shared data.
const BREAKERS_MAX: usize = 10_000;
const DEPENDS_MAX: usize = 8;
const REMEDY: &str = "write a table, such as {\"failure_rate\": \"50%\"}, or the name of one of the circuit_breakers";
/// How much longer than its upstream may take a test is waited for.
const PROBE_MARGIN_MS: u32 = 1_000;

/// One circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Unique; 1 to 63 of `a-z 0-9 _ -`.
    pub name: String,
    /// Its numbers.
    pub own: Own,
    /// A call that takes longer is slow, in ms; `None` if that does not matter.
    pub slow_ms: Option<u32>,
    /// What its upstream's answers say.
    pub rules: Rules,
    /// What a request gets that it refuses, if not the usual refusal.
    pub fallback: Option<Fallback>,
    /// How long a request is held that it refuses, if at all.
    pub hold: Option<Hold>,
    /// Those that have to let calls pass for this one to do so, by their index.
    pub depends_on: Vec<usize>,
    /// How many have one of their own, if it is one for each of many; a policy's `circuit_by` says whom.
    pub many: Option<usize>,
}

/// How requests are held that a circuit breaker would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// For how long at most, in ms.
    pub for_ms: u32,
    /// How many at once in one worker; the next is refused at once.
    pub held_max: u32,
}

/// What a request gets in place of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// An answer that is always the same.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The body's type.
        content_type: String,
        /// The body.
        body: String,
    },
    /// It goes on with this header, which leads it to another cluster.
    Header {
        /// Its name, in lower case.
        name: String,
        /// Its value.
        value: String,
    },
}

/// The breakers of a document as far as they are read.
pub(super) struct Breakers<'r, 'd> {
    read: RefCell<Vec<CircuitBreaker>>,
    /// By name: the place, if it could be read, and where it is written.
    named: BTreeMap<&'r str, (Option<usize>, At<'r, 'd>)>,
    used: RefCell<Vec<bool>>,
    identities: &'r Names<'r, 'd>,
    /// Of each breaker what `by` says.
    many: RefCell<Vec<Option<Many<'r, 'd>>>>,
}

// === impl Breakers ===

impl<'r, 'd> Breakers<'r, 'd> {
    /// Reads `circuit_breakers` of a document.
    pub fn new(document: &Table<'r, 'd>, identities: &'r Names<'r, 'd>) -> Self {
        let entries = document.get("circuit_breakers").and_then(|at| {
            at.entries("write {\"payments\": {\"failure_rate\": \"50%\", \"open\": \"10s\"}}")
        });
        let mut this = Self {
            read: RefCell::default(),
            named: BTreeMap::new(),
            used: RefCell::default(),
            identities,
            many: RefCell::default(),
        };
        let mut wanted = Vec::new();
        for (name, at) in entries.unwrap_or_default() {
            if !sound_name(name) {
                at.wrong(format!("{name:?} is no name"), name_remedy());
            }
            if this.named.len() >= BREAKERS_MAX {
                at.wrong(format!("more than {BREAKERS_MAX} circuit breakers"), "keep fewer");
                break;
            }
            let place = this.add(name, &at, &mut wanted);
            this.named.insert(name, (place, at));
        }
        this.connect(&wanted);
        this.refuse_circles();
        this
    }

    /// What a policy says: a name, or a breaker of its own under the policy's name; and whose it is, if it
    /// is one for each of many.
    pub fn of_policy(
        &self,
        at: &At<'r, 'd>,
        policy: &str,
        path: Option<&PathPattern>,
    ) -> Option<(usize, Option<By>)> {
        let place = self.place_of(at, policy)?;
        let many = self.many.borrow();
        let by = match many.get(place).and_then(Option::as_ref) {
            None => None,
            Some(many) => Some(many.of_path(path)?),
        };
        Some((place, by))
    }

    fn place_of(&self, at: &At<'r, 'd>, policy: &str) -> Option<usize> {
        if at.is_text() {
            let place = self.find(at)?;
            if let Some(used) = self.used.borrow_mut().get_mut(place) {
                *used = true;
            }
            return Some(place);
        }
        if self.named.contains_key(policy) {
            at.wrong(
                format!("the name {policy:?} is taken by one of the circuit_breakers"),
                "name that one here, or give the policy another name",
            );
            return None;
        }
        let mut wanted = Vec::new();
        let place = self.add(policy, at, &mut wanted)?;
        self.connect(&wanted);
        if let Some(used) = self.used.borrow_mut().get_mut(place) {
            *used = true;
        }
        Some(place)
    }

    /// Warns of breakers that nothing uses.
    pub fn doubt_unused(&self) {
        let read = self.read.borrow();
        let used = self.used.borrow();
        for (name, (place, at)) in &self.named {
            let Some(place) = place else { continue };
            let needed = read.iter().any(|other| other.depends_on.contains(place));
            if !needed && !used.get(*place).copied().unwrap_or(false) {
                at.doubt(
                    format!("no policy uses the circuit breaker {name:?}"),
                    "name it in a policy's circuit_breaker, or take it out",
                );
            }
        }
    }

    pub fn into_all(self) -> Vec<CircuitBreaker> {
        self.read.into_inner()
    }

    fn add(
        &self,
        name: &str,
        at: &At<'r, 'd>,
        wanted: &mut Vec<(usize, At<'r, 'd>)>,
    ) -> Option<usize> {
        let table = at.table(shapes::CIRCUIT_BREAKER.known, REMEDY)?;
        let (numbers, rules, fallback, hold) =
            (numbers(&table), answers::rules(&table), answers::fallback(&table), hold(&table));
        let many = many(&table, self.identities);
        let ((own, slow_ms), rules, fallback, hold) = (numbers?, rules?, fallback?, hold?);
        let many = many?;
        let mut read = self.read.borrow_mut();
        let place = read.len();
        let (name, depends_on) = (name.to_owned(), Vec::new());
        let each = many.as_ref().map(|many| many.max);
        let held: usize = read.iter().map(places).sum();
        if held.saturating_add(each.unwrap_or(1)) > BREAKERS_MAX {
            at.wrong(
                format!("more than {BREAKERS_MAX} circuit breakers, each with as many as its max"),
                "keep fewer, or give those with \"by\" a lower max",
            );
            return None;
        }
        read.push(CircuitBreaker {
            name,
            own,
            slow_ms,
            rules,
            fallback,
            hold,
            depends_on,
            many: each,
        });
        self.many.borrow_mut().push(many);
        self.used.borrow_mut().push(false);
        if let Some(at) = table.get("depends_on") {
            wanted.push((place, at));
        }
        Some(place)
    }

    fn find(&self, at: &At<'_, '_>) -> Option<usize> {
        let word = at.text(REMEDY)?;
        if let Some((place, _)) = self.named.get(word) {
            return *place;
        }
        let known: Vec<&str> = self.named.keys().copied().collect();
        let remedy = match nearest(word, &known) {
            Some(word) => format!("did you mean {word:?}?"),
            None if known.is_empty() => "define it under circuit_breakers".to_owned(),
            None => format!("known here: {}", known.join(", ")),
        };
        at.wrong(format!("there is no circuit breaker {word:?}"), remedy);
        None
    }

    /// One that is for each of many cannot be depended on: nobody knows whose.
    fn needed(&self, at: &At<'r, 'd>) -> Option<usize> {
        let place = self.find(at)?;
        if self.read.borrow().get(place).is_some_and(|breaker| breaker.many.is_some()) {
            at.wrong(
                "it is one for each of many, so nobody knows on which to depend",
                "name one without \"by\"",
            );
            return None;
        }
        Some(place)
    }

    fn connect(&self, wanted: &[(usize, At<'r, 'd>)]) {
        for (place, at) in wanted {
            let Some(items) = at.list("write a list of names of circuit_breakers") else {
                continue;
            };
            if items.len() > DEPENDS_MAX {
                at.wrong(format!("{} names", items.len()), format!("keep it to {DEPENDS_MAX}"));
                continue;
            }
            let found: Vec<usize> = items.iter().filter_map(|item| self.needed(item)).collect();
            if let Some(breaker) = self.read.borrow_mut().get_mut(*place) {
                breaker.depends_on = found;
            }
        }
    }

    /// Who depends on himself would never close again.
    fn refuse_circles(&self) {
        let read = self.read.borrow();
        let edges: Vec<&[usize]> = read.iter().map(|one| one.depends_on.as_slice()).collect();
        let mut done = alloc::vec![false; edges.len()];
        for (name, (place, at)) in &self.named {
            let Some(place) = *place else { continue };
            if let Some(way) = circle(&edges, place, &mut done) {
                let names = way.iter().filter_map(|place| read.get(*place));
                let names: Vec<&str> = names.map(|one| one.name.as_str()).collect();
                at.wrong(
                    format!("{name:?} depends on itself: {}", names.join(" → ")),
                    "take one of them out of depends_on",
                );
                return;
            }
        }
    }
}

/// How many there may be of it.
fn places(breaker: &CircuitBreaker) -> usize {
    breaker.many.unwrap_or(1)
}

fn numbers(table: &Table<'_, '_>) -> Option<(Own, Option<u32>)> {
    let whole = |name: &str, default: u32, min: u32, max: u32| match table.get(name) {
        None => Some(default),
        Some(at) => at.whole(min, max),
    };
    let octet = |name: &str, default: u32, min: u32, max: u32| {
        whole(name, default, min, max).and_then(|number| u8::try_from(number).ok())
    };
    let ms = |name: &str, default: u32, min: u64, max: u64, remedy: &str| match table.get(name) {
        None => Some(default),
        Some(at) => duration_ms(&at, min, max, remedy).and_then(|ms| u32::try_from(ms).ok()),
    };
    let window = match table.get("window") {
        None => Some(Window::Ms(10_000)),
        Some(at) => window(&at),
    };
    let min_calls = whole("min_calls", 20, 1, 1_000_000);
    let failure_permille = match table.get("failure_rate") {
        None => Some(500),
        Some(at) => share_bp(&at).map(permille),
    };
    let slow = match table.get("slow") {
        None => Some((0, None)),
        Some(at) => slow(&at),
    };
    let consecutive = whole("consecutive", 5, 1, 1_000_000);
    let open_ms = ms("open", 10_000, 100, 3_600_000, "write 10s, or another duration up to 1h");
    let backoff = octet("backoff", 0, 0, 5);
    let ramp_ms = ms("ramp", 0, 1_000, 3_600_000, "write 30s, or another duration from 1s to 1h");
    let successes = octet("successes", 3, 1, 255);
    let upstream_timeout =
        ms("upstream_timeout", 15_000, 1, 3_540_000, "write the timeout of the route, such as 15s");
    let trip_reporters = octet("trip_reporters", 2, 1, 255);
    let (slow_permille, slow_ms) = slow?;
    let (window, failure_permille) = (window?, failure_permille?);
    let adaptive = adaptive::adaptive(table, &window, failure_permille)?;
    let terms = Terms {
        window,
        min_calls: min_calls?,
        failure_permille,
        slow_permille,
        adaptive,
        open_ms: open_ms?,
        backoff: backoff?,
        successes: successes?,
        probe_ms: upstream_timeout?.saturating_add(PROBE_MARGIN_MS),
        trip_reporters: trip_reporters?,
    };
    Some((Own { terms, consecutive: consecutive?, ramp_ms: ramp_ms? }, slow_ms))
}

fn window(at: &At<'_, '_>) -> Option<Window> {
    const REMEDY: &str = "write a duration such as 10s, or {\"calls\": 100}";
    if at.is_text() {
        let ms = duration_ms(at, 1_000, 3_600_000, REMEDY)?;
        return u32::try_from(ms).ok().map(Window::Ms);
    }
    let table = at.table(shapes::CALLS.known, REMEDY)?;
    table.must("calls", REMEDY)?.whole(1, 1_000_000).map(Window::Calls)
}

/// `None` inside if none is held.
fn hold(table: &Table<'_, '_>) -> Option<Option<Hold>> {
    const REMEDY: &str = "write {\"for\": \"500ms\"}";
    let Some(at) = table.get("hold") else { return Some(None) };
    let table = at.table(shapes::HOLD.known, REMEDY)?;
    let for_ms = table.must("for", REMEDY).and_then(|at| duration_ms(&at, 1, 60_000, REMEDY));
    let held_max = match table.get("max") {
        None => Some(64),
        Some(at) => at.whole(1, 10_000),
    };
    Some(Some(Hold { for_ms: u32::try_from(for_ms?).ok()?, held_max: held_max? }))
}

fn slow(at: &At<'_, '_>) -> Option<(u16, Option<u32>)> {
    const REMEDY: &str = "write {\"after\": \"2s\", \"rate\": \"80%\"}";
    let table = at.table(shapes::SLOW.known, REMEDY)?;
    let after = table.must("after", REMEDY).and_then(|at| duration_ms(&at, 1, 3_600_000, REMEDY));
    let rate = match table.get("rate") {
        None => Some(800),
        Some(at) => share_bp(&at).map(permille),
    };
    Some((rate?, Some(u32::try_from(after?).ok()?)))
}

/// Rounded up: what is above 0 stays so.
fn permille(share_bp: u16) -> u16 {
    share_bp.div_ceil(10)
}
