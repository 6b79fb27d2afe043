//! Each rule that the proof stands on, in a short history that needs it: it holds as it is, and is
//! exceeded once the rule is taken out.

use super::*;

const TEN: (u32, u64, u32) = (10, 10 * SECOND, 10);
const A: u64 = 0xa;
const B: u64 = 0xb;

/// A short history with one script changed; gives the worst overshoot.
struct Story {
    server: Server,
    ideal: Ideal,
    quota: Quota,
    now_us: u64,
}

impl Story {
    /// `cuts`: what is cut out of the scripts, and what stands there instead.
    async fn new(redis: &Redis, cuts: &[(&str, &str)]) -> Self {
        let cut_out = |script: &str| {
            let cut =
                |script: String, (text, instead): &(&str, &str)| script.replace(text, instead);
            cuts.iter().fold(script.to_owned(), cut)
        };
        for (text, _) in cuts {
            assert!(
                CHECK.contains(text) || LEASE.contains(text),
                "{text} stands in neither script"
            );
        }
        let (check, lease) = (cut_out(CHECK), cut_out(LEASE));
        let quota = quota(TEN.0, TEN.1, TEN.2);
        let server = Server::start(redis, &check, &lease).await;
        Self { server, ideal: Ideal::new(quota), quota, now_us: START_US }
    }

    async fn say(&mut self, holder: u64, seq: u32, left: u32, back: u32, want: Want) -> u32 {
        let said = Message { holder, seq, demand: 40, left, back, want, quota: self.quota };
        let grant = self.server.lease(self.now_us, &said).await;
        grant.map_or(0, |grant| grant.granted)
    }

    fn spend(&mut self, units: u32) {
        self.ideal.admit(self.now_us, units);
    }

    async fn exact(&mut self, times: usize) {
        for _ in 0..times {
            if self.server.exact(self.now_us, self.quota, 1).await {
                self.ideal.admit(self.now_us, 1);
            }
        }
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
    }

    /// A holder keeps what it has alive, second by second, for as long as a bucket takes to fill.
    async fn renew(&mut self, holder: u64, seq: u32, left: u32) {
        for turn in 0..10 {
            self.pass(SECOND);
            self.say(holder, seq + turn, left, 0, Want::Nothing).await;
        }
    }

    fn over(&self) -> bool {
        self.ideal.worst > DUST
    }
}

/// Runs a story as it is and with the rule taken out.
macro_rules! rule {
    ($name:ident, $cut:expr, $story:expr) => {
        #[tokio::test]
        async fn $name() {
            let redis = Redis::start().await;
            let mut whole = Story::new(&redis, &[]).await;
            ($story)(&mut whole).await;
            assert!(!whole.over(), "{} too many", whole.ideal.worst);
            let mut cut = Story::new(&redis, &$cut).await;
            ($story)(&mut cut).await;
            println!("without the rule {:.1} units too many", cut.ideal.worst);
            assert!(cut.over(), "nobody would notice that the rule is missing");
        }
    };
}

rule!(
    without_the_floor_in_a_check_exact_callers_get_what_is_leased,
    [(
        "return math.max(tat, now + math.min((u0 + u1) * x, most)), over, kept",
        "return tat, over, kept"
    )],
    async |story: &mut Story| {
        let has = story.say(A, 1, 0, 0, Want::Ahead).await;
        story.pass(2_100_000);
        story.exact(12).await;
        story.spend(has);
    }
);

rule!(
    without_the_conservation_floor_a_second_holder_gets_what_is_leased,
    [("  tat = math.max(tat, now + math.min((u0 + u1) * x, most))\nend", "end")],
    async |story: &mut Story| {
        let has = story.say(A, 1, 0, 0, Want::Ahead).await;
        story.pass(2_100_000);
        let more = story.say(B, 1, 0, 0, Want::Ahead).await;
        story.spend(has + more);
    }
);

rule!(
    without_the_floor_at_the_end_of_a_generation_the_bucket_fills_behind_a_lease,
    [
        ("tat = math.max(tat, fin + math.min((u0 + u1) * x, most))", "tat = tat"),
        ("tat = math.max(tat, over + math.min(u1 * x, most))", "tat = tat"),
    ],
    async |story: &mut Story| {
        let has = story.say(A, 1, 0, 0, Want::Ahead).await;
        // A spends all at the end of their life and is not heard of again.
        story.pass(2_100_000);
        story.spend(has);
        story.pass(3_100_000);
        story.exact(12).await;
    }
);

/// Of 10 units 3 are kept until the last instant at which they may be spent, and are; nobody comes before the key would be
/// gone if it lasted no longer than its leases.
async fn last_moment(story: &mut Story, exact_beside: usize) {
    let has = story.say(A, 1, 0, 0, Want::Ahead).await;
    story.spend(has - 3);
    story.pass(2_400_000);
    story.say(A, 2, 3, 0, Want::Nothing).await;
    story.renew(A, 3, 3).await;
    story.exact(exact_beside).await;
    story.pass(2_490_000);
    story.spend(3);
    story.pass(530_000 + SECOND * exact_beside as u64);
    story.exact(12).await;
}

rule!(
    without_its_time_after_the_last_lease_a_key_expires_full,
    [("math.max(tat, fin + span + math.min((u0 + u1) * x, most))", "math.max(tat, fin + span)")],
    async |story: &mut Story| last_moment(story, 0).await
);

rule!(
    without_its_time_after_the_last_lease_a_charged_key_expires_full,
    [("local kept = over + math.min((u0 + u1) * x, most)", "local kept = over")],
    async |story: &mut Story| last_moment(story, 1).await
);

rule!(
    without_the_number_an_old_report_makes_units_forgotten,
    [("if seq <= known then return", "if false then return")],
    async |story: &mut Story| {
        let has = story.say(A, 1, 0, 0, Want::Ahead).await;
        story.say(A, 2, has, 0, Want::Nothing).await;
        story.say(A, 1, 0, 0, Want::Nothing).await;
        story.renew(A, 3, has).await;
        story.exact(12).await;
        story.spend(has);
    }
);

rule!(
    without_the_cap_a_return_that_comes_twice_counts_twice,
    [("back = math.min(back, old - left)", "back = back")],
    async |story: &mut Story| {
        let has = story.say(A, 1, 0, 0, Want::Ahead).await;
        story.say(A, 2, 0, has, Want::Nothing).await;
        story.exact(12).await;
        story.say(A, 2, 0, has, Want::Nothing).await;
        story.say(A, 3, 0, has, Want::Nothing).await;
        story.exact(12).await;
    }
);

rule!(
    without_the_bound_on_what_is_left_units_come_out_of_nothing,
    [
        ("left = math.min(left, old)", "left = left"),
        ("math.min(back, old - left)", "math.max(math.min(back, old - left), 0)"),
    ],
    async |story: &mut Story| {
        let has = story.say(A, 1, 0, 0, Want::Ahead).await;
        let quiet = |seq, left, back| Message {
            holder: A,
            seq,
            demand: 0,
            left,
            back,
            want: Want::Nothing,
            quota: story.quota,
        };
        let (late, back) = (quiet(2, has, 0), quiet(3, 0, has));
        let now_us = story.now_us;
        story.server.lease(now_us, &back).await;
        story.exact(12).await;
        // Both arrive once more, in their order, when nobody knows the holder any more.
        story.server.lease(now_us, &late).await;
        story.server.lease(now_us, &back).await;
        story.exact(12).await;
    }
);

/// A filter that lives through a story; with a flaw of its own, or none.
struct Filter {
    story: Story,
    process: Process,
}

impl Filter {
    async fn new(redis: &Redis, flaw: Flaw) -> Self {
        let mut random = Random::new(7);
        let story = Story::new(redis, &[]).await;
        let mut process = Process::new(&mut random, story.quota, 2);
        (process.flaw, process.timeout_us) = (flaw, 10 * SECOND);
        Self { story, process }
    }

    async fn call(&mut self, want: Want) -> Option<LeaseGrant> {
        let now_us = self.story.now_us;
        self.process.spoil();
        let report = self.process.pool.begin(now_us, want, self.process.timeout_us)?;
        let said = Message { demand: 40, ..self.process.message(report) };
        self.story.server.lease(now_us, &said).await
    }

    fn answer(&mut self, grant: Option<LeaseGrant>, sent_us: u64) {
        if let Some(grant) = grant {
            self.process.answer(self.story.now_us, grant, sent_us);
        }
    }

    async fn renew(&mut self) {
        for _ in 0..20 {
            self.story.pass(SECOND / 2);
            let (grant, sent_us) = (self.call(Want::Nothing).await, self.story.now_us);
            self.answer(grant, sent_us);
        }
    }

    /// All that it has, in both workers.
    fn spend_all(&mut self) {
        for worker in [0, 1] {
            while self.process.request(self.story.now_us, worker, 1).0 == Some(true) {
                self.story.spend(1);
            }
        }
    }
}

/// However many Envoys come, a bucket knows so many of them and no more: who comes later is given nothing ahead, until a
/// generation has passed in which others were not heard of.
#[tokio::test]
async fn a_bucket_knows_no_more_than_255_holders() {
    let redis = Redis::start().await;
    let mut story = Story::new(&redis, &[]).await;
    // Two generations of 2.5 s.
    story.quota = quota(10_000, 10 * SECOND, 10_000);
    story.ideal = Ideal::new(story.quota);
    for holder in 1..=300 {
        let granted = story.say(holder, 1, 0, 0, Want::Ahead).await;
        assert_eq!(granted > 0, holder <= 255, "holder {holder} has {granted}");
        story.spend(granted);
    }
    assert!(!story.over(), "{} too many", story.ideal.worst);
    story.pass(6 * SECOND);
    assert!(story.say(300, 2, 0, 0, Want::Ahead).await > 0, "there is room again");
}

/// How long until who asks each second is admitted, at the latest after two hours.
async fn seconds_until_admitted(story: &mut Story) -> u64 {
    for second in 0..7_200 {
        if story.server.exact(story.now_us, story.quota, 1).await {
            return second;
        }
        story.pass(SECOND);
    }
    7_200
}

/// Units that are out when a limit is made tighter are spent within their life. They leave an empty bucket
/// behind, and not what they would cost by the new numbers.
#[tokio::test]
async fn a_tightened_limit_is_empty_once_and_owes_nothing() {
    let redis = Redis::start().await;
    for renews in [false, true] {
        let mut story = Story::new(&redis, &[]).await;
        story.quota = quota(1_000, SECOND, 1_000);
        let has = story.say(A, 1, 0, 0, Want::Ahead).await;
        assert!(has >= 20, "{has} units are out");
        story.quota = quota(10, 60 * SECOND, 10);
        if renews {
            // A holder of the new numbers meets the leases first.
            assert_eq!(story.say(B, 1, 0, 0, Want::Now).await, 0, "some are unspent");
        }
        // They may be spent until they are over: here for two generations, of 1 s and of 15 s. Then one unit
        // comes back within 6 s. If nobody comes meanwhile, the bucket is full again by the old numbers.
        let second = seconds_until_admitted(&mut story).await;
        let expected = if renews { 17..=23 } else { 2..=3 };
        assert!(expected.contains(&second), "{renews}: admitted again after {second} s");
    }
}

/// The store's clock may step back by an hour: nobody waits longer than for leases that may live, and for debt.
#[tokio::test]
async fn a_clock_that_steps_back_locks_no_leased_limit() {
    let redis = Redis::start().await;
    for keeps in [false, true] {
        let mut story = Story::new(&redis, &[]).await;
        story.say(A, 1, 0, 0, Want::Ahead).await;
        story.exact(12).await;
        story.now_us -= 3_600 * SECOND;
        if keeps {
            story.say(A, 2, 3, 0, Want::Nothing).await;
        } else {
            story.say(A, 2, 0, 0, Want::Nothing).await;
        }
        let second = seconds_until_admitted(&mut story).await;
        assert!(second <= 80, "admitted again after {second} s");
    }
}

/// Nor a limit that nobody leases of any more, when a new holder is the first to meet it.
#[tokio::test]
async fn a_holder_who_meets_a_clock_that_stepped_back_writes_it_down() {
    let redis = Redis::start().await;
    let mut story = Story::new(&redis, &[]).await;
    story.exact(12).await;
    story.now_us -= 3_600 * SECOND;
    let mut waited = 0;
    while story.say(A, waited + 1, 0, 0, Want::Ahead).await == 0 {
        waited += 1;
        assert!(waited <= 20, "nothing after {waited} s");
        story.pass(SECOND);
    }
}

/// Runs a filter's story as it is and with a flaw.
macro_rules! flaw {
    ($name:ident, $flaw:expr, $story:ident) => {
        #[tokio::test]
        async fn $name() {
            let redis = Redis::start().await;
            for (flaw, exceeds) in [(Flaw::None, false), ($flaw, true)] {
                let mut filter = Filter::new(&redis, flaw).await;
                $story(&mut filter).await;
                println!("{flaw:?}: {:.1} units too many", filter.story.ideal.worst.max(0.0));
                assert_eq!(filter.story.over(), exceeds, "{flaw:?} {}", filter.story.ideal.worst);
            }
        }
    };
}

async fn late_reply(filter: &mut Filter) {
    let sent_us = filter.story.now_us;
    let late = filter.call(Want::Ahead).await;
    filter.process.pool.give_up(filter.process.seq);
    let next = filter.call(Want::Nothing).await;
    filter.answer(next, sent_us);
    filter.answer(late, sent_us);
    filter.renew().await;
    filter.story.exact(12).await;
    filter.spend_all();
}

async fn slice_out(filter: &mut Filter) {
    let sent_us = filter.story.now_us;
    let grant = filter.call(Want::Ahead).await;
    filter.answer(grant, sent_us);
    // The first worker takes a slice and keeps the most of it.
    if filter.process.request(filter.story.now_us, 0, 3).0 == Some(true) {
        filter.story.spend(3);
    }
    for worker in [0, 1, 0] {
        if filter.process.request(filter.story.now_us, worker, 1).0 == Some(true) {
            filter.story.spend(1);
        }
    }
    let now_us = filter.story.now_us;
    let grant = filter.call(Want::Nothing).await;
    filter.answer(grant, now_us);
    filter.story.pass(600_000);
    let now_us = filter.story.now_us;
    let others = Message {
        holder: B,
        seq: 1,
        demand: 40,
        left: 0,
        back: 0,
        want: Want::Ahead,
        quota: filter.story.quota,
    };
    filter.story.server.lease(now_us, &others).await;
    filter.story.exact(12).await;
    filter.spend_all();
}

async fn slow_answer(filter: &mut Filter) {
    let sent_us = filter.story.now_us;
    let grant = filter.call(Want::Ahead).await;
    // When the bucket has forgotten the lease and filled again by some.
    filter.story.pass(9_000_000);
    filter.answer(grant, sent_us);
    filter.story.pass(600_000);
    filter.story.exact(12).await;
    filter.spend_all();
}

flaw!(an_answer_that_is_not_waited_for_is_void, Flaw::LateReplyTaken, late_reply);

#[tokio::test]
async fn what_lies_in_slices_is_left() {
    let redis = Redis::start().await;
    for flaw in [Flaw::None, Flaw::SliceLeftOut] {
        let mut filter = Filter::new(&redis, flaw).await;
        let sent_us = filter.story.now_us;
        let grant = filter.call(Want::Ahead).await;
        filter.answer(grant, sent_us);
        // One worker has all of it in its slice.
        assert_eq!(filter.process.request(filter.story.now_us, 0, 1).0, Some(true));
        filter.story.spend(1);
        let now_us = filter.story.now_us;
        let report = filter.process.pool.begin(now_us, Want::Nothing, TIMEOUT_US).expect("one");
        let left = filter.process.message(report).left;
        // The pool's units, and the slice's with the one that is not reported yet.
        let really = filter.process.held();
        assert_eq!(left >= really, flaw == Flaw::None, "{flaw:?}: {left} of {really}");
    }
    let mut filter = Filter::new(&redis, Flaw::None).await;
    slice_out(&mut filter).await;
    assert!(!filter.story.over(), "{}", filter.story.ideal.worst);
}

/// One unit lies in a worker's slice for nearly as long as it lives, while its pool is answered and the bucket is full.
async fn slice_that_lies(filter: &mut Filter) {
    let quota = quota(200, 10 * SECOND, 10);
    (filter.story.quota, filter.story.ideal, filter.process.quota) =
        (quota, Ideal::new(quota), quota);
    let sent_us = filter.story.now_us;
    let grant = filter.call(Want::Ahead).await;
    filter.answer(grant, sent_us);
    assert_eq!(filter.process.request(sent_us, 0, 1).0, Some(true));
    filter.story.spend(1);
    assert_eq!((filter.process.out(), filter.process.pool.units()), (1, 8));
    let Process { pool, slices, .. } = &mut filter.process;
    pool.settle(sent_us, &mut slices[0], false);
    for _ in 0..3 {
        filter.story.pass(200_000);
        let now_us = filter.story.now_us;
        let grant = filter.call(Want::Nothing).await;
        filter.answer(grant, now_us);
    }
    // Units of 1 s end after 0.7 s.
    filter.story.pass(95_000);
    filter.story.exact(12).await;
    filter.spend_all();
}

flaw!(what_lies_in_slices_is_forgotten_only_when_it_is_over, Flaw::SliceForgotten, slice_that_lies);

flaw!(units_live_from_the_sending_of_their_message, Flaw::TtlFromReceipt, slow_answer);
