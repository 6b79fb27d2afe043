//! Tests of the breaker: the table of its transitions, and random histories against what must
//! never happen.

use super::*;
use proptest::prelude::*;

const MIDDLE: u64 = 1 << 63;

fn breaker() -> Breaker {
    Breaker::new(Settings::default())
}

fn pass(breaker: &mut Breaker, now_ms: u64) -> Ticket {
    match breaker.admit(now_ms).0 {
        Admission::Pass(ticket) => ticket,
        refused => panic!("{refused:?} at {now_ms} in {breaker:?}"),
    }
}

fn refused_ms(breaker: &mut Breaker, now_ms: u64) -> u64 {
    match breaker.admit(now_ms).0 {
        Admission::Refuse { retry_ms } => retry_ms,
        passed => panic!("{passed:?} at {now_ms} in {breaker:?}"),
    }
}

fn tripped(now_ms: u64) -> Breaker {
    let mut breaker = breaker();
    for n in 0..5 {
        let ticket = pass(&mut breaker, now_ms);
        let changed = breaker.settle(ticket, Outcome::Failure, now_ms, MIDDLE).changed;
        let opens = (State::Closed, State::Open, Cause::Failures);
        assert_eq!(changed.map(|c| (c.from, c.to, c.cause)), (n == 4).then_some(opens));
    }
    breaker
}

#[test]
fn five_failures_in_a_row_open_it_and_a_success_in_between_forgets_them() {
    let mut breaker = breaker();
    for outcome in [Outcome::Failure; 4].into_iter().chain([Outcome::Success, Outcome::Ignored]) {
        let ticket = pass(&mut breaker, 0);
        assert_eq!(breaker.settle(ticket, outcome, 0, 0).changed, None);
    }
    for _ in 0..4 {
        let ticket = pass(&mut breaker, 0);
        assert_eq!(breaker.settle(ticket, Outcome::Failure, 0, 0).changed, None);
        let ticket = pass(&mut breaker, 0);
        assert_eq!(breaker.settle(ticket, Outcome::Ignored, 0, 0).changed, None);
    }
    assert!(breaker.is_closed());
    let ticket = pass(&mut breaker, 0);
    assert!(breaker.settle(ticket, Outcome::Failure, 0, 0).changed.is_some(), "the fifth");
}

/// Its call goes on beside the breaker: neither outcome closes it, is a test, or keeps the next test from beginning.
#[test]
fn a_call_at_no_time_changes_nothing_of_an_open_breaker() {
    let mut breaker = tripped(0);
    for outcome in [Outcome::Success, Outcome::Failure, Outcome::Ignored] {
        let ticket = breaker.unguarded();
        assert!(!ticket.is_test());
        assert_eq!(breaker.settle(ticket, outcome, 5_000, MIDDLE), Settled::default());
        assert_eq!((breaker.state(), breaker.is_closed()), (State::Open, false));
    }
    assert_eq!(refused_ms(&mut breaker, 5_000), 5_000);
    assert!(pass(&mut breaker, 10_000).is_test());
}

#[test]
fn open_lasts_ten_seconds_more_or_less_a_fifth() {
    for (entropy, open_ms) in [(0, 8_000), (MIDDLE, 10_000), (u64::MAX, 11_999)] {
        let mut breaker = Breaker::new(Settings { failures: 1, ..Settings::default() });
        let ticket = pass(&mut breaker, 500);
        breaker.settle(ticket, Outcome::Failure, 500, entropy);
        assert_eq!(refused_ms(&mut breaker, 500), open_ms);
        assert_eq!(refused_ms(&mut breaker, 499 + open_ms), 1);
        pass(&mut breaker, 500 + open_ms);
        assert_eq!(breaker.state(), State::HalfOpen);
    }
}

#[test]
fn of_ten_that_ask_in_half_open_one_passes() {
    let mut breaker = tripped(0);
    let passed = (0..10).filter(|_| matches!(breaker.admit(10_000).0, Admission::Pass(_))).count();
    assert_eq!(passed, 1);
}

#[test]
fn three_tests_in_a_row_close_it_and_one_failure_opens_it_anew() {
    let mut breaker = tripped(0);
    for n in 0..3 {
        let ticket = pass(&mut breaker, 10_000);
        refused_ms(&mut breaker, 10_000);
        let changed = breaker.settle(ticket, Outcome::Success, 10_001, MIDDLE).changed;
        assert_eq!(changed.map(|c| c.to), (n == 2).then_some(State::Closed));
    }
    // Flapping: two good, one bad.
    let mut breaker = tripped(0);
    for outcome in [Outcome::Success, Outcome::Success] {
        let ticket = pass(&mut breaker, 10_000);
        assert_eq!(breaker.settle(ticket, outcome, 10_001, MIDDLE).changed, None);
    }
    let ticket = pass(&mut breaker, 10_002);
    let changed = breaker.settle(ticket, Outcome::Failure, 10_002, MIDDLE).changed;
    assert_eq!(changed.map(|c| c.to), Some(State::Open));
    assert_eq!(refused_ms(&mut breaker, 10_002), 10_000);
    // The successes before count no more.
    let ticket = pass(&mut breaker, 20_002);
    assert_eq!(breaker.settle(ticket, Outcome::Success, 20_002, MIDDLE).changed, None);
}

#[test]
fn what_began_before_a_transition_changes_nothing_after_it() {
    let mut breaker = breaker();
    let early = pass(&mut breaker, 0);
    for _ in 0..5 {
        let ticket = pass(&mut breaker, 0);
        breaker.settle(ticket, Outcome::Failure, 0, MIDDLE);
    }
    assert_eq!(breaker.settle(early, Outcome::Success, 1, 0).changed, None);
    let probe = pass(&mut breaker, 10_000);
    assert_eq!(breaker.settle(early, Outcome::Failure, 10_000, 0).changed, None);
    assert_eq!(breaker.settle(probe, Outcome::Success, 10_000, 0).changed, None);
    assert_eq!(breaker.state(), State::HalfOpen);
    for _ in 0..2 {
        let probe = pass(&mut breaker, 10_000);
        breaker.settle(probe, Outcome::Success, 10_000, 0);
    }
    assert!(breaker.is_closed());
    for _ in 0..5 {
        breaker.settle(early, Outcome::Failure, 10_001, 0);
    }
    assert!(breaker.is_closed(), "failures of before the outage say nothing of now");
}

#[test]
fn an_outcome_after_the_tests_time_is_dropped_even_if_nobody_asked_since() {
    let mut breaker = tripped(0);
    let late = pass(&mut breaker, 10_000);
    assert_eq!(breaker.settle(late, Outcome::Failure, 15_000, 0).changed, None);
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn a_test_without_an_outcome_runs_out_and_its_late_outcome_is_dropped() {
    let mut breaker = tripped(0);
    let lost = pass(&mut breaker, 10_000);
    assert_eq!(refused_ms(&mut breaker, 14_999), 1);
    let second = pass(&mut breaker, 15_000);
    assert_eq!(breaker.settle(lost, Outcome::Failure, 15_000, 0).changed, None);
    assert_eq!(breaker.settle(second, Outcome::Success, 15_001, 0).changed, None);
    // However many nobody finishes: the next one has its turn, and successes before count no more.
    for start_ms in [16_000, 21_000, 26_000, 31_000] {
        pass(&mut breaker, start_ms);
        assert_eq!(refused_ms(&mut breaker, start_ms), 5_000);
    }
    for n in 0..3 {
        let ticket = pass(&mut breaker, 36_000);
        let changed = breaker.settle(ticket, Outcome::Success, 36_000, 0).changed;
        assert_eq!(changed.map(|c| c.to), (n == 2).then_some(State::Closed), "{n}");
    }
}

#[test]
fn a_clock_that_steps_back_makes_nobody_wait_longer() {
    let mut breaker = tripped(1_000_000);
    assert_eq!(refused_ms(&mut breaker, 1_000), 12_000, "as long as the longest");
    assert_eq!(refused_ms(&mut breaker, 12_999), 1);
    pass(&mut breaker, 13_000);
    // The test is lost and the clock steps back again.
    assert_eq!(refused_ms(&mut breaker, 2), 12_000);
    pass(&mut breaker, 12_002);
}

#[test]
fn it_tells_what_a_test_came_to_and_how_long_each_state_lasted() {
    let mut breaker = tripped(1_000);
    let ticket = pass(&mut breaker, 12_000);
    assert!(ticket.is_test());
    let given_back = breaker.settle(ticket, Outcome::Ignored, 12_500, MIDDLE);
    assert_eq!(given_back, Settled { test: Some(Ended::GivenBack), changed: None });
    assert_eq!(breaker.state(), State::HalfOpen);
    let again = breaker.settle(ticket, Outcome::Failure, 12_500, MIDDLE);
    assert_eq!(again, Settled::default(), "it is over");
    let ticket = pass(&mut breaker, 12_600);
    let failed = breaker.settle(ticket, Outcome::Failure, 13_000, MIDDLE);
    assert_eq!(failed.test, Some(Ended::Failed));
    let (from, to, cause) = (State::HalfOpen, State::Open, Cause::ProbeFailed);
    assert_eq!(failed.changed, Some(Transition { from, to, cause, after_ms: 1_000 }));
    let changed = breaker.admit(23_000).1;
    let (from, to, cause) = (State::Open, State::HalfOpen, Cause::WaitOver);
    assert_eq!(changed, Some(Transition { from, to, cause, after_ms: 10_000 }));
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Ask,
    Settle(usize, Outcome),
    Lose(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome =
        prop_oneof![Just(Outcome::Success), Just(Outcome::Failure), Just(Outcome::Ignored)];
    prop_oneof![
        (0u64..6_000).prop_map(Step::Wait),
        Just(Step::Ask),
        Just(Step::Ask),
        (0usize..8, outcome).prop_map(|(n, outcome)| Step::Settle(n, outcome)),
        (0usize..8).prop_map(Step::Lose),
    ]
}

proptest! {
    /// Whatever happens: one live test at most, no way from open to closed but over half-open, and
    /// what is healthy again is closed again within a stated time.
    #[test]
    fn random_histories_keep_the_rules(
        steps in proptest::collection::vec((step(), any::<u64>()), 0..200)
    ) {
        let mut breaker = breaker();
        let mut now_ms = 1_000;
        let mut out: std::vec::Vec<Ticket> = std::vec![];
        let mut probe_since: Option<u64> = None;
        for (step, entropy) in steps {
            let changed = match step {
                Step::Wait(ms) => {
                    now_ms += ms;
                    None
                }
                Step::Ask => {
                    let (admission, changed) = breaker.admit(now_ms);
                    if let Admission::Pass(ticket) = admission {
                        if breaker.state() == State::HalfOpen {
                            prop_assert!(probe_since.is_none_or(|since| now_ms >= since + 5_000));
                            probe_since = Some(now_ms);
                        }
                        prop_assert_ne!(breaker.state(), State::Open);
                        out.push(ticket);
                    }
                    changed
                }
                Step::Settle(n, outcome) if n < out.len() => {
                    let ticket = out.remove(n);
                    let changed = breaker.settle(ticket, outcome, now_ms, entropy).changed;
                    if ticket.test == Some(u64::from(breaker.process.own_tests)) {
                        probe_since = None;
                    }
                    changed
                }
                Step::Lose(n) if n < out.len() => {
                    out.remove(n);
                    None
                }
                Step::Settle(..) | Step::Lose(_) => None,
            };
            if let Some(Transition { from, to, .. }) = changed {
                prop_assert_ne!(from, to);
                prop_assert!(from != State::Open || to == State::HalfOpen);
            }
        }
        // Healthy from now on: at most three lost tests of 5 s, 12 s open, three tests.
        let deadline_ms = now_ms + 3 * 5_000 + 12_000;
        while !breaker.is_closed() {
            prop_assert!(now_ms <= deadline_ms, "{breaker:?}");
            match breaker.admit(now_ms).0 {
                Admission::Pass(ticket) => {
                    breaker.settle(ticket, Outcome::Success, now_ms, 0);
                }
                Admission::Refuse { retry_ms } => now_ms += retry_ms,
            }
        }
    }
}
