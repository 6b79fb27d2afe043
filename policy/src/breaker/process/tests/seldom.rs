//! Tests of processes and the mesh together: that an upstream which works again is found out by requests that come
//! seldom, and that there is one test in the mesh at a time all the same.

use std::vec;

use super::super::super::mesh::{Event, Record, step};
use super::*;

const NOW: u64 = 1_800_000_000_000;
const TICK_MS: u64 = 250;
const PROCESSES: usize = 3;

#[derive(Debug, Clone)]
struct Peer {
    process: Process,
    seq: u64,
    /// A process that is dead says and hears nothing.
    dead: bool,
}

#[derive(Debug)]
struct World {
    own: Own,
    now_ms: u64,
    record: Option<Record>,
    peers: Vec<Peer>,
    /// Tests of the mesh that are out: whose, which, and until when they count.
    out: Vec<(usize, u64, u64)>,
    /// Answers of the gateway leave the breaker out.
    unread: bool,
}

// === impl World ===

impl World {
    fn new(own: Own) -> Self {
        let process = Process::default();
        let peers = vec![Peer { process, seq: 0, dead: false }; PROCESSES];
        Self { own, now_ms: NOW, record: None, peers, out: Vec::new(), unread: false }
    }

    /// Open, and every process knows.
    fn open(own: Own) -> Self {
        let mut world = Self::new(own);
        (0..PROCESSES).for_each(|who| world.tick(who));
        for peer in world.peers.iter_mut().take(2) {
            let generation = peer.process.generation;
            peer.process.trip(&own, generation, NOW, MIDDLE);
        }
        world.pass(1_000);
        assert_eq!(world.state(), State::Open);
        world
    }

    fn state(&self) -> State {
        self.record.as_ref().map_or(State::Closed, |record| record.state)
    }

    /// Time passes; every process ticks in its turn.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            for who in 0..PROCESSES {
                let phase = u64::try_from(who).expect("few") * 70;
                if (self.now_ms + phase).is_multiple_of(TICK_MS) {
                    self.tick(who);
                }
            }
        }
    }

    fn tick(&mut self, who: usize) {
        let (own, now_ms) = (self.own, self.now_ms);
        let peer = &mut self.peers[who];
        if peer.dead {
            return;
        }
        let batch = peer.process.report(&own, now_ms);
        if self.unread {
            return;
        }
        peer.seq += 1;
        let holder = [u8::try_from(who).expect("few") + 1; 8];
        let event = batch.map_or(Event::Look, |batch| Event::Sync {
            terms: &own.terms,
            holder,
            seq: peer.seq,
            batch,
            entropy: MIDDLE,
        });
        let (said, write) = step(now_ms, self.record.as_ref(), &event);
        self.record = write.or(self.record.take());
        let state = BreakerState {
            wait_ms: said.wait_ms,
            healed_ms: said.healed_ms,
            ..told(said.state, said.epoch, said.permit)
        };
        // Unasked it is told what changed.
        if batch.is_some() || said.epoch > peer.process.epoch {
            peer.process.told(&state, batch.and_then(|batch| batch.probe), now_ms);
        }
    }

    /// A request comes; the number of its test, if it is one of the mesh's.
    fn ask(&mut self, who: usize) -> (Leave, Option<u64>) {
        let (own, now_ms) = (self.own, self.now_ms);
        let process = &mut self.peers[who].process;
        let leave = process.admit(&own, now_ms, false);
        let Leave::Test(id) = leave else { return (leave, None) };
        let Some(probe) = process.probe.filter(|probe| probe.of_mesh) else { return (leave, None) };
        self.out.retain(|(.., until_ms)| now_ms < *until_ms);
        assert_eq!(self.out, [], "two tests at once");
        self.out.push((who, id, probe.until_ms));
        (leave, Some(id))
    }

    fn end(&mut self, who: usize, id: u64, ended: Ended) {
        let (own, now_ms) = (self.own, self.now_ms);
        self.out.retain(|(_, out, _)| *out != id);
        self.peers[who].process.settle(&own, id, ended, now_ms, MIDDLE);
    }

    /// A request that the upstream answers well; whether it was let through as of a closed breaker.
    fn healthy(&mut self, who: usize) -> bool {
        let (leave, _) = self.ask(who);
        if let Leave::Test(id) = leave {
            self.pass(5);
            self.end(who, id, Ended::Ok);
        }
        leave == Leave::Pass
    }

    /// How many requests of one process, so many ms apart, were not simply let through.
    fn closes_after(&mut self, who: usize, every_ms: u64, most: usize) -> Option<usize> {
        (0..most).find(|_| {
            let passes = self.healthy(who);
            self.pass(every_ms);
            passes
        })
    }
}

/// Whoever does as `Retry-After` says, and who comes much less often.
#[test]
fn requests_that_come_seldom_find_out_that_the_upstream_works() {
    for every_ms in [750, 1_000, 10_000, 60_000, 300_000] {
        for phase_ms in [0, 60, 130, 249] {
            let mut world = World::open(OWN);
            world.pass(12_000 + phase_ms);
            // One that asks for it, three tests, and whoever comes between two turns.
            let refused = world.closes_after(0, every_ms, 8);
            assert!(refused.is_some_and(|n| n <= 6), "{refused:?} at {every_ms} ms, {phase_ms}");
        }
    }
}

/// Another process wants a test, too, gets it, and has no request for it.
#[test]
fn who_keeps_a_test_that_nobody_comes_for_leaves_the_next_one_to_others() {
    for every_ms in [1_000, 10_000, 60_000] {
        let mut world = World::open(OWN);
        world.pass(12_000);
        (1..PROCESSES).for_each(|who| _ = world.ask(who));
        world.pass(1_000);
        let refused = world.closes_after(0, every_ms, 40);
        assert!(refused.is_some_and(|n| n <= 30), "{refused:?} at {every_ms} ms");
    }
    // Who is busy waits for the others' turn once.
    let mut world = World::open(OWN);
    world.pass(12_000);
    world.ask(1);
    world.pass(1_000);
    let mut waited_ms = 0_u32;
    while !world.healthy(0) {
        world.pass(10);
        waited_ms += 10;
        assert!(waited_ms <= OWN.terms.probe_ms, "busy, and kept waiting");
    }
}

#[test]
fn a_record_that_cannot_be_read_keeps_nobody_out() {
    for every_ms in [1_000, 10_000] {
        let mut world = World::open(OWN);
        world.unread = true;
        world.pass(12_000);
        let refused = world.closes_after(0, every_ms, 10);
        assert!(refused.is_some(), "{:?}", world.peers[0]);
    }
}

#[test]
fn who_dies_with_a_test_that_nobody_came_for_frees_it_with_its_end() {
    let mut world = World::open(OWN);
    world.pass(12_000);
    world.ask(1);
    world.pass(500);
    assert!(world.peers[1].process.probe.is_some(), "it has a test");
    world.peers[1].dead = true;
    let refused = world.closes_after(0, 1_000, 12);
    assert!(refused.is_some(), "{:?}", world.record);
}

#[derive(Debug, Clone)]
enum Word {
    Pass(u64),
    /// A request; what becomes of it if it is a test, and after how long. `None`: nobody ever hears.
    Ask(usize, Option<(Ended, u64)>),
    Dies(usize),
}

fn word() -> impl Strategy<Value = Word> {
    let ended = prop_oneof![Just(Ended::Ok), Just(Ended::Failed), Just(Ended::GivenBack)];
    let ends = prop_oneof![
        4 => (ended, 0..3_000_u64).prop_map(Some),
        1 => Just(None),
    ];
    prop_oneof![
        6 => (0..3_000_u64).prop_map(Word::Pass),
        6 => (0..PROCESSES, ends).prop_map(|(who, ends)| Word::Ask(who, ends)),
        1 => (1..PROCESSES).prop_map(Word::Dies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However it came to stand where it stands, and whoever died: one test at a time, and requests of one process
    /// that come at such times find out in a bounded number that the upstream works.
    #[test]
    fn no_history_keeps_requests_that_come_seldom_out(
        words in proptest::collection::vec(word(), 0..40),
        every_ms in prop_oneof![Just(1_000_u64), Just(10_000), Just(30_000)],
    ) {
        let mut world = World::open(OWN);
        world.pass(9_000);
        for word in words {
            match word {
                Word::Pass(ms) => world.pass(ms),
                Word::Dies(who) => world.peers[who].dead = true,
                Word::Ask(who, _) if world.peers[who].dead => {}
                Word::Ask(who, ends) => {
                    let (leave, _) = world.ask(who);
                    if let (Leave::Test(id), Some((ended, ms))) = (leave, ends) {
                        world.pass(ms);
                        world.end(who, id, ended);
                    }
                }
            }
        }
        // Open for 12 s at most, once more for tests that were lost.
        let most = usize::try_from(2 * 12_000 / every_ms).expect("few") + 40;
        let refused = world.closes_after(0, every_ms, most);
        prop_assert!(refused.is_some(), "{:?} {:?}", world.record, world.peers[0]);
    }
}
