//! Tests of what a process shares: alone, with the mesh, and between the two.

use std::vec::Vec;

use proptest::prelude::*;

use super::super::mesh::{ENTROPY_RANGE, Window};
use super::*;
use crate::wire::breaker::{BreakerName, Permit};

mod seldom;

const MIDDLE: u32 = ENTROPY_RANGE / 2;
pub(crate) const OWN: Own = Own {
    terms: Terms {
        window: Window::Ms(10_000),
        min_calls: 20,
        failure_permille: 500,
        slow_permille: 0,
        adaptive: None,
        open_ms: 10_000,
        backoff: 0,
        successes: 3,
        probe_ms: 5_000,
        trip_reporters: 2,
    },
    consecutive: 5,
    ramp_ms: 10_000,
};

fn told(state: State, epoch: u64, permit: Option<(u64, u64)>) -> BreakerState {
    let wait_ms = matches!(state, State::Open).then_some(10_000);
    let permit = permit.map(|(id, ms)| Permit { id, ms });
    let name = BreakerName::new("b").expect("a name");
    BreakerState { name, state, epoch, wait_ms, healed_ms: None, permit }
}

fn heard(state: State, epoch: u64) -> Process {
    let mut process = Process::default();
    process.told(&told(state, epoch, None), None, 0);
    process
}

/// A filter of before that shares the octets takes what it finds there for when it closed, in any state, and lets a
/// share pass by it.
#[test]
fn what_lets_all_pass_by_order_leaves_nothing_that_a_filter_of_before_takes_for_a_ramp() {
    const HEALED: core::ops::Range<usize> = 24..32;
    for state in [State::Disabled, State::MetricsOnly] {
        let process = Process { waits_since_ms: 60_000, until_ms: 70_000, ..heard(state, 7) };
        let octets = process.to_bytes();
        assert_eq!(octets.get(HEALED), Some(&[0; 8][..]));
        assert_eq!(Process::from_bytes(&octets), Some(process));
    }
    let closed = Process { healed_at_ms: 60_000, ..heard(State::Closed, 7) };
    assert_eq!(closed.to_bytes().get(HEALED), Some(&60_000_u64.to_le_bytes()[..]));
}

/// While one filter replaces another in an Envoy both write what they share. One of before reads as much as it knows, and leaves
/// no more: since when it waits, what it is sought for and what is unheard is gone, all else stays, and it goes on.
#[test]
fn what_a_filter_of_before_writes_back_keeps_all_that_it_knew_of() {
    const OF_BEFORE: usize = 74;
    const PROBE_ID: core::ops::Range<usize> = 36..44;
    let counts = Counts { calls: 9, failures: 4, slow: 1 };
    let probe = Some(Probe { id: 77, of_mesh: true, until_ms: 20_000, out: true });
    let ended = Some(Settled { id: 76, ended: Ended::Failed });
    for state in State::ALL {
        for probe in [None, probe] {
            let process = Process {
                counts,
                probe,
                ended,
                tripped: state == State::Closed,
                wanted: true,
                successes: 2,
                own_tests: 5,
                until_ms: 15_000,
                waits_since_ms: if state == State::Closed { 0 } else { 5_000 },
                sought_ms: 14_000,
                unheard_ms: 13_000,
                unheard: true,
                ..heard(state, 7)
            };
            let mut octets = process.to_bytes();
            octets.truncate(OF_BEFORE);
            if probe.is_none() {
                octets[PROBE_ID].fill(0);
            }
            let mut back = Process::from_bytes(&octets).expect("it is read");
            let waits_since_ms = match state {
                State::Disabled | State::MetricsOnly => 0,
                _ => process.waits_since_ms,
            };
            let (sought_ms, unheard_ms, unheard) = (0, 0, false);
            let expected = Process { waits_since_ms, sought_ms, unheard_ms, unheard, ..process };
            assert_eq!(back, expected);
            // What it said last still ends, and who is refused after that wants a test.
            let later = back.admit(&OWN, 30_000, false);
            match state {
                State::Disabled | State::MetricsOnly => {
                    assert!(later == Leave::Pass && back.lapse(30_000), "{state:?}");
                }
                State::Closed => assert!(matches!(later, Leave::Test(_)), "{state:?}"),
                _ => {
                    assert_eq!(later, Leave::Wait(None), "{state:?}");
                    assert!(back.report(&OWN, 30_000).is_some_and(|said| said.ask), "{state:?}");
                }
            }
        }
    }
}

/// Who only needs what is shut refuses no longer than anybody could find out.
#[test]
fn what_nobody_tests_is_forgotten_and_what_is_asked_for_or_ordered_is_not() {
    let until_ms = 10_000;
    let shut = |state| Process { until_ms, ..heard(state, 7) };
    for state in [State::Open, State::HalfOpen] {
        let process = shut(state);
        assert!(!process.is_forgotten(&OWN, 21_999) && process.is_forgotten(&OWN, 22_000));
        let wanted = Process { wanted: true, ..process.clone() };
        let probe = Some(Probe { id: 1, of_mesh: true, until_ms: 23_000, out: true });
        let tested = Process { probe, ..process };
        assert!(!wanted.is_forgotten(&OWN, 22_000) && !tested.is_forgotten(&OWN, 22_000));
    }
    assert!(
        !Process { until_ms: u64::MAX, ..shut(State::ForcedOpen) }.is_forgotten(&OWN, u64::MAX - 1)
    );
    assert!(!shut(State::Closed).is_forgotten(&OWN, 22_000), "it lets all pass");
    // The clock steps back behind what was told at 60 s.
    let told_at = |state| Process { waits_since_ms: 60_000, until_ms: 70_000, ..heard(state, 7) };
    assert!(told_at(State::Open).is_forgotten(&OWN, 59_999));
    assert!(!told_at(State::Open).is_forgotten(&OWN, 60_000), "it is waited for");
    assert!(!told_at(State::ForcedOpen).is_forgotten(&OWN, 59_999), "as ordered");
    assert!(!told_at(State::Closed).is_forgotten(&OWN, 59_999), "it lets all pass");
}

#[test]
fn a_trip_shuts_the_process_and_three_tests_of_its_own_open_it() {
    let mut process = heard(State::Closed, 7);
    assert!(!process.trip(&OWN, process.generation + 1, 0, MIDDLE), "of another time");
    assert!(process.trip(&OWN, process.generation, 0, MIDDLE));
    assert!(!process.trip(&OWN, process.generation, 0, MIDDLE), "once");
    assert_eq!(process.admit(&OWN, 1, false), Leave::Wait(Some(9_999)));
    let said = process.report(&OWN, 2).expect("a trip is told");
    assert_eq!((said.epoch, said.tripped), (7, true));
    // The mesh does not agree.
    assert!(!process.told(&told(State::Closed, 7, None), None, 3));
    for n in 1..=3 {
        let Leave::Test(id) = process.admit(&OWN, 10_000, false) else { panic!("{process:?}") };
        let waits = (0..9).all(|_| matches!(process.admit(&OWN, 10_000, false), Leave::Wait(_)));
        assert!(waits, "one of ten");
        assert_eq!(process.settle(&OWN, id, Ended::Ok, 10_001, MIDDLE), n == 3);
    }
    assert_eq!(process.admit(&OWN, 10_002, false), Leave::Pass);
    assert_eq!(process.healed_at_ms, 10_001);
    process.told(&told(State::Closed, 7, None), None, 10_002);
    assert_eq!(process.healed_at_ms, 10_001, "the mesh never opened");
    assert_eq!(process.report(&OWN, 10_003), None);
}

#[test]
fn what_tests_closed_is_let_go_in_a_growing_share() {
    let mut process = heard(State::HalfOpen, 7);
    let healed = BreakerState { healed_ms: Some(2_000), ..told(State::Closed, 8, None) };
    assert!(process.told(&healed, None, 50_000));
    assert_eq!(process.healed_at_ms, 48_000);
    process.told(&told(State::Open, 9, None), None, 60_000);
    assert_eq!(process.healed_at_ms, 0, "it opened again");
    let operators = told(State::Closed, 10, None);
    process.told(&operators, None, 70_000);
    assert_eq!(process.healed_at_ms, 0, "an operator's reset is no slow start");

    // Of a thousand draws over the whole range.
    let share = |passed_ms| {
        let draws = (0..1_000_u32).map(|nth| nth * (u32::MAX / 1_000));
        draws.filter(|entropy| OWN.passes_after(passed_ms, *entropy)).count()
    };
    let rows = [(0, 100), (1_000, 190), (5_000, 550), (9_999, 1_000), (10_000, 1_000)];
    for (passed_ms, expected) in rows {
        assert!(share(passed_ms).abs_diff(expected) <= 1, "{passed_ms}: {}", share(passed_ms));
    }
    assert!(Own { ramp_ms: 0, ..OWN }.passes_after(0, u32::MAX));
}

#[test]
fn a_failed_test_of_its_own_shuts_it_as_long_again_and_a_lost_one_runs_out() {
    let mut process = heard(State::Closed, 7);
    process.trip(&OWN, process.generation, 0, MIDDLE);
    let Leave::Test(id) = process.admit(&OWN, 10_000, false) else { panic!("{process:?}") };
    process.settle(&OWN, id, Ended::Failed, 11_000, MIDDLE);
    assert_eq!(process.admit(&OWN, 11_000, false), Leave::Wait(Some(10_000)));
    let Leave::Test(lost) = process.admit(&OWN, 21_000, false) else { panic!("{process:?}") };
    assert!(matches!(process.admit(&OWN, 25_999, false), Leave::Wait(_)));
    let Leave::Test(next) = process.admit(&OWN, 26_000, false) else { panic!("{process:?}") };
    assert_ne!(lost, next);
    process.settle(&OWN, lost, Ended::Failed, 26_001, MIDDLE);
    assert!(process.probe.is_some_and(|probe| probe.id == next), "its late word changes nothing");
}

#[test]
fn once_the_mesh_is_open_it_alone_gives_tests() {
    let mut process = heard(State::Closed, 7);
    process.trip(&OWN, process.generation, 0, MIDDLE);
    assert!(process.told(&told(State::Open, 8, None), None, 100));
    assert!(!process.tripped);
    assert!(matches!(process.admit(&OWN, 30_000, false), Leave::Wait(_)));
    let ask = process.report(&OWN, 30_001).expect("somebody wants a test");
    assert!(ask.ask);
    process.told(&told(State::HalfOpen, 9, Some((77, 5_000))), None, 30_001);
    assert_eq!(process.admit(&OWN, 30_010, false), Leave::Test(77));
    assert!(matches!(process.admit(&OWN, 30_010, false), Leave::Wait(_)));
    process.settle(&OWN, 77, Ended::Ok, 30_020, MIDDLE);
    let said = process.report(&OWN, 30_021).expect("the end is told");
    assert_eq!(said.probe, Some(Settled { id: 77, ended: Ended::Ok }));
    assert!(said.ask, "and the next one asked for");
    // Until it is heard of.
    assert_eq!(process.report(&OWN, 30_022).and_then(|said| said.probe), said.probe);
    assert!(process.told(&told(State::Closed, 10, None), said.probe, 30_023));
    assert_eq!(process.admit(&OWN, 30_024, false), Leave::Pass);
    assert_eq!(process.report(&OWN, 30_025), None);
}

#[test]
fn a_test_that_nobody_comes_for_is_kept_for_a_turn_and_one_that_is_too_old_not_made() {
    let given_back = Some(Settled { id: 77, ended: Ended::GivenBack });
    let mut process = heard(State::Open, 8);
    assert!(matches!(process.admit(&OWN, 9_999, false), Leave::Wait(Some(1))));
    assert!(!process.is_pending(), "before its wait is over there is nothing to ask for");
    assert!(matches!(process.admit(&OWN, 10_000, false), Leave::Wait(None)));
    assert!(process.report(&OWN, 10_000).is_some_and(|said| said.ask));
    process.told(&told(State::HalfOpen, 9, Some((77, 5_000))), None, 10_000);
    assert_eq!(process.report(&OWN, 11_000), None, "whoever was refused comes again");
    // Half of its time is over.
    let back = process.report(&OWN, 12_500).expect("it is given back");
    assert_eq!((back.probe, back.ask), (given_back, false), "for a tick others may have it");
    process.told(&told(State::HalfOpen, 9, None), back.probe, 12_500);
    let again = process.report(&OWN, 12_750).expect("it is asked for once more");
    assert_eq!((again.probe, again.ask), (None, true));
    // Nobody is expected any more.
    assert!(process.report(&OWN, 10_000 + SOUGHT_MS - 1).is_some_and(|said| said.ask));
    assert_eq!(process.report(&OWN, 10_000 + SOUGHT_MS), None);
    assert!(!process.is_pending());
    process.told(&told(State::HalfOpen, 9, Some((77, 5_000))), None, 700_000);
    assert_eq!(process.report(&OWN, 700_000).and_then(|said| said.probe), given_back);
    let mut process = heard(State::Open, 8);
    process.told(&told(State::HalfOpen, 9, Some((77, 5_000))), None, 1_000);
    assert!(matches!(process.admit(&OWN, 6_000, false), Leave::Wait(_)));
}

#[test]
fn without_a_gateway_it_goes_on_alone_and_hears_the_mesh_when_that_is_back() {
    let mut process = heard(State::Open, 8);
    for _ in 0..3 {
        assert!(matches!(process.admit(&OWN, 10_000, false), Leave::Wait(_)));
        let Leave::Test(id) = process.admit(&OWN, 10_000, true) else { panic!("{process:?}") };
        process.settle(&OWN, id, Ended::Ok, 10_001, MIDDLE);
    }
    assert!(process.passes());
    assert!(process.told(&told(State::Open, 8, None), None, 20_000), "the mesh is still open");
    assert!(!process.passes());
}

/// One record that cannot be read, of many that can: the gateway answers, and leaves this one out.
#[test]
fn a_breaker_of_which_nothing_is_told_is_tested_by_its_process_alone() {
    let mut process = heard(State::Open, 8);
    let reports = |process: &mut Process, from_ms: u64| {
        for now_ms in (from_ms..from_ms + 2_000).step_by(250) {
            assert!(matches!(process.admit(&OWN, now_ms, false), Leave::Wait(_)), "{now_ms}");
            assert!(process.report(&OWN, now_ms).is_some_and(|said| said.ask));
        }
    };
    reports(&mut process, 10_000);
    // What is told at last is told in time.
    process.told(&told(State::HalfOpen, 9, None), None, 12_000);
    reports(&mut process, 12_000);
    process.report(&OWN, 14_000);
    for n in 0..3 {
        let Leave::Test(id) = process.admit(&OWN, 14_001, false) else { panic!("{process:?}") };
        process.report(&OWN, 14_002);
        assert!(matches!(process.admit(&OWN, 14_003, false), Leave::Wait(_)), "one at a time");
        assert_eq!(process.settle(&OWN, id, Ended::Ok, 14_004, MIDDLE), n == 2);
    }
    assert!(process.passes());
    assert!(process.told(&told(State::HalfOpen, 9, None), None, 15_000), "the mesh is heard again");
    assert!(matches!(process.admit(&OWN, 15_001, false), Leave::Wait(_)));
}

/// It had a word to say, said no more, and says one much later: nobody left it out.
#[test]
fn a_word_that_was_lost_long_ago_makes_nobody_alone() {
    let mut process = heard(State::Closed, 8);
    process.add(process.generation, Counts { calls: 1, failures: 0, slow: 0 });
    assert!(process.report(&OWN, 0).is_some());
    assert_eq!(process.report(&OWN, 250), None);
    process.add(process.generation, Counts { calls: 1, failures: 0, slow: 0 });
    assert!(process.report(&OWN, 60_000).is_some() && !process.unheard);
}

#[test]
fn what_operators_say_holds() {
    let mut process = heard(State::Closed, 7);
    assert!(process.told(&told(State::ForcedOpen, 8, None), None, 0));
    assert!(matches!(process.admit(&OWN, 1 << 50, true), Leave::Wait(_)), "no test, also alone");
    assert!(process.told(&told(State::Disabled, 9, None), None, 0));
    assert_eq!(process.admit(&OWN, 1, false), Leave::Pass);
    assert!(!process.trip(&OWN, process.generation, 0, MIDDLE), "nothing comes of failures");
    process.add(process.generation, Counts { calls: 3, failures: 3, slow: 0 });
    assert_eq!(process.report(&OWN, 2).map(|said| said.calls), Some(3), "but they are counted");
    let mut tripped = heard(State::Closed, 7);
    tripped.trip(&OWN, tripped.generation, 0, MIDDLE);
    assert!(tripped.told(&told(State::Closed, 8, None), None, 0), "reset");
    assert!(tripped.passes());
}

#[test]
fn what_is_ordered_of_all_of_many_lapses_at_its_end_and_an_endless_one_never() {
    for state in [State::ForcedOpen, State::Disabled, State::MetricsOnly] {
        let mut process = heard(State::Closed, 7);
        process.told(&BreakerState { wait_ms: Some(5_000), ..told(state, 8, None) }, None, 1_000);
        let generation = process.generation;
        assert!(!process.lapse(5_999) && process.state == state);
        assert!(process.lapse(6_000) && process.passes() && process.generation != generation);
        assert!(!process.lapse(6_000), "once");
        process.told(&BreakerState { wait_ms: None, ..told(state, 9, None) }, None, 7_000);
        assert!(!process.lapse(1 << 50));
    }
    assert!(!heard(State::Open, 7).lapse(1 << 50), "nobody ordered it");
}

/// A store's clock was days ahead and is corrected, and its record lost: what it says then is told, too.
#[test]
fn an_epoch_that_the_gateway_does_not_believe_holds_nobody() {
    let mut process = heard(State::Closed, 90);
    let open = told(State::Open, 7, None);
    // Of another report's time.
    process.disbelieved(89, &open);
    assert!(process.doubts(&open) && !process.told(&open, None, 0), "an old word");
    process.disbelieved(90, &open);
    assert!(process.told(&open, None, 0));
    assert_eq!((process.state, process.epoch), (State::Open, 7));
    process.disbelieved(7, &told(State::Open, 9, None));
    assert!(process.epoch == 7 && !process.doubts(&open));
}

#[test]
fn what_was_counted_before_a_change_is_gone_with_it() {
    let mut process = heard(State::Closed, 7);
    let before = process.generation;
    process.add(before, Counts { calls: 9, failures: 4, slow: 1 });
    process.told(&told(State::Closed, 8, None), None, 0);
    process.add(before, Counts { calls: 9, failures: 9, slow: 9 });
    assert_eq!(process.report(&OWN, 0), None);
    assert!(!process.told(&told(State::Open, 7, None), None, 0), "an old word");
    assert!(process.passes());
}

#[test]
fn a_clock_that_stepped_back_makes_no_wait_longer_than_twice_the_longest() {
    let mut process = heard(State::Open, 8);
    process.until_ms = 1_000_000;
    assert!(matches!(process.admit(&OWN, 0, false), Leave::Wait(Some(1..=20_000))));
}

proptest! {
    #[test]
    fn it_is_read_as_it_was_written(words in proptest::collection::vec((0..8u8, 0..6_000u64), 0..40)) {
        let (mut process, mut now_ms, mut epoch) = (Process::default(), 0, 1);
        let mut out: Vec<(u64, u64)> = Vec::new();
        for (word, passed_ms) in words {
            now_ms += passed_ms;
            match word {
                0 => { process.trip(&OWN, process.generation, now_ms, MIDDLE); }
                1 | 2 => {
                    let before = process.probe;
                    if let Leave::Test(id) = process.admit(&OWN, now_ms, word == 2) {
                        // One at a time in one process.
                        let live = before.is_some_and(|p| p.out && now_ms < p.until_ms);
                        prop_assert!(!live, "two tests at once");
                        out.push((id, now_ms));
                    }
                }
                3 => { out.pop().map(|(id, _)| process.settle(&OWN, id, Ended::Ok, now_ms, 0)); }
                4 => { out.pop().map(|(id, _)| process.settle(&OWN, id, Ended::Failed, now_ms, 0)); }
                5 => { process.report(&OWN, now_ms); }
                6 => { epoch += 1; process.told(&told(State::Open, epoch, None), None, now_ms); }
                _ => {
                    let permit = Some((epoch, 5_000));
                    process.told(&told(State::HalfOpen, epoch, permit), None, now_ms);
                }
            }
            let read = Process::from_bytes(&process.to_bytes());
            prop_assert_eq!(read.as_ref(), Some(&process));
        }
    }
}

/// An operator's state that has an end ends by itself, in tests: who is refused after it asks for one.
#[test]
fn a_forced_state_that_is_over_asks_for_a_test() {
    let mut process = Process::default();
    let own = OWN;
    assert!(process.told(
        &BreakerState { wait_ms: Some(1_000), ..told(State::ForcedOpen, 8, None) },
        None,
        0
    ));
    assert_eq!(process.admit(&own, 500, false), Leave::Wait(Some(500)));
    assert_eq!((process.ordered_ms(500), process.ordered_ms(1_000)), (Some(500), None));
    assert_eq!(process.report(&own, 900), None, "nobody has to know that it is asked for");
    assert_eq!(process.admit(&own, 1_000, false), Leave::Wait(None));
    assert!(process.report(&own, 1_001).is_some_and(|batch| batch.ask));
    let mut endless = Process::default();
    endless.told(&told(State::ForcedOpen, 8, None), None, 0);
    assert_eq!(endless.admit(&own, 1 << 50, false), Leave::Wait(Some(60_000)));
    assert_eq!(endless.report(&own, 1 << 50), None);
}

/// What an operator says of all of many has an end in the filter, too: nobody reports on the name alone.
#[test]
fn an_operators_state_is_kept_to_until_its_end() {
    for (state, kept) in [
        (State::ForcedOpen, true),
        (State::Disabled, true),
        (State::MetricsOnly, true),
        (State::Open, false),
        (State::Closed, false),
    ] {
        let mut process = Process::default();
        process.told(&BreakerState { wait_ms: Some(1_000), ..told(state, 8, None) }, None, 0);
        assert_eq!(process.ordered_ms(500), kept.then_some(500), "{state:?}");
        assert_eq!(process.ordered_ms(1_000), None, "{state:?}");
        let mut endless = Process::default();
        endless.told(&told(state, 8, None), None, 0);
        assert_eq!(endless.ordered_ms(1 << 50), kept.then_some(60_000), "{state:?}");
    }
}

/// An operator may have it shut for longer than its numbers would: the process keeps to that, whether the gateway
/// answers or not, and no longer where its clock stepped back meanwhile.
#[test]
fn a_trip_is_held_as_long_as_it_was_said() {
    let open = BreakerState { wait_ms: Some(60_000), ..told(State::Open, 8, None) };
    for alone in [false, true] {
        let mut process = heard(State::Closed, 7);
        assert!(process.told(&open, None, 1_000));
        assert_eq!(process.admit(&OWN, 2_000, alone), Leave::Wait(Some(59_000)));
        assert_eq!(process.admit(&OWN, 60_999, alone), Leave::Wait(Some(1)), "alone: {alone}");
        let due = process.admit(&OWN, 61_000, alone);
        assert_eq!(due, if alone { Leave::Test(1) } else { Leave::Wait(None) });
        // Of a test that fails its own numbers say how long it is shut.
        if alone {
            process.settle(&OWN, 1, Ended::Failed, 61_001, MIDDLE);
            assert_eq!(process.admit(&OWN, 61_001, true), Leave::Wait(Some(10_000)));
        }
    }
    for state in [State::Open, State::ForcedOpen] {
        let mut process = heard(State::Closed, 7);
        process.told(&BreakerState { state, ..open.clone() }, None, 1_000_000);
        assert_eq!(process.admit(&OWN, 400_000, false), Leave::Wait(Some(60_000)), "{state:?}");
        assert_eq!(process.admit(&OWN, 410_000, false), Leave::Wait(Some(50_000)), "{state:?}");
    }
}

/// What an operator lets pass ends in the process by itself: while the gateway is away nobody else says so.
#[test]
fn what_is_let_pass_for_a_time_ends_with_a_report_whoever_hears_of_it() {
    for state in [State::Disabled, State::MetricsOnly] {
        let mut process = heard(State::Closed, 7);
        let order = BreakerState { wait_ms: Some(60_000), ..told(state, 8, None) };
        process.told(&order, None, 1_000);
        let failed = Counts { calls: 9, failures: 9, slow: 0 };
        process.add(process.generation, failed);
        assert!(process.report(&OWN, 60_999).is_some_and(|said| said.failures == 9));
        assert!(process.state == state && !process.trip(&OWN, process.generation, 60_999, 0));
        let before = process.generation;
        process.add(before, failed);
        assert_eq!(process.report(&OWN, 61_000), None, "what was counted before is gone");
        assert!(process.state == State::Closed && process.generation != before);
        assert!(process.trip(&OWN, process.generation, 61_001, 0), "failures count again");
        // What the mesh says of the same order later ends as it said.
        process.told(&BreakerState { wait_ms: Some(5), ..order }, None, 61_250);
        assert!(process.report(&OWN, 61_255).is_none() && process.state == State::Closed);
        process.told(&told(state, 9, None), None, 70_000);
        process.add(process.generation, failed);
        assert!(process.report(&OWN, 1 << 50).is_some(), "one without an end has none");
        assert_eq!(process.state, state);
    }
}
