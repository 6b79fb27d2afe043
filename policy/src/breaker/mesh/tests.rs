//! Tests of the shared step: the table of every state and event, what may never happen in random
//! histories, and that nothing keeps a healthy upstream shut.

use alloc::vec;

use proptest::prelude::*;

use super::step::jittered_ms;
use super::*;

const NOW: u64 = 1_800_000_000_000;
const A: Holder = *b"process1";
const B: Holder = *b"process2";
const MIDDLE: u32 = ENTROPY_RANGE / 2;

fn terms() -> Terms {
    Terms {
        window: Window::Ms(10_000),
        min_calls: 20,
        failure_permille: 500,
        slow_permille: 800,
        adaptive: None,
        open_ms: 10_000,
        backoff: 0,
        successes: 3,
        probe_ms: 5_000,
        trip_reporters: 1,
    }
}

fn batch(epoch: u64, calls: u32, failures: u32) -> Batch {
    Batch { epoch, calls, failures, ..Batch::default() }
}

fn sync(terms: &Terms, holder: Holder, seq: u64, batch: Batch) -> Event<'_> {
    Event::Sync { terms, holder, seq, batch, entropy: MIDDLE }
}

fn order(order: Order, for_ms: u64) -> Event<'static> {
    Event::Order { order, for_ms, entropy: MIDDLE }
}

/// A record in this state since a second, with A as its reporter.
fn record(state: State, until_ms: u64) -> Record {
    let mut record = Record::new(NOW - 1_000);
    let reporter = Reporter { holder: A, seq: 5, seen_ms: NOW - 1_000, tripped: false };
    record.reporters = vec![reporter];
    (record.state, record.until_ms) = (state, until_ms);
    record
}

fn half_open(until_ms: u64, successes: u8, lost: u8) -> Record {
    let probe = Some(Probe { id: 77, holder: A, until_ms });
    Record { probe, successes, lost, last_probe: 77, ..record(State::HalfOpen, 0) }
}

/// After every event, from every situation: the state's letter, `+` where a test is granted, `!`
/// where it says what it would have done.
#[test]
fn every_state_and_every_event() {
    let terms = terms();
    let situations = [
        ("closed", record(State::Closed, 0)),
        ("open", record(State::Open, NOW + 1)),
        ("open, due", record(State::Open, NOW)),
        ("half open, tested", half_open(NOW + 1, 0, 0)),
        ("half open, last test", half_open(NOW + 1, 2, 0)),
        ("half open, lost", half_open(NOW, 2, 0)),
        ("half open, lost thrice", half_open(NOW, 2, 2)),
        ("half open, free", Record { probe: None, ..half_open(0, 2, 0) }),
        ("forced open", record(State::ForcedOpen, 0)),
        ("forced open, over", record(State::ForcedOpen, NOW)),
        ("disabled", record(State::Disabled, 0)),
        ("disabled, over", record(State::Disabled, NOW)),
        ("metrics only", record(State::MetricsOnly, 0)),
        ("metrics only, over", record(State::MetricsOnly, NOW)),
    ];
    let ended = |id, ended| Batch { probe: Some(Settled { id, ended }), ..batch(0, 0, 0) };
    let ask = Batch { ask: true, ..batch(0, 0, 0) };
    let epoch = NOW - 1_000;
    let events: [(&str, Event<'_>); 18] = [
        ("look", Event::Look),
        ("few failures", sync(&terms, A, 6, batch(epoch, 19, 19))),
        ("half of the calls", sync(&terms, A, 6, batch(epoch, 20, 10))),
        ("of another epoch", sync(&terms, A, 6, batch(epoch - 1, 20, 20))),
        ("said before", sync(&terms, A, 5, batch(epoch, 20, 20))),
        ("slow", sync(&terms, A, 6, Batch { slow: 16, ..batch(epoch, 20, 0) })),
        ("tripped", sync(&terms, A, 6, Batch { tripped: true, ..batch(epoch, 5, 5) })),
        ("asks again", sync(&terms, A, 6, ask)),
        ("another asks", sync(&terms, B, 1, ask)),
        ("ok", sync(&terms, A, 6, ended(77, Ended::Ok))),
        ("failed", sync(&terms, A, 6, ended(77, Ended::Failed))),
        ("given back", sync(&terms, A, 6, ended(77, Ended::GivenBack))),
        ("another test", sync(&terms, A, 6, ended(76, Ended::Ok))),
        ("trip", order(Order::Trip, 0)),
        ("reset", order(Order::Reset, 0)),
        ("force open", order(Order::ForceOpen, 0)),
        ("disable", order(Order::Disable, 0)),
        ("metrics only", order(Order::MetricsOnly, 0)),
    ];
    let expected = "
        closed                  c c o c c o o  c  c  c c c c o c f d m
        open                    o o o o o o o  o  o  o o o o o c f d m
        open,_due               o o o o o o o  h+ h+ o o o o o c f d m
        half_open,_tested       h h h h h h h  h+ h  h o h h o c f d m
        half_open,_last_test    h h h h h h h  h+ h  c o h h o c f d m
        half_open,_lost         h h h h h h h  h+ h+ h h h h o c f d m
        half_open,_lost_thrice  h h h h h h h  o  o  h h h h o c f d m
        half_open,_free         h h h h h h h  h+ h+ h h h h o c f d m
        forced_open             f f f f f f f  f  f  f f f f o c f d m
        forced_open,_over       o o o o o o o  h+ h+ o o o o o c f d m
        disabled                d d d d d d d  d  d  d d d d o c f d m
        disabled,_over          c c c c c c c  c  c  c c c c o c f d m
        metrics_only            m m m! m m m! m! m m m m m m o c f d m
        metrics_only,_over      c c c c c c c  c  c  c c c c o c f d m
    ";
    for ((situation, record), row) in situations.iter().zip(expected.trim().lines()) {
        let mut cells = row.split_whitespace();
        assert_eq!(cells.next().map(|name| name.replace('_', " ")).as_deref(), Some(*situation));
        for (name, event) in &events {
            let (said, write) = step(NOW, Some(record), event);
            let letter = said.state.as_str().chars().next().expect("a name");
            let mut cell = std::format!("{letter}");
            cell.extend(said.permit.map(|_| '+'));
            cell.extend(said.would_open.map(|_| '!'));
            assert_eq!(Some(cell.as_str()), cells.next(), "{situation}, {name}: {said:?}");
            let flips = said.transitions.len();
            assert_eq!(said.epoch > record.epoch, flips > 0, "{situation}, {name}");
            assert_eq!(said.transitions.last().map_or(record.state, |t| t.to), said.state);
            let Some(written) = write else {
                assert!(flips == 0 && *event == Event::Look, "{situation}, {name}");
                continue;
            };
            if flips > 0 {
                assert_eq!(said.window, (0, 0, 0), "{situation}, {name}");
                assert_eq!((written.successes, written.lost), (0, 0), "{situation}, {name}");
                let is_tested = written.probe.is_some();
                assert_eq!(is_tested, said.permit.is_some(), "{situation}, {name}");
                assert!(written.reporters.iter().all(|reporter| !reporter.tripped));
            }
            assert_eq!(Record::from_bytes(&written.to_bytes()), Some(written));
        }
        assert_eq!(cells.next(), None, "{situation}");
    }
}

#[test]
fn a_new_breaker_is_closed_and_takes_what_was_counted_before_it_was_known() {
    let terms = terms();
    let (said, write) = step(NOW, None, &Event::Look);
    assert_eq!((said.state, write), (State::Closed, None));
    let (said, _) = step(NOW, None, &sync(&terms, A, 1, batch(3, 20, 10)));
    assert_eq!((said.state, said.epoch, said.wait_ms), (State::Open, NOW + 1, Some(10_000)));
    let causes: Vec<Cause> = said.transitions.iter().map(|change| change.cause).collect();
    assert_eq!(causes, [Cause::Failures]);
}

#[test]
fn open_lasts_a_fifth_less_to_a_fifth_more_and_doubles_where_it_may() {
    for (entropy, expected_ms) in [(0, 8_000), (MIDDLE, 10_000), (ENTROPY_RANGE - 1, 11_999)] {
        assert_eq!(jittered_ms(10_000, entropy), expected_ms);
    }
    for (backoff, expected_ms) in [(0, [10_000, 10_000, 10_000]), (1, [10_000, 20_000, 20_000])] {
        let terms = Terms { backoff, successes: 1, ..terms() };
        let mut record = Record::new(NOW);
        let mut now_ms = NOW;
        for expected_ms in expected_ms {
            let trip = batch(record.epoch, 20, 20);
            let (mut said, mut write) = step(now_ms, Some(&record), &sync(&terms, A, now_ms, trip));
            if record.state == State::HalfOpen {
                let id = record.probe.expect("out").id;
                let failed = Some(Settled { id, ended: Ended::Failed });
                let event = sync(&terms, A, now_ms, Batch { probe: failed, ..Batch::default() });
                (said, write) = step(now_ms, Some(&record), &event);
            }
            assert_eq!(said.wait_ms, Some(expected_ms));
            now_ms += expected_ms;
            let asks = Batch { ask: true, ..Batch::default() };
            record = write.expect("written");
            let (_, write) = step(now_ms, Some(&record), &sync(&terms, B, now_ms, asks));
            record = write.expect("written");
        }
    }
}

#[test]
fn one_sick_process_of_two_opens_nothing_and_two_do() {
    let terms = Terms { trip_reporters: 2, ..terms() };
    let tripped = |epoch| Batch { tripped: true, ..batch(epoch, 5, 5) };
    let epoch = NOW - 1_000;
    let held = record(State::Closed, 0);
    let (_, held) = step(NOW, Some(&held), &sync(&terms, B, 1, batch(epoch, 9, 0)));
    let held = held.expect("written");
    let (said, one) = step(NOW, Some(&held), &sync(&terms, A, 6, tripped(epoch)));
    assert_eq!(said.state, State::Closed, "one sick Envoy");
    let one = one.expect("written");
    let (said, _) = step(NOW, Some(&one), &sync(&terms, A, 7, batch(epoch, 0, 0)));
    assert_eq!(said.state, State::Closed);
    let (said, _) = step(NOW, Some(&one), &sync(&terms, B, 2, tripped(epoch)));
    assert_eq!(said.transitions.last().map(|change| change.cause), Some(Cause::Reporters));
    // One that began anew is another to the region: it is still the one sick Envoy.
    for (passed_ms, opens) in [(TRIPPED_LIFE_MS - 1, true), (TRIPPED_LIFE_MS, false)] {
        let (said, _) = step(NOW + passed_ms, Some(&one), &sync(&terms, B, 2, tripped(epoch)));
        assert_eq!(said.state == State::Open, opens, "{passed_ms} ms later");
    }
    // Who was not heard of for long is no reporter: then one is all.
    let later = NOW + REPORTER_LIFE_MS;
    let (said, _) = step(later, Some(&held), &sync(&terms, A, 6, tripped(epoch)));
    assert_eq!(said.state, State::Open);
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let terms = terms();
    let epoch = NOW - 1_000;
    let mut held = record(State::Closed, 0);
    for (seq, at_ms, failures, window) in
        [(6, 0, 0, (10, 0, 0)), (7, 9_999, 5, (20, 5, 0)), (8, 10_500, 5, (0, 0, 0))]
    {
        let report = sync(&terms, A, seq, batch(epoch, 10, failures));
        let (said, write) = step(NOW + at_ms, Some(&held), &report);
        // The last one opens it: by then the first is over, and 10 of 20 is half.
        assert_eq!(said.state == State::Open, seq == 8, "{said:?}");
        assert_eq!(said.window, window);
        held = write.expect("written");
    }
}

#[test]
fn a_window_by_count_forgets_by_count() {
    let terms =
        Terms { window: Window::Calls(100), failure_permille: 0, slow_permille: 0, ..terms() };
    let mut held = record(State::Closed, 0);
    for seq in 6..60 {
        let report = sync(&terms, A, seq, batch(NOW - 1_000, 7, 1));
        let (said, write) = step(NOW + seq * 100_000, Some(&held), &report);
        held = write.expect("written");
        let (calls, ..) = said.window;
        assert!((seq < 20) || (100..=114).contains(&calls), "{said:?}");
    }
}

#[test]
fn a_clock_that_stepped_back_makes_no_wait_longer() {
    let held = Record { since_ms: NOW, epoch: NOW, ..record(State::Open, NOW + 10_000) };
    for state in [State::Open, State::ForcedOpen, State::Disabled] {
        let held = Record { state, ..held.clone() };
        let (said, write) = step(NOW - 3_600_000, Some(&held), &Event::Look);
        assert_eq!(said.wait_ms, Some(10_000), "{state:?}");
        // And for whoever only looks it goes by.
        let held = write.expect("written");
        let (said, write) = step(NOW - 3_600_000 + 4_000, Some(&held), &Event::Look);
        assert_eq!((said.wait_ms, write), (Some(6_000), None), "{state:?}");
    }
    let terms = terms();
    let ask = sync(&terms, B, 1, Batch { ask: true, ..Batch::default() });
    let (said, _) = step(NOW - 3_600_000, Some(&half_open(NOW + 1, 0, 0)), &ask);
    assert_eq!(said.wait_ms, Some(5_000), "a test's lease, too");
}

#[test]
fn what_an_operator_says_outlives_everything_and_ends_when_it_was_said() {
    let (said, write) = step(NOW, None, &order(Order::ForceOpen, 60_000));
    let forced = write.expect("written");
    assert_eq!(said.wait_ms, Some(60_000));
    assert_eq!(life_ms(NOW, &forced), Some(LIFE_MS + 60_000));
    assert_eq!(step(NOW + 59_999, Some(&forced), &Event::Look).0.state, State::ForcedOpen);
    let (said, _) = step(NOW + 60_000, Some(&forced), &Event::Look);
    assert_eq!((said.state, said.wait_ms), (State::Open, Some(0)), "it is tested first");
    let (_, write) = step(NOW, None, &order(Order::Disable, 0));
    assert_eq!(life_ms(NOW, &write.expect("written")), None);
    let (said, _) = step(NOW, None, &order(Order::Trip, 1_234));
    assert_eq!((said.state, said.wait_ms), (State::Open, Some(1_234)));
}

#[test]
fn whoever_lost_the_answer_gets_the_same_test_again() {
    let terms = terms();
    let ask = Batch { ask: true, ..Batch::default() };
    let due = record(State::Open, NOW);
    let (first, write) = step(NOW, Some(&due), &sync(&terms, A, 6, ask));
    let held = write.expect("written");
    let (again, _) = step(NOW + 1_000, Some(&held), &sync(&terms, A, 7, ask));
    let (id, ms) = first.permit.expect("granted");
    assert_eq!(again.permit, Some((id, ms - 1_000)));
    // Of a test that nobody finished nobody knows: the row of good ones begins anew.
    let (said, _) = step(NOW, Some(&half_open(NOW, 2, 0)), &sync(&terms, B, 1, ask));
    assert_eq!((said.permit.is_some(), said.successes), (true, 0));
}

#[derive(Debug, Clone)]
enum Word {
    Report {
        calls: u32,
        failures: u32,
        stale: bool,
        tripped: bool,
    },
    Ask,
    /// The process ends the test that it holds, or the one before.
    End(Ended, bool),
    Order(Order, u64),
    Look,
    /// The record is lost.
    Flush,
}

fn word() -> impl Strategy<Value = Word> {
    let ended = prop_oneof![Just(Ended::Ok), Just(Ended::Failed), Just(Ended::GivenBack)];
    prop_oneof![
        6 => (0..30u32, 0..30u32, any::<bool>(), any::<bool>()).prop_map(
            |(calls, failures, stale, tripped)| Word::Report {
                calls, failures: failures.min(calls), stale, tripped
            }
        ),
        8 => Just(Word::Ask),
        8 => (ended, any::<bool>()).prop_map(|(ended, old)| Word::End(ended, old)),
        1 => (0..5usize, 0..20_000u64).prop_map(|(n, ms)| Word::Order(Order::ALL[n], ms)),
        2 => Just(Word::Look),
        1 => Just(Word::Flush),
    ]
}

/// (ms that pass, back or forth; which process; what it says). A process that dies just says no more.
fn history() -> impl Strategy<Value = Vec<(i64, usize, Word)>> {
    proptest::collection::vec((-200..4_000i64, 0..4usize, word()), 1..120)
}

struct World {
    terms: Terms,
    now_ms: u64,
    seq: u64,
    record: Option<Record>,
    held: [Vec<u64>; 4],
}

impl World {
    fn new(terms: Terms) -> Self {
        Self { terms, now_ms: NOW, seq: 0, record: None, held: Default::default() }
    }

    fn holder(who: usize) -> Holder {
        [u8::try_from(who).expect("few"); 8]
    }

    fn step(&mut self, passed_ms: i64, who: usize, word: &Word) -> Said {
        self.now_ms = self.now_ms.saturating_add_signed(passed_ms);
        self.seq += 1;
        let terms = self.terms;
        let epoch = self.record.as_ref().map_or(0, |record| record.epoch);
        let say = |batch| Event::Sync {
            terms: &terms,
            holder: Self::holder(who),
            seq: self.seq,
            batch,
            entropy: u32::try_from(self.seq % 1_000).expect("small") * 1_000,
        };
        let event = match *word {
            Word::Look => Event::Look,
            Word::Flush => {
                self.record = None;
                Event::Look
            }
            Word::Order(order, for_ms) => Event::Order { order, for_ms, entropy: 0 },
            Word::Report { calls, failures, stale, tripped } => {
                let epoch = epoch - u64::from(stale && epoch > 0);
                say(Batch { tripped, ..batch(epoch, calls, failures) })
            }
            Word::Ask => say(Batch { ask: true, ..Batch::default() }),
            Word::End(ended, old) => {
                let held = self.held.get(who).expect("known");
                let id = held.iter().rev().nth(usize::from(old)).copied().unwrap_or(1);
                say(Batch { probe: Some(Settled { id, ended }), ..Batch::default() })
            }
        };
        let (said, write) = step(self.now_ms, self.record.as_ref(), &event);
        if let Some((id, _)) = said.permit {
            self.held.get_mut(who).expect("known").push(id);
        }
        if let Some(write) = write {
            self.record = Some(write);
        }
        said
    }
}

#[test]
fn a_record_lost_under_a_clock_that_goes_back_is_begun_above_what_is_known() {
    let terms = terms();
    let report = |epoch, seq| Event::Sync {
        terms: &terms,
        holder: World::holder(0),
        seq,
        batch: batch(epoch, 1, 0),
        entropy: 0,
    };
    let (said, record) = step(1_000_000, None, &report(1_000_005, 1));
    assert_eq!((said.epoch, said.counted), (1_000_006, true));
    // Others have begun it anew already: it is raised, and what belongs to the lost one is not counted.
    let (said, _) = step(1_000_001, record.as_ref(), &report(1_000_900, 2));
    assert_eq!((said.epoch, said.counted), (1_000_901, false));
    // Nobody is believed who is days ahead.
    let (said, _) = step(1_000_002, record.as_ref(), &report(1_000_002 + 86_400_001, 3));
    assert_eq!(said.epoch, 1_000_006);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// One test at a time, whoever asks; no way from open to closed but through tests or by an
    /// operator; epochs and the numbers of tests never go back, also past a lost record.
    #[test]
    fn what_may_never_happen(words in history(), reporters in 1..3u8) {
        let mut world = World::new(Terms { trip_reporters: reporters, ..terms() });
        let (mut epoch, mut last_permit) = (0, 0);
        let mut out: Option<(u64, usize, u64)> = None;
        for (passed_ms, who, word) in words {
            // A record that is lost under a clock that steps back is another matter, and no store is lost and
            // back within a millisecond.
            let passed_ms = passed_ms.max(i64::from(matches!(word, Word::Flush)));
            let before = world.record.clone();
            let said = world.step(passed_ms, who, &word);
            let existed = world.record.is_some();
            if existed {
                prop_assert!(said.epoch >= epoch, "{} after {}", said.epoch, epoch);
                epoch = said.epoch;
            }
            if matches!(word, Word::Flush) || !said.transitions.is_empty() || said.settled {
                out = None;
            }
            for change in &said.transitions {
                let healed = change.cause == Cause::ProbesSucceeded && change.from == State::HalfOpen;
                let ordered = matches!(change.cause, Cause::Operator | Cause::Expired);
                prop_assert!(change.to != State::Closed || healed || ordered, "{change:?}");
            }
            if let Some((id, ms)) = said.permit {
                if let Some((live, whose, until_ms)) = out
                    && world.now_ms < until_ms
                {
                    prop_assert!(live == id && whose == who, "two tests at once");
                } else {
                    prop_assert!(id > last_permit, "{id} after {last_permit}");
                }
                last_permit = id;
                out = Some((id, who, world.now_ms + ms));
            }
            if said.counted {
                let state = before.map_or(State::Closed, |record| record.state);
                prop_assert!(state.passes(), "counted while {state:?}");
            }
            if let Some(record) = &world.record {
                prop_assert!(record.buckets.len() <= BUCKETS_MAX);
                let read = Record::from_bytes(&record.to_bytes());
                prop_assert_eq!(read.as_ref(), Some(record));
            }
        }
    }

    /// However it came to stand where it stands, whoever died with a test: an upstream that works is
    /// let in again within the longest open time, the life of a test that is out, and six ticks.
    #[test]
    fn no_history_keeps_a_healthy_upstream_shut(words in history(), backoff in 0..3u8) {
        let terms = Terms { backoff, ..terms() };
        let mut world = World::new(terms);
        for (passed_ms, who, word) in words {
            // What an operator forces is meant to stay.
            let word = if matches!(word, Word::Order(..)) { Word::Ask } else { word };
            world.step(passed_ms, who, &word);
        }
        let tick_ms = 250;
        let open_ms = u64::from(terms.open_ms) << backoff;
        let bound_ms = open_ms + open_ms / 5 + u64::from(terms.probe_ms) + 7 * tick_ms;
        let began_ms = world.now_ms;
        // One process is left, the upstream works, requests keep coming.
        let mut state = State::Open;
        while world.now_ms - began_ms <= bound_ms {
            let said = world.step(250, 3, &Word::Ask);
            state = said.state;
            if said.permit.is_some() {
                state = world.step(1, 3, &Word::End(Ended::Ok, false)).state;
            }
            if state == State::Closed {
                break;
            }
        }
        prop_assert_eq!(state, State::Closed, "shut after {} ms: {:?}", bound_ms, world.record);
    }
}
