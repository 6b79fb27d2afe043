//! The commands of docs/audit.md as they stand there: an export of a real Redis whose chain goes on meanwhile,
//! and its verification.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::Environment;
use tidegate_gateway::audit::keys::{Ed25519, SigningKeys};
use tidegate_gateway::audit::watch::Notes;
use tidegate_gateway::secret::Secret;
use tidegate_gateway::store::chains::Chains;
use tidegate_policy::audit::append::{Append, Outcome, Place};
use tidegate_policy::audit::hash::to_base64;
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::record::{ChainName, Event, batch};
use tidegate_policy::audit::verify::Verifier;
use tidegate_tests::parts;
use tidegate_tests::redis::Redis;

mod redis_store;

const WAIT: Duration = Duration::from_secs(60);
const DOCS: &str = include_str!("../../docs/audit.md");
/// RFC 8410 §10.3: everybody knows it.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

fn event(id: &str) -> Event {
    let text = format!(
        r#"{{"action":"admin","actor":"a","detail":"","id":"{id}","outcome":"ok","region":"eu","tenant":null,"ts":1,"v":1}}"#
    );
    Event::read(text.as_bytes()).expect("an event")
}

/// What stands between the fences of the one block that says `word`.
fn block(word: &str) -> String {
    let blocks = DOCS.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let found: Vec<&str> = blocks.filter(|block| block.contains(word)).collect();
    let [block] = found.as_slice() else { panic!("{word}: {found:?}") };
    (*block).to_owned()
}

fn run(dir: &Path, commands: &str) -> Output {
    let tools = Path::new(env!("CARGO_BIN_EXE_tidegate-audit")).parent().expect("a folder");
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{}:{path}", dir.join("bin").display(), tools.display());
    let mut command = Command::new("sh");
    command.current_dir(dir).args(["-e", "-c", commands]).env("PATH", path);
    command.output().expect("it runs")
}

/// A `redis-cli` that finds the test's Redis, and before the first records come appends to the chain.
fn redis_cli(dir: &Path, redis: &Redis, segment: u64) {
    let (cli, libraries) = parts::redis_cli();
    let libraries = libraries.map(|path| path.display().to_string()).unwrap_or_default();
    let (cli, socket) = (cli.display(), redis.socket().display().to_string());
    let script = format!(
        r#"#!/bin/sh
export LD_LIBRARY_PATH="{libraries}"
if [ "$2" = LRANGE ] && [ ! -e appended ]; then
  touch appended
  "{cli}" -s "{socket}" -x RPUSH 'audit:{{eu}}:seg:{segment}' < next > appended
fi
exec "{cli}" -s "{socket}" "$@"
"#
    );
    fs::create_dir(dir.join("bin")).expect("made");
    let path = dir.join("bin/redis-cli");
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("executable");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_export_of_a_chain_of_many_segments_verifies_by_the_documented_command() {
    let redis = Redis::start().await;
    let store = Arc::new(redis_store::start(&redis, WAIT).await);
    let chain = ChainName::new("eu").expect("a name");
    let keys = SigningKeys::from_environment(&Environment::from([("AUDIT_PRIVATE_KEY_V1", PEM)]));
    let keys = keys.expect("a key");
    let (version, public, _) = keys.public().next().expect("one");
    let ring = KeyRing {
        chain: chain.clone(),
        keys: [(version, Key { public, revoked: None })].into(),
        checkpoint_keys: Vec::new(),
    };
    let (mut verifier, mut place) = (Verifier::new(&ring, &Ed25519), Place::GENESIS);
    let made = |place: Place, number: u64| {
        let events = [event(&format!("e-{number}")), event(&format!("f-{number}"))];
        batch(&chain, place.head, &events, &keys.current().expect("a key"))
    };
    for segment in 0..12 {
        let batch = made(place, segment);
        let (hash, lines) = (batch.head.hash, &batch.lines);
        let append = Append { expected: place, segment, ids_from: 0, hash, lines, refuted: &[] };
        let outcome = store.append(&chain, &append).await.expect("appended");
        let Outcome::Done(end) = outcome else { panic!("{outcome:?}") };
        place = end;
        batch.lines.iter().for_each(|line| verifier.push(&line.bytes));
    }
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("next"), &made(place, 12).lines[0].bytes).expect("written");
    redis_cli(dir.path(), &redis, place.segment);
    let checkpoints = dir.path().join("checkpoints");
    let mut notes = Notes::new(&checkpoints, "log.example/eu", &Secret::new(PEM)).expect("a key");
    notes.open().expect("opened");
    let (head, root) = verifier.sound().expect("signed");
    notes.write(head.seq, root, 0).expect("written");
    let listed = format!(
        r#"{{"chain":"eu","keys":[{{"version":"v1","public":"{}"}}],"checkpoint_keys":["{}"]}}"#,
        to_base64(&public),
        notes.key()
    );
    fs::write(dir.path().join("keys.json"), listed).expect("written");

    let export = block("LRANGE");
    let (names, commands) = export.split_once('\n').expect("lines");
    assert!(names.starts_with("chain=eu checkpoints=/"), "{names}");
    let exported = run(dir.path(), &format!("chain=eu checkpoints=checkpoints\n{commands}"));
    assert!(exported.status.success(), "{exported:?}");
    assert!(dir.path().join("appended").exists(), "the chain went on");
    let verified = run(dir.path(), &block("tidegate-audit verify"));
    let report = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert_eq!(verified.status.code(), Some(0), "{report} {verified:?}");
    for expected in [r#""records": 24"#, r#""checkpoints_matched": 1"#, r#""verdict": "valid""#] {
        assert!(report.contains(expected), "{report}");
    }
}
