//! Owns what is usual of a breaker: the share of failures that it learns while it is closed, and how many
//! failures are too many for that. Whole numbers below 2^53 throughout, as `lua/cb_step.lua` counts.
//!
//! A part of the window is learnt when the window has left it behind, so that nothing is judged by itself,
//! and what opened the breaker is never learnt. `n` calls of which `p` fail usually have more than
//! `n·p + 6·√(n·p·(1 - p)) + 6` failures less than once in 65 million windows, whatever `n` and `p` are, as
//! long as calls fail independently: Bennett's inequality with ln(1/δ) = 18 (Maurer and Pontil, "Empirical
//! Bernstein Bounds and Sample Variance Penalization", 2009, theorem 3).

use serde::{Deserialize, Serialize};

use super::{Bucket, Window, window};

/// The longest time over which a breaker learns, in ms: a day.
pub const OVER_MS_MAX: u32 = 86_400_000;
/// Calls that have to be learnt before it judges by them.
const LEARNT_MIN: u64 = 1_000;
/// What is learnt is kept in thousandths, and halved when it would not fit.
const SCALE: u64 = 1_000;
const LEARNT_MAX: u64 = (1 << 39) - 1;
/// Shares are of so many.
const WHOLE: u64 = 10_000;
/// The root of 2·ln(1/δ), and a third of ln(1/δ).
const DEVIATIONS: u64 = 6;
const BEYOND: u64 = 6;
/// More calls than that deviate no more, so that every number stays below 2^52.
const SPREAD_CALLS_MAX: u64 = 100_000_000;

/// When more failures than usual open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adaptive {
    /// Fewer failures of 1,000 calls never do.
    pub min_permille: u16,
    /// Over what time it learns, in ms, counting only parts of the window with calls.
    pub over_ms: u32,
}

/// What was learnt, in thousandths of a call; what is older counts less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usual {
    /// Calls; 0 = nothing was.
    pub calls: u64,
    /// Of them failures.
    pub failures: u64,
}

// === impl Adaptive ===

impl Adaptive {
    /// How many parts of the window it learns over.
    fn parts(&self, span_ms: u32) -> u64 {
        (u64::from(self.over_ms) / window::part(span_ms)).max(1)
    }

    /// What one part of a window adds; windows by count teach nothing.
    pub(super) fn learn(&self, usual: &mut Usual, span: &Window, bucket: &Bucket) {
        let Window::Ms(span_ms) = *span else { return };
        let parts = self.parts(span_ms);
        let faded = |number: u64, new: u64| number - number / parts + new.saturating_mul(SCALE);
        usual.calls = faded(usual.calls, bucket.calls);
        usual.failures = faded(usual.failures, bucket.failures.min(bucket.calls));
        while usual.calls > LEARNT_MAX {
            (usual.calls, usual.failures) = (usual.calls / 2, usual.failures / 2);
        }
    }

    /// Whether so many failures are too many for what is usual.
    pub(super) fn is_unusual(&self, usual: &Usual, calls: u64, failures: u64) -> bool {
        let Some(share) = usual.share().filter(|_| usual.calls / SCALE >= calls) else {
            return false;
        };
        let deviation = (calls.min(SPREAD_CALLS_MAX) * share * (WHOLE - share)).isqrt();
        let most = calls * share + DEVIATIONS * deviation + BEYOND * WHOLE;
        failures * 1_000 >= calls * u64::from(self.min_permille) && failures * WHOLE > most
    }
}

// === impl Usual ===

impl Usual {
    /// Failures of 10,000 calls, rounded up; `None` until enough was learnt.
    pub fn share(&self) -> Option<u64> {
        let enough = self.calls >= LEARNT_MIN * SCALE;
        let rounded =
            (self.failures * WHOLE + self.calls.saturating_sub(1)).checked_div(self.calls);
        rounded.filter(|_| enough).map(|share| share.min(WHOLE))
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;
    const SPAN: Window = Window::Ms(10_000);
    const ADAPTIVE: Adaptive = Adaptive { min_permille: 50, over_ms: 600_000 };

    fn bucket(calls: u64, failures: u64) -> Bucket {
        Bucket { number: 0, calls, failures, slow: 0 }
    }

    fn learnt(calls: u64, failures: u64) -> Usual {
        let mut usual = Usual::default();
        ADAPTIVE.learn(&mut usual, &SPAN, &bucket(calls, failures));
        usual
    }

    /// The fewest failures of so many calls that are unusual.
    fn fewest(usual: &Usual, calls: u64) -> Option<u64> {
        (0..=calls).find(|failures| ADAPTIVE.is_unusual(usual, calls, *failures))
    }

    /// The numbers of docs/breakers.md.
    #[test]
    fn how_many_are_too_many() {
        let rows = [
            // Of 100,000 calls so many failed; of these calls so many are too many.
            (0, 20, Some(7)),
            (0, 100, Some(7)),
            (0, 1_000, Some(50)),
            (100, 100, Some(8)),
            (1_000, 20, Some(9)),
            (1_000, 100, Some(13)),
            (1_000, 1_000, Some(50)),
            (1_000, 10_000, Some(500)),
            (10_000, 20, Some(17)),
            (10_000, 100, Some(35)),
            (10_000, 1_000, Some(163)),
            (30_000, 20, None),
            (30_000, 100, Some(64)),
            (30_000, 1_000, Some(393)),
            (100_000, 1_000, None),
        ];
        for (failures, calls, expected) in rows {
            let fewest = fewest(&learnt(100_000, failures), calls);
            assert_eq!(fewest, expected, "{failures} of 100,000, then {calls}");
        }
        assert_eq!(fewest(&learnt(999, 0), 100), None, "too little was learnt");
        assert_eq!(fewest(&learnt(1_000, 0), 1_001), None, "the window knows more");
        assert_eq!(fewest(&learnt(1_000, 0), 100), Some(7));
    }

    #[test]
    fn what_is_older_counts_less_and_silence_forgets_nothing() {
        let mut usual = learnt(100_000, 50_000);
        assert_eq!(usual.share(), Some(5_000));
        // Ten minutes of parts of a second.
        for second in 1..=600 {
            ADAPTIVE.learn(&mut usual, &SPAN, &bucket(1_000, 0));
            assert!(usual.share().is_some_and(|share| share < 5_000), "{second}");
        }
        let share = usual.share().expect("enough");
        assert!((350..450).contains(&share), "50,000·e^-1 of 416,000 calls: {share}");
        ADAPTIVE.learn(&mut usual, &Window::Calls(100), &bucket(1_000, 1_000));
        assert_eq!(usual.share(), Some(share), "no parts of time");
        let mut most = Usual::default();
        for _ in 0..5_000 {
            ADAPTIVE.learn(&mut most, &SPAN, &bucket(0xffff_ffff, 0x7fff_ffff));
        }
        assert!(most.calls <= LEARNT_MAX && most.share() == Some(5_000), "{most:?}");
    }

    /// One process and its region, a report for each second.
    struct Region {
        terms: Terms,
        now_ms: u64,
        seq: u64,
        record: Option<Record>,
    }

    impl Region {
        fn new(adaptive: Option<Adaptive>) -> Self {
            let terms = Terms {
                window: SPAN,
                min_calls: 20,
                failure_permille: 500,
                slow_permille: 0,
                adaptive,
                open_ms: 10_000,
                backoff: 0,
                successes: 1,
                probe_ms: 5_000,
                trip_reporters: 2,
            };
            Self { terms, now_ms: NOW, seq: 0, record: None }
        }

        fn say(&mut self, passed_ms: u64, batch: Batch) -> Said {
            self.now_ms += passed_ms;
            self.seq += 1;
            let epoch = self.record.as_ref().map_or(0, |record| record.epoch);
            let batch = Batch { epoch, ..batch };
            let holder = *b"process1";
            let event =
                Event::Sync { terms: &self.terms, holder, seq: self.seq, batch, entropy: 0 };
            let (said, record) = step(self.now_ms, self.record.as_ref(), &event);
            self.record = record;
            said
        }

        fn second(&mut self, calls: u32, failures: u32) -> Said {
            self.say(1_000, Batch { calls, failures, ..Batch::default() })
        }

        /// So many seconds in which so many of 100 calls fail each; why it opened in the end, if it did.
        fn of_100(&mut self, seconds: u32, failures: u32) -> Option<Cause> {
            (0..seconds)
                .find_map(|_| self.second(100, failures).transitions.first().map(|t| t.cause))
        }
    }

    #[test]
    fn it_opens_by_what_is_unusual_of_it_long_before_half_of_all_fails() {
        for (adaptive, usually, then, expected) in [
            (None, 1, 20, None),
            (Some(ADAPTIVE), 1, 20, Some(Cause::Unusual)),
            (Some(ADAPTIVE), 1, 4, None),
            (Some(ADAPTIVE), 15, 20, None),
            (Some(ADAPTIVE), 15, 40, Some(Cause::Unusual)),
            (Some(ADAPTIVE), 15, 60, Some(Cause::Failures)),
        ] {
            let mut region = Region::new(adaptive);
            assert_eq!(region.of_100(300, usually), None);
            let cause = match expected {
                // Half of all at once is told by its own name.
                Some(Cause::Failures) => {
                    let said = region.second(10_000, 6_000);
                    said.transitions.first().map(|t| t.cause)
                }
                _ => region.of_100(10, then),
            };
            assert_eq!(cause, expected, "{adaptive:?} {usually} then {then}");
        }
    }

    #[test]
    fn what_opened_it_is_never_learnt_and_a_reset_forgets_all() {
        let mut region = Region::new(Some(ADAPTIVE));
        assert_eq!(region.of_100(300, 1), None);
        let usual = region.record.as_ref().map(|record| record.usual).expect("a record");
        assert_eq!(usual.share(), Some(101), "rounded up");
        assert_eq!(region.of_100(10, 30), Some(Cause::Unusual));
        let ask = Batch { ask: true, ..Batch::default() };
        let (id, _) = region.say(20_000, ask).permit.expect("a test");
        let probe = Some(Settled { id, ended: Ended::Ok });
        assert_eq!(region.say(1, Batch { probe, ..Batch::default() }).state, State::Closed);
        // Hours later it still knows.
        assert_eq!(region.of_100(1, 1), None);
        let said = region.say(3_500_000, Batch::default());
        assert_eq!(said.usual.share(), Some(101));
        for (order, expected) in [(Order::Disable, 101), (Order::Reset, 3_001)] {
            let order = Event::Order { order, for_ms: 0, entropy: 0 };
            (_, region.record) = step(region.now_ms, region.record.as_ref(), &order);
            // While it guards nothing it learns nothing.
            let said = region.of_100(60, 30);
            let usual = region.record.as_ref().map(|record| record.usual).expect("a record");
            assert_eq!((said, usual.share()), (None, Some(expected)), "{order:?}");
        }
    }

    fn failures_of(calls: u32, permille: u64, random: &mut u64) -> u32 {
        let draw = |_: &u32| {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            (*random >> 11) % 1_000 < permille
        };
        u32::try_from((0..calls).filter(draw).count()).expect("some of them")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        /// Whatever share of its calls fails, and however many there are: as long as that stays so it is
        /// not unusual.
        #[test]
        fn what_is_usual_never_opens_it(
            permille in 0..350_u64, calls in 1..60_u32, seed in 1..u64::MAX, min in 1..50_u16
        ) {
            let mut random = seed;
            let mut region = Region::new(Some(Adaptive { min_permille: min, ..ADAPTIVE }));
            for second in 0..900 {
                let failures = failures_of(calls, permille, &mut random);
                let said = region.second(calls, failures);
                let cause = said.transitions.first().map(|change| change.cause);
                prop_assert!(cause != Some(Cause::Unusual), "after {second} s: {said:?}");
                if cause.is_some() {
                    // Few calls can be half failures by chance: that is the other rule's.
                    break;
                }
            }
        }

        /// More failures are never less unusual; fewer than the least share never are; and what is learnt
        /// keeps its bounds.
        #[test]
        fn it_keeps_its_bounds(
            parts in proptest::collection::vec((0..=u64::from(u32::MAX), 0..=u64::from(u32::MAX)), 0..40),
            calls in 1..1_000_u64, min in 1..1_000_u16, over_ms in 1_000..OVER_MS_MAX
        ) {
            let adaptive = Adaptive { min_permille: min, over_ms };
            let mut usual = Usual::default();
            for (calls, failures) in parts {
                adaptive.learn(&mut usual, &SPAN, &bucket(calls, failures));
                prop_assert!(usual.failures <= usual.calls && usual.calls <= LEARNT_MAX);
            }
            let judged: std::vec::Vec<bool> =
                (0..=calls).map(|failures| adaptive.is_unusual(&usual, calls, failures)).collect();
            prop_assert!(judged.is_sorted());
            let least = (calls * u64::from(min)).div_ceil(1_000);
            prop_assert!(judged.iter().take(usize::try_from(least).expect("small")).all(|is| !is));
        }
    }
}
