//! Real gateways with a real Redis under load, and what can end them: kill -9 at any moment, a Redis that is
//! killed, a Redis that lost power and with it its last seconds, keys that change, a disk that is full. What was
//! acknowledged is in the chain once, and the chain verifies as an auditor would do it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tempfile::TempDir;
use tidegate_gateway::Environment;
use tidegate_gateway::audit::keys::{Ed25519, SigningKeys};
use tidegate_gateway::store::chains::Chains;
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::note::NoteKey;
use tidegate_policy::audit::record::{ChainName, Record};
use tidegate_policy::audit::verify::{HeadClaim, Report, Verdict, Verifier};
use tidegate_policy::wire::DecisionId;
use tidegate_policy::wire::audit::{AuditReply, Kept};
use tidegate_tests::gateway::{Gateway, Options, TOKEN};
use tidegate_tests::redis::Redis;
use tidegate_tests::{client, eventually};

mod redis_store;

const WAIT: Duration = Duration::from_secs(120);
const LOG: &str = "log.example/default";

/// A region of gateways: keys, checkpoints, a folder for each.
struct Site {
    redis: Redis,
    dir: TempDir,
    gateways: Vec<Option<Gateway>>,
    lives: Vec<usize>,
    flags: Vec<String>,
    to: Arc<Mutex<Vec<std::net::SocketAddr>>>,
}

impl Site {
    async fn start(gateways: usize, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("keys")).expect("made");
        make_key(&dir.path().join("keys/v1.pem"), &["--version", "v1"]);
        let note_key = make_key(&dir.path().join("checkpoint.pem"), &["--checkpoint-name", LOG]);
        std::fs::write(dir.path().join("checkpoint.pub"), note_key).expect("written");
        let mut region = Self {
            redis: Redis::start_durable().await,
            dir,
            gateways: (0..gateways).map(|_| None).collect(),
            lives: vec![0; gateways],
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            to: Arc::default(),
        };
        for which in 0..gateways {
            region.run(which).await;
        }
        region
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a gateway, again in its own folder: without a guard against cold starts, unless the flags name one.
    async fn run(&mut self, which: usize) {
        let text = |name: &str| self.path(name).display().to_string();
        let own = text(&format!("gateway-{which}-{}", self.lives[which]));
        let unguarded = !self.flags.iter().any(|flag| flag == "--cold-start");
        let guard: &[&str] = if unguarded { &["--cold-start", "off"] } else { &[] };
        let mut options = Options::redis(&self.redis.url()).flags(guard);
        options.flags.extend(self.flags.clone());
        options.warm = false;
        for (name, value) in [
            ("AUDIT_PRIVATE_KEY_DIR", text("keys")),
            ("TIDEGATE_AUDIT_DIR", own),
            ("TIDEGATE_AUDIT_TICK", "5ms".to_owned()),
            ("TIDEGATE_AUDIT_CHECKPOINT_DIR", text("checkpoints")),
            ("TIDEGATE_AUDIT_CHECKPOINT_NAME", LOG.to_owned()),
            ("TIDEGATE_AUDIT_CHECKPOINT_KEY_FILE", text("checkpoint.pem")),
            ("RUST_LOG", "info,tidegate_gateway::audit=debug".to_owned()),
        ] {
            options.variables.push((name.to_owned(), value));
        }
        let gateway = Gateway::start(&options).await;
        let mut to = self.to.lock().expect("no panic");
        to.resize(self.gateways.len(), gateway.addr);
        to[which] = gateway.addr;
        drop(to);
        self.gateways[which] = Some(gateway);
    }

    fn kill(&mut self, which: usize) {
        drop(self.gateways[which].take());
    }

    /// Its disk is gone, too.
    fn destroy(&mut self, which: usize) {
        self.kill(which);
        self.lives[which] += 1;
    }

    fn gateway(&self, which: usize) -> &Gateway {
        self.gateways[which].as_ref().expect("it runs")
    }

    async fn metric(&self, which: usize, name: &str) -> u64 {
        let text = self.gateway(which).admin("/metrics").await.body;
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("tidegate_gateway_{name} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// Until nothing waits on a disk and the chain is whole.
    async fn settle(&self) {
        for which in 0..self.gateways.len() {
            eventually(WAIT, "the spool is empty and the chain whole", async || {
                let spool = self.metric(which, "audit_spool_bytes").await;
                let back = self.metric(which, "audit_rollback_detected").await;
                if (spool, back) == (0, 0) { Ok(()) } else { Err(self.gateway(which).output()) }
            })
            .await;
        }
    }

    /// Until every gateway has verified all there is, and the last checkpoint is no older.
    async fn verified(&self) {
        for which in 0..self.gateways.len() {
            eventually(WAIT, "the chain is verified and under a checkpoint", async || {
                let lag = self.metric(which, "audit_verify_lag").await;
                let seq = self.metric(which, "audit_verified_seq").await;
                let size = self.metric(which, "audit_checkpoint_size").await;
                // While lost records are put back they are missing.
                let found = self.metric(which, "audit_findings").await;
                let done = found == 0 && lag == 0 && seq > 0 && size > 0;
                if done { Ok(()) } else { Err((found, lag, seq, size)) }
            })
            .await;
        }
    }

    fn keys(&self) -> SigningKeys {
        let dir = self.path("keys").display().to_string();
        let environment = Environment::from([("AUDIT_PRIVATE_KEY_DIR", dir.as_str())]);
        SigningKeys::from_environment(&environment).expect("keys")
    }

    /// The whole chain with head and every checkpoint that any gateway ever wrote.
    async fn audit(&self, accepted: bool) -> (Report, BTreeMap<String, usize>) {
        let store = redis_store::start(&self.redis, WAIT).await;
        let chain = ChainName::new("default").expect("a name");
        let key = |(version, public, _)| (version, Key { public, revoked: None });
        let note_key = std::fs::read_to_string(self.path("checkpoint.pub")).expect("read");
        let ring = KeyRing {
            chain: chain.clone(),
            keys: self.keys().public().map(key).collect(),
            checkpoint_keys: vec![NoteKey::read(note_key.trim()).expect("a key")],
        };
        let mut verifier = Verifier::new(&ring, &Ed25519);
        if accepted {
            verifier.accept_rollbacks();
        }
        for entry in std::fs::read_dir(self.path("checkpoints")).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.starts_with('.') {
                verifier.expect(&std::fs::read(&path).expect("read"));
            }
        }
        let place = store.place(&chain).await.expect("a place");
        let mut counts = BTreeMap::new();
        for segment in 0..=place.segment {
            for record in store.records(&chain, segment, 0, 1_000_000).await.expect("records") {
                let id = Record::read(&record).expect("a record").id;
                // Gateways may append meanwhile: that somebody reads their metrics, for one.
                if verifier.end().seq < place.head.seq {
                    *counts.entry(id).or_default() += 1;
                    verifier.push(&record);
                }
            }
        }
        let claim = HeadClaim { chain: chain.to_string(), head: place.head };
        (verifier.finish(Some(&claim)), counts)
    }
}

fn make_key(path: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-audit"));
    command.args(["keys", "generate"]).args(words).arg("--out").arg(path);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A filter's worker: sends events until they are acknowledged, the same ones again when they are not.
struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<Mutex<BTreeMap<usize, BTreeSet<String>>>>,
    /// How often a message that was sent and not answered went to another gateway.
    resent: Arc<AtomicUsize>,
    tasks: tokio::task::JoinSet<()>,
}

impl Load {
    /// One worker for each gateway.
    fn start(region: &Site) -> Self {
        Self::of(region, false)
    }

    /// The same; whoever has no answer goes to the next gateway, as Envoy does.
    fn roaming(region: &Site) -> Self {
        Self::of(region, true)
    }

    fn of(region: &Site, roams: bool) -> Self {
        static LOADS: AtomicUsize = AtomicUsize::new(0);
        let run = LOADS.fetch_add(1, Ordering::SeqCst);
        let stop = Arc::new(AtomicBool::new(false));
        let acked: Arc<Mutex<BTreeMap<usize, BTreeSet<String>>>> = Arc::default();
        let resent = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for which in 0..region.gateways.len() {
            let (to, stop, acked) = (Arc::clone(&region.to), Arc::clone(&stop), Arc::clone(&acked));
            let resent = Arc::clone(&resent);
            tasks.spawn(async move {
                let (mut number, mut at) = (0_u64, which);
                let mut owed: Vec<String> = Vec::new();
                while !(stop.load(Ordering::SeqCst) && owed.is_empty()) {
                    while owed.len() < 3 {
                        owed.push(format!("{run:016x}{which:016x}-{number}"));
                        number += 1;
                    }
                    let (to, count) = {
                        let to = to.lock().expect("no panic");
                        (to[at], to.len())
                    };
                    let Some(kept) = send(to, &owed).await else {
                        if roams {
                            at = (at + 1) % count;
                            resent.fetch_add(1, Ordering::SeqCst);
                        }
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let mut sent = std::mem::take(&mut owed).into_iter().zip(kept);
                    let mut acked = acked.lock().expect("no panic");
                    for (id, kept) in sent.by_ref() {
                        match kept {
                            Kept::Kept => drop(acked.entry(which).or_default().insert(id)),
                            Kept::Later => owed.push(id),
                            Kept::Refused => panic!("{id} was refused"),
                        }
                    }
                }
            });
        }
        Self { stop, acked, resent, tasks }
    }

    fn resent(&self) -> usize {
        self.resent.load(Ordering::SeqCst)
    }

    fn count(&self) -> usize {
        self.acked.lock().expect("no panic").values().map(BTreeSet::len).sum()
    }

    async fn more(&self, count: usize) {
        let goal = self.count() + count;
        eventually(WAIT, "events are acknowledged", async || {
            if self.count() >= goal { Ok(()) } else { Err(self.count()) }
        })
        .await;
    }

    async fn more_of(&self, which: usize, count: usize) {
        let of = || self.acked.lock().expect("no panic").get(&which).map_or(0, BTreeSet::len);
        let goal = of() + count;
        eventually(WAIT, "a worker's events are acknowledged", async || {
            if of() >= goal { Ok(()) } else { Err(of()) }
        })
        .await;
    }

    /// What was acknowledged to each worker.
    async fn end(self) -> BTreeMap<usize, BTreeSet<String>> {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
        std::mem::take(&mut *self.acked.lock().expect("no panic"))
    }
}

/// Until a gateway that lives acknowledges all of these.
async fn resent(region: &Site, ids: &[String], acked: &mut BTreeSet<String>) {
    eventually(WAIT, "another gateway takes them", async || {
        let kept = send(region.gateway(1).addr, ids).await;
        let all = kept.as_ref().is_some_and(|kept| kept.iter().all(|kept| *kept == Kept::Kept));
        if all { Ok(()) } else { Err(kept) }
    })
    .await;
    acked.extend(ids.iter().cloned());
}

/// The message of these, whose answer nobody reads.
async fn unread(to: std::net::SocketAddr, ids: &[String]) -> tokio::net::TcpStream {
    let mut stream = client::connect(to, None).await.expect("it listens");
    client::send(&mut stream, message(ids).as_bytes()).await;
    stream
}

async fn send(to: std::net::SocketAddr, ids: &[String]) -> Option<Vec<Kept>> {
    let mut stream = client::connect(to, None).await.ok()?;
    let answer = client::try_raw(&mut stream, message(ids).as_bytes()).await.ok()?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let reply = AuditReply::decode(answer.body.as_bytes(), MESSAGE, (ids.len(), 0));
    let reply = reply.expect("a reply");
    Some(reply.events)
}

const MESSAGE: DecisionId = DecisionId::new(7);

fn message(ids: &[String]) -> String {
    let events: Vec<String> = ids
        .iter()
        .map(|id| {
            format!(r#"{{"id":"{id}","age_ms":1,"action":"deny","outcome":"quota-exceeded","tenant":null}}"#)
        })
        .collect();
    let body = format!(
        r#"{{"v":1,"id":"{MESSAGE}","scope":{{"region":null,"environment":"default","tenant":null,"key_format":1}},"timeout_ms":2000,"events":[{}]}}"#,
        events.join(",")
    );
    let length = body.len();
    format!(
        "POST /v1/audit HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn once(acked: &BTreeSet<String>, counts: &BTreeMap<String, usize>) {
    let missing: Vec<&String> = acked.iter().filter(|id| !counts.contains_key(*id)).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "doubled: {doubled:?}");
}

/// What was acknowledged is in the chain once, and every checkpoint holds.
async fn ends_whole(region: &Site, load: Load) {
    let acked = load.end().await;
    region.settle().await;
    region.verified().await;
    let (report, counts) = region.audit(false).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert!(report.checkpoints_matched > 0 && report.rollbacks.is_empty());
    acked.values().for_each(|acked| once(acked, &counts));
}

fn random(seed: u8) -> impl FnMut(usize) -> usize {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    move |below| usize::try_from(random.next_u32()).expect("32 bits") % below
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_are_killed_at_any_moment_lose_and_double_nothing() {
    let mut region = Site::start(2, &[]).await;
    let load = Load::start(&region);
    let mut below = random(1);
    for _ in 0..6 {
        load.more(20 + below(60)).await;
        let which = below(2);
        region.kill(which);
        region.run(which).await;
    }
    ends_whole(&region, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_loses_and_doubles_nothing() {
    let mut region = Site::start(2, &[]).await;
    let load = Load::start(&region);
    for _ in 0..3 {
        load.more(60).await;
        region.redis.restart().await;
    }
    load.more(60).await;
    let acked = load.end().await;
    region.settle().await;
    let (report, counts) = region.audit(false).await;
    assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 0), "{report:?}");
    acked.values().for_each(|acked| once(acked, &counts));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_lost_with_its_power_comes_back_and_checkpoints_still_hold() {
    let mut region = Site::start(3, &[]).await;
    let mut below = random(2);
    let mut acked = BTreeSet::new();
    for _ in 0..2 {
        let load = Load::start(&region);
        load.more(60).await;
        let kept = region.redis.log_len();
        // What is acknowledged from here on is lost.
        load.more(30 + below(60)).await;
        region.redis.lose_power(kept).await;
        eventually(WAIT, "a gateway alarms", async || {
            let mut up = Vec::new();
            for which in 0..3 {
                up.push(region.metric(which, "audit_rollback_detected").await);
            }
            if up.contains(&1) { Ok(()) } else { Err(up) }
        })
        .await;
        load.more(30).await;
        acked.extend(load.end().await.into_values().flatten());
        region.settle().await;
    }
    region.verified().await;
    let mut put_back = 0;
    for which in 0..3 {
        put_back += region.metric(which, "audit_put_back_total").await;
        let origins = region.metric(which, "audit_origins_total").await;
        assert_eq!(origins, 0, "{}", region.gateway(which).output());
    }
    assert!(put_back > 0, "nothing was lost at all");
    let (report, counts) = region.audit(false).await;
    assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 0), "{report:?}");
    assert!(report.checkpoints_matched > 0);
    once(&acked, &counts);
}

/// Each has on its own disk how far the chain had come and what it appended last.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_are_killed_with_the_power_of_redis_put_back_what_is_on_their_disks() {
    let mut region = under_a_checkpoint().await;
    let kept = region.redis.log_len();
    let load = Load::start(&region);
    load.more_of(0, 30).await;
    load.more_of(1, 30).await;
    let acked = load.end().await;
    for which in [0, 1] {
        region.kill(which);
    }
    region.redis.lose_power(kept).await;
    for which in [0, 1] {
        region.run(which).await;
    }
    eventually(WAIT, "their marks tell it", async || {
        let (mut times, mut back) = (0, 0);
        for which in [0, 1] {
            times += region.metric(which, "audit_set_back_total").await;
            back += region.metric(which, "audit_put_back_total").await;
        }
        if times > 0 && back > 0 { Ok(()) } else { Err((times, back)) }
    })
    .await;
    is_whole_without_an_origin(&region, &acked).await;
}

/// Two gateways and a chain that both have verified.
async fn under_a_checkpoint() -> Site {
    let region = Site::start(2, &[]).await;
    let load = Load::start(&region);
    load.more(60).await;
    load.end().await;
    region.settle().await;
    region.verified().await;
    region
}

async fn is_whole_without_an_origin(region: &Site, acked: &BTreeMap<usize, BTreeSet<String>>) {
    region.settle().await;
    region.verified().await;
    for which in 0..region.gateways.len() {
        let origins = region.metric(which, "audit_origins_total").await;
        assert_eq!(origins, 0, "{which}: {}", region.gateway(which).output());
    }
    let (report, counts) = region.audit(false).await;
    assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 0), "{report:?}");
    assert!(report.checkpoints_matched > 0, "{report:?}");
    acked.values().for_each(|acked| once(acked, &counts));
}

/// Somebody empties it while gateways append, and one of them is killed at that: all of the chain is theirs to put back, with
/// the ids of its events.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_emptied_under_load_has_all_of_the_chain_again() {
    let mut region = under_a_checkpoint().await;
    let load = Load::start(&region);
    load.more(40).await;
    region.redis.command(&["FLUSHALL"]).await;
    region.kill(0);
    region.run(0).await;
    load.more(20).await;
    let acked = load.end().await;
    is_whole_without_an_origin(&region, &acked).await;
}

/// So long a machine without a free core lets nobody run; a gateway that is gone is given up later.
const STANDSTILL: Duration = Duration::from_secs(5);

/// It holds the chain's last records, of which nobody else knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stands_still_while_records_are_put_back_is_not_taken_for_gone() {
    let mut region = Site::start(2, &[]).await;
    let mut acked = BTreeSet::new();
    for which in [0, 1] {
        acked.insert(chained(&region, which, 0).await);
    }
    let kept = region.redis.log_len();
    for (which, number) in [(0, 1), (1, 1), (1, 2)] {
        acked.insert(chained(&region, which, number).await);
    }
    region.gateway(1).signal(rustix::process::Signal::STOP.as_raw());
    let since = tokio::time::Instant::now();
    region.redis.lose_power(kept).await;
    // New events, which would take the places of those that are missing.
    acked.insert(kept_by(&region, 0, 3).await);
    eventually(WAIT, "it has stood still for that long", async || {
        let over = since.elapsed();
        if over >= STANDSTILL { Ok(()) } else { Err(over) }
    })
    .await;
    region.gateway(1).signal(rustix::process::Signal::CONT.as_raw());
    eventually(WAIT, "it finds out what Redis lost", async || {
        let mut found = region.metric(1, "audit_put_back_total").await;
        for which in [0, 1] {
            found += region.metric(which, "audit_origins_total").await;
        }
        if found > 0 { Ok(()) } else { Err(found) }
    })
    .await;
    region.verified().await;
    is_whole_without_an_origin(&region, &[(0, acked)].into()).await;
}

/// An event that the gateway has acknowledged.
async fn kept_by(region: &Site, which: usize, number: usize) -> String {
    let (to, ids) = (region.gateway(which).addr, [format!("{which:032x}-{number}")]);
    eventually(WAIT, "an event is acknowledged", async || {
        let kept = send(to, &ids).await;
        if kept == Some(vec![Kept::Kept]) { Ok(()) } else { Err(kept) }
    })
    .await;
    let [id] = ids;
    id
}

/// And has put into the chain.
async fn chained(region: &Site, which: usize, number: usize) -> String {
    let id = kept_by(region, which, number).await;
    eventually(WAIT, "nothing waits on its disk", async || {
        let spool = region.metric(which, "audit_spool_bytes").await;
        if spool == 0 { Ok(()) } else { Err(spool) }
    })
    .await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_gateway_is_lost_with_its_disk_the_chain_says_so_and_goes_on() {
    let mut region = Site::start(2, &[]).await;
    let load = Load::start(&region);
    load.more(60).await;
    eventually(WAIT, "the gateway that came second appends, too", async || {
        let count = region.metric(1, "audit_appended_total").await;
        let spool = region.metric(1, "audit_spool_bytes").await;
        if count > 0 && spool == 0 { Ok(()) } else { Err((count, spool)) }
    })
    .await;
    let kept = region.redis.log_len();
    // What it appends has to be missed: the other one appends behind it.
    load.more_of(1, 30).await;
    load.more_of(0, 30).await;
    region.destroy(1);
    region.redis.lose_power(kept).await;
    region.run(1).await;
    load.more(30).await;
    let acked = load.end().await;
    region.settle().await;
    let (report, counts) = region.audit(false).await;
    assert_eq!(report.verdict, Verdict::Invalid, "nobody has said that it is known");
    assert_eq!(report.findings.len(), 1, "and that is all: {report:?}");
    let (report, _) = region.audit(true).await;
    assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 1), "{report:?}");
    // What was acknowledged by the gateway that lives.
    once(&acked[&0], &counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_under_load_while_a_gateway_is_killed() {
    let mut region = Site::start(2, &[]).await;
    let load = Load::start(&region);
    load.more(60).await;
    make_key(&region.path("keys/v2.pem"), &["--version", "v2"]);
    load.more(20).await;
    region.kill(0);
    region.run(0).await;
    eventually(WAIT, "the new key signs", async || {
        let (report, _) = region.audit(false).await;
        if report.signatures.contains_key("v2") { Ok(()) } else { Err(report) }
    })
    .await;
    // The other gateway was there before, and says so.
    eventually(WAIT, "the new key signs everywhere", async || {
        let output = region.gateway(1).output();
        if output.contains("another audit key signs") { Ok(()) } else { Err(output) }
    })
    .await;
    // From now on the first key must not sign; what it signed still verifies.
    std::fs::write(region.path("keys/revoked"), "v1\n").expect("written");
    load.more(60).await;
    let by_first = region.audit(false).await.0.signatures["v1"];
    region.kill(1);
    region.run(1).await;
    load.more(60).await;
    let acked = load.end().await;
    region.settle().await;
    region.verified().await;
    assert!(region.metric(1, "audit_revoked_key_usage_total").await > 0);
    let (report, counts) = region.audit(false).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert!(report.signatures["v1"] > 0 && report.signatures["v2"] > 0);
    assert_eq!(report.signatures["v1"], by_first, "it signs nothing any more");
    // That v2 is known and signs one gateway has seen, or both; each was alive at one of the changes.
    assert!(counts.keys().any(|id| id.starts_with("keys-")), "{counts:?}");
    acked.values().for_each(|acked| once(acked, &counts));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_be_put_on_record_are_refused_and_losses_are_told() {
    let mut region = Site::start(1, &["--audit-spool-max", "700", "--cold-start", "5m"]).await;
    region.gateway(0).declare("warm").await;
    region.redis.process().signal(rustix::process::Signal::STOP.as_raw());
    eventually(WAIT, "the spool is full", async || {
        let answer = region.gateway(0).command("/v1/region", r#"{"temperature":"cold"}"#).await;
        if answer.body.contains("not carried out") { Ok(()) } else { Err(answer) }
    })
    .await;
    eventually(WAIT, "the refused command has an end", async || {
        let output = region.gateway(0).output();
        let is_end = |line: &str| line.contains("admin") && line.contains("outcome=\"refused\"");
        if output.lines().any(is_end) { Ok(()) } else { Err(output) }
    })
    .await;
    region.redis.process().signal(rustix::process::Signal::CONT.as_raw());
    eventually(WAIT, "commands are carried out again", async || {
        let answer = region.gateway(0).command("/v1/region", r#"{"temperature":"warm"}"#).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    region.settle().await;
    let (report, counts) = region.audit(false).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert!(counts.keys().any(|id| id.starts_with("loss-")), "{counts:?}");
}

/// What the gateway's own verification says of a chain that was changed under it.
async fn alarmed(region: &Site, line: &str, first_bad: u64) {
    eventually(WAIT, "the gateway tells of it", async || {
        let found = region.metric(0, "audit_findings").await;
        let first = region.metric(0, "audit_first_bad_seq").await;
        let output = region.gateway(0).output();
        let said = output.lines().any(|said| {
            let seq = [format!("seq={first_bad} "), format!("\"seq\":{first_bad},")];
            said.contains(line) && seq.iter().any(|seq| said.contains(seq))
        });
        if found > 0 && first == first_bad && said { Ok(()) } else { Err((found, first, output)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_edited_in_redis_is_told_by_the_gateway_with_its_number() {
    let region = Site::start(1, &[]).await;
    let load = Load::start(&region);
    load.more(60).await;
    load.end().await;
    region.settle().await;
    region.verified().await;
    let key = "audit:{default}:seg:0";
    let reply = region.redis.command(&["LINDEX", key, "9"]).await;
    let record = reply.lines().nth(1).expect("a record");
    let edited = record.replacen("\"region\":\"default\"", "\"region\":\"defaulT\"", 1);
    assert_ne!(edited, record);
    region.redis.command(&["LSET", key, "9", &edited]).await;
    alarmed(&region, "the audit chain was tampered with", 10).await;
    assert_eq!(region.audit(false).await.0.first_bad, Some(10));
}

/// In one step, as a store that loses its end does it: all behind a record is gone, with the ids of the events or without.
const CUT: &str = "local head, list, ids = KEYS[1], KEYS[2], KEYS[3] \
    redis.call('LTRIM', list, 0, ARGV[1] - 1) \
    redis.call('HSET', head, 'seq', ARGV[1], 'hash', ARGV[2]) \
    local noted = ARGV[3] == 'keep' and {} or redis.call('HGETALL', ids) \
    for i = 1, #noted, 2 do \
      if tonumber(noted[i + 1]) > tonumber(ARGV[1]) then redis.call('HDEL', ids, noted[i]) end \
    end \
    return redis.call('HLEN', ids)";

/// The alarm does not depend on who is faster: the gateway that puts the records back says so, and says it until what came
/// back was verified.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_cut_off_in_redis_is_told_by_the_gateway_and_comes_back_in_its_bytes() {
    for ids in ["keep", "cut"] {
        let region = Site::start(1, &[]).await;
        let load = Load::start(&region);
        load.more(60).await;
        let acked = load.end().await;
        region.settle().await;
        region.verified().await;
        let (head, list) = ("audit:{default}:head", "audit:{default}:seg:0");
        let whole = region.redis.command(&["LRANGE", list, "0", "59"]).await;
        let reply = region.redis.command(&["LINDEX", list, "19"]).await;
        let line = reply.lines().nth(1).expect("a record");
        let hash = Record::read(line.as_bytes()).expect("sound").hash.to_string();
        let noted = "audit:{default}:ids:0";
        let left =
            region.redis.command(&["EVAL", CUT, "3", head, list, noted, "20", &hash, ids]).await;
        let left = left.trim().trim_start_matches(':').parse::<usize>().expect("a number");
        assert_eq!(left == 20, ids == "cut", "{left}");
        eventually(WAIT, "the gateway tells of it", async || {
            let times = region.metric(0, "audit_set_back_total").await;
            let output = region.gateway(0).output();
            let said = output.lines().any(|said| {
                let seq = ["seq=21 ", "\"seq\":21,"].iter().any(|seq| said.contains(seq));
                said.contains("the audit chain's store was set back") && seq
            });
            if times > 0 && said { Ok(()) } else { Err((times, output)) }
        })
        .await;
        region.settle().await;
        region.verified().await;
        let again = region.redis.command(&["LRANGE", list, "0", "59"]).await;
        assert_eq!(again, whole, "other bytes");
        let output = region.gateway(0).output();
        assert_eq!(region.metric(0, "audit_origins_total").await, 0, "{output}");
        assert_eq!(region.metric(0, "audit_false_ids_total").await, 0, "{output}");
        let (report, counts) = region.audit(false).await;
        assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 0), "{report:?}");
        acked.values().for_each(|acked| once(acked, &counts));
    }
}

/// While two gateways append: set back to a record within an append, or taken away while one of them, with what it had
/// appended last, is gone for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_set_back_or_taken_away_goes_on_over_the_records_that_are_there() {
    for is_gone in [false, true] {
        let mut region = Site::start(2, &[]).await;
        let load = Load::start(&region);
        load.more_of(0, 40).await;
        load.more_of(1, 40).await;
        let (head, key) = ("audit:{default}:head", "audit:{default}:seg:0");
        if is_gone {
            region.destroy(1);
            region.redis.command(&["DEL", head]).await;
            region.run(1).await;
        } else {
            let reply = region.redis.command(&["LINDEX", key, "19"]).await;
            let record = reply.lines().nth(1).expect("a record");
            let hash = Record::read(record.as_bytes()).expect("sound").hash.to_string();
            region.redis.command(&["HSET", head, "seq", "20", "hash", &hash]).await;
        }
        load.more(30).await;
        let acked = load.end().await;
        region.settle().await;
        region.verified().await;
        for which in [0, 1] {
            let origins = region.metric(which, "audit_origins_total").await;
            assert_eq!(origins, 0, "{which}: {}", region.gateway(which).output());
        }
        let output = region.gateway(0).output();
        assert!(output.contains("the audit chain's store was set back"), "{output}");
        assert!(region.metric(0, "audit_repaired_total").await > 0, "{output}");
        // All that lies in the list is the chain, as the documented export reads it.
        let (report, counts) = region.audit(false).await;
        assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 0), "{report:?}");
        assert!(report.checkpoints_matched > 0, "{report:?}");
        // What waited on the disk that is gone is gone with it.
        for (which, acked) in acked {
            if which == 0 || !is_gone {
                once(&acked, &counts);
            }
        }
    }
}

/// A filter whose gateway was killed before it could answer hands the same events to another one: what the first had
/// appended, had on its disk or had only heard is in the chain once, also when the first comes back with its disk.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_gateway_that_was_killed_are_taken_once_by_another_one() {
    let mut region = Site::start(2, &["--redis-response-timeout", "300ms"]).await;
    let mut acked = BTreeSet::new();
    for which in [0, 1] {
        acked.insert(chained(&region, which, 0).await);
    }
    let ids = |what: &str| [1, 2, 3].map(|n| format!("{:032x}-{what}{n}", 5));

    let appended = ids("1");
    let unread_yet = unread(region.gateway(0).addr, &appended).await;
    eventually(WAIT, "the chain has them, and nobody was told", async || {
        let (_, counts) = region.audit(false).await;
        if appended.iter().all(|id| counts.contains_key(id)) { Ok(()) } else { Err(counts) }
    })
    .await;
    region.kill(0);
    drop(unread_yet);
    resent(&region, &appended, &mut acked).await;
    region.run(0).await;
    chained(&region, 0, 7).await;

    let spooled = ids("2");
    region.redis.process().pause();
    let unread_yet = unread(region.gateway(0).addr, &spooled).await;
    eventually(WAIT, "its disk has them", async || {
        let spool = std::fs::read_to_string(region.path("gateway-0-0/spool.jsonl"));
        let spool = spool.unwrap_or_default();
        if spooled.iter().all(|id| spool.contains(id)) { Ok(()) } else { Err(spool) }
    })
    .await;
    region.kill(0);
    drop(unread_yet);
    region.redis.process().resume();
    resent(&region, &spooled, &mut acked).await;
    region.run(0).await;

    region.settle().await;
    region.verified().await;
    let (report, counts) = region.audit(false).await;
    assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 0), "{report:?}");
    once(&acked, &counts);
}

/// The same at any moment and under load: each filter goes on with whatever gateway lives.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_filters_of_a_gateway_that_is_killed_go_to_another_one_and_nothing_is_doubled() {
    let mut region = Site::start(2, &[]).await;
    let load = Load::roaming(&region);
    let mut below = random(3);
    for _ in 0..6 {
        load.more(20 + below(60)).await;
        let which = below(2);
        region.kill(which);
        load.more(20).await;
        region.run(which).await;
    }
    assert!(load.resent() > 0, "no event went to two gateways");
    ends_whole(&region, load).await;
}

/// An operator's first sign of it, beside the gauge.
#[tokio::test(flavor = "multi_thread")]
async fn when_events_begin_to_wait_on_the_disk_a_critical_line_says_so() {
    let mut region = Site::start(1, &["--redis-response-timeout", "300ms"]).await;
    let mut acked = BTreeSet::from([chained(&region, 0, 0).await]);
    let begins = |output: &str| {
        let says = |line: &&str| line.contains("audit events could not be appended; they go to");
        output.lines().filter(says).map(str::to_owned).collect::<Vec<_>>()
    };
    // One that has only just begun may not have reached its Redis.
    let before = begins(&region.gateway(0).output()).len();
    region.redis.process().pause();
    let waits = kept_by(&region, 0, 1).await;
    let spool = std::fs::read_to_string(region.path("gateway-0-0/spool.jsonl")).expect("a spool");
    assert!(spool.contains(&waits), "acknowledged, and not on the disk: {spool}");
    acked.insert(waits);
    let lines = begins(&region.gateway(0).output());
    let is_critical = |line: &String| line.contains("ERROR") && line.contains("critical=true");
    assert!(lines.len() > before && lines.iter().all(is_critical), "{lines:?}");
    assert!(region.metric(0, "audit_spool_bytes").await > 0);
    region.redis.process().resume();
    region.settle().await;
    let (report, counts) = region.audit(false).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    once(&acked, &counts);
}

/// While events are gathered for ten minutes nothing of them is on the disk: the gateway's own go with it, and a filter
/// still has what was not acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_not_acknowledged_goes_with_the_gateway_and_comes_again_from_its_filter()
{
    let mut region = Site::start(1, &["--audit-tick", "600s"]).await;
    let ids = [format!("{:032x}-1", 9)];
    let sent = send(region.gateway(0).addr, &ids).await;
    assert_eq!(sent, Some(vec![Kept::Later]));
    region.kill(0);
    region.flags.clear();
    region.run(0).await;
    let after = chained(&region, 0, 1).await;
    let (_, counts) = region.audit(false).await;
    assert!(counts.contains_key(&after) && !counts.contains_key(&ids[0]), "{counts:?}");
    eventually(WAIT, "it is acknowledged now", async || {
        let kept = send(region.gateway(0).addr, &ids).await;
        if kept == Some(vec![Kept::Kept]) { Ok(()) } else { Err(kept) }
    })
    .await;
    region.settle().await;
    let (report, counts) = region.audit(false).await;
    assert_eq!((report.verdict, counts.get(&ids[0])), (Verdict::Valid, Some(&1)), "{report:?}");
}

/// Each event is gathered for ten minutes, but those that are waited for are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial_of_the_sync_class_outlives_a_gateway_that_is_killed_at_its_answer() {
    let flags = ["--audit-sync", "deny", "--audit-tick", "600s", "--deadline", "2s"];
    let mut region = Site::start(1, &flags).await;
    let mut ids = 1..;
    // A gateway that has only just begun may not reach its Redis yet.
    let denied = eventually(WAIT, "more than one a minute are denied", async || {
        let (id, body) = one_a_minute(ids.next().expect("numbers"));
        let length = body.len();
        let request = format!(
            "POST /v1/decide HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let mut stream = client::connect(region.gateway(0).addr, None).await.expect("it listens");
        let answer = client::raw(&mut stream, request.as_bytes()).await;
        let is_denied = answer.body.contains("\"verdict\":\"deny\"");
        if is_denied { Ok(id.to_string()) } else { Err(answer) }
    })
    .await;
    region.kill(0);
    region.run(0).await;
    eventually(WAIT, "it is in the chain, by way of the disk or at once", async || {
        let (report, counts) = region.audit(false).await;
        let done = report.verdict == Verdict::Valid && counts.get(&denied) == Some(&1);
        if done { Ok(()) } else { Err((report, counts)) }
    })
    .await;
}

fn one_a_minute(id: u128) -> (DecisionId, String) {
    let id = DecisionId::new(id);
    let body = format!(
        r#"{{"v":1,"id":"{id}","scope":{{"region":null,"environment":"default","tenant":null,"key_format":1}},"timeout_ms":5000,"limits":[{{"id":"p.one","subject":{{"kind":"ip","name":"203.0.113.7"}},"limit":1,"period_us":60000000,"burst":1,"cost":1,"shadow":false}}]}}"#
    );
    (id, body)
}
