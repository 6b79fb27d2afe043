//! The auditor's command as it is shipped: exit codes, the report, keys that fit together.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use tidegate_gateway::Environment;
use tidegate_gateway::audit::keys::SigningKeys;
use tidegate_policy::audit::record::{ChainName, Event, Head, batch};

/// The published vectors: a chain of three records with head, key and checkpoint.
const GOLDEN: &str = include_str!("../../policy/tests/golden/audit-chain.json");

struct Case {
    dir: TempDir,
}

impl Case {
    fn new() -> Self {
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).expect("JSON");
        let text = |key: &str| golden[key].as_str().expect("a text").to_owned();
        let dir = tempfile::tempdir().expect("a folder");
        let case = Self { dir };
        let records = golden["records"].as_array().expect("records");
        let lines = records.iter().map(|r| r["record"].as_str().expect("a text").to_owned() + "\n");
        case.write("chain.jsonl", &lines.collect::<String>());
        case.write("head.json", &text("head"));
        case.write("checkpoint", &text("checkpoint"));
        let (public, note) = (text("public"), text("checkpoint_key"));
        let keys = format!(
            r#"{{"chain":"eu","keys":[{{"version":"v1","public":"{public}"}}],"checkpoint_keys":["{note}"]}}"#
        );
        case.write("keys.json", &keys);
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).expect("read");
        assert!(text.contains(from), "{from}");
        self.write(name, &text.replacen(from, to, 1));
    }

    fn verify(&self, more: &[&str]) -> Output {
        let words = ["verify", "chain.jsonl", "--keys", "keys.json", "--head", "head.json"];
        let rest = ["--checkpoint", "checkpoint", "--json"];
        run(self.dir.path(), &[&words, &rest[..], more].concat(), &[])
    }
}

fn run(dir: &Path, words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-audit"));
    command.current_dir(dir).args(words).env_clear().envs(environment.iter().copied());
    command.output().expect("it runs")
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_valid_chain_is_0_a_tampered_one_1_and_none_2() {
    let sound = Case::new().verify(&[]);
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    let said = report(&sound);
    assert_eq!((&said["verdict"], &said["records"]), (&"valid".into(), &3.into()));
    assert_eq!(said["checkpoints_matched"], 1);
    type Tamper = fn(&Case);
    let rows: [(Tamper, i32); 9] = [
        (|case| case.edit("chain.jsonl", "started", "Started"), 1),
        (|case| case.edit("head.json", "\"seq\":3", "\"seq\":4"), 1),
        (|case| case.edit("checkpoint", "\n3\n", "\n4\n"), 1),
        (|case| case.edit("chain.jsonl", "\n", "\r\n"), 1),
        (|case| case.edit("chain.jsonl", "\n", " "), 1),
        (|case| case.write("chain.jsonl", ""), 2),
        (|case| case.write("chain.jsonl", &"x".repeat(1_000_000)), 2),
        (|case| case.write("head.json", "{}"), 2),
        (|case| case.edit("keys.json", "\"v1\"", "\"1\""), 2),
    ];
    for (index, (tamper, code)) in rows.into_iter().enumerate() {
        let case = Case::new();
        tamper(&case);
        let output = case.verify(&[]);
        assert_eq!(output.status.code(), Some(code), "row {index}: {output:?}");
    }
    let case = Case::new();
    case.edit("chain.jsonl", "started", "Started");
    assert_eq!(report(&case.verify(&[]))["first_bad"], 1);
}

#[test]
fn several_files_are_one_chain_in_their_order() {
    let case = Case::new();
    let text = fs::read_to_string(case.path("chain.jsonl")).expect("read");
    let (first, rest) = text.split_once('\n').expect("lines");
    case.write("a", &format!("{first}\n"));
    case.write("b", rest);
    let verify = |files: &[&str]| {
        let words = [&["verify", "--keys", "keys.json"], files].concat();
        run(case.dir.path(), &words, &[])
    };
    let sound = verify(&["a", "b"]);
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    let said = String::from_utf8(sound.stdout).expect("text");
    assert!(
        said.starts_with("eu: valid\n") && said.contains("no --checkpoint was given"),
        "{said}"
    );
    assert_eq!(verify(&["b", "a"]).status.code(), Some(1));
    assert_eq!(verify(&["a", "nowhere"]).status.code(), Some(2));
    assert_eq!(run(case.dir.path(), &["verify"], &[]).status.code(), Some(2));
}

#[test]
fn how_far_it_is_is_shown_to_who_looks_on_and_to_nobody_else() {
    const TERMINAL: &str = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let case = Case::new();
    let words = ["verify", "chain.jsonl", "--keys", "keys.json"];
    let unseen = run(case.dir.path(), &words, &[]);
    assert_eq!(unseen.status.code(), Some(0), "{unseen:?}");
    assert!(unseen.stderr.is_empty(), "{unseen:?}");
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_tidegate-audit")]).args(words);
    command.current_dir(case.dir.path()).env("TERM", "xterm");
    let seen = command.output().expect("python3 runs");
    let shown = String::from_utf8_lossy(&seen.stdout);
    assert_eq!(seen.status.code(), Some(0), "{shown}");
    let size = fs::metadata(case.path("chain.jsonl")).expect("there").len();
    let size = indicatif::HumanBytes(size).to_string();
    assert!(shown.contains(&format!("{size}/{size}")) && shown.contains("eu: valid"), "{shown}");
}

#[test]
fn keys_are_made_once_and_listed_without_showing_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let words = ["keys", "generate", "--version", "v7", "--out", "v7.pem"];
    let made = run(dir.path(), &words, &[]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let entry: serde_json::Value = serde_json::from_slice(&made.stdout).expect("an entry");
    let public = entry["public"].as_str().expect("a key");
    let path = dir.path().join("v7.pem");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let pem = fs::read_to_string(&path).expect("read");
    assert_eq!(run(dir.path(), &words, &[]).status.code(), Some(2), "never written over");
    assert_eq!(fs::read_to_string(&path).expect("read"), pem);
    let environment =
        [("AUDIT_PRIVATE_KEY_V7", pem.as_str()), ("AUDIT_PRIVATE_KEY_V6", pem.as_str())];
    let listed = run(dir.path(), &["keys", "list"], &environment);
    let text = String::from_utf8(listed.stdout).expect("text");
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows, [vec!["v6", public, "verifies"], vec!["v7", public, "signs"]]);
    let revoked = [environment[0], ("REVOKED_KEY_VERSIONS", "v7")];
    let listed = run(dir.path(), &["keys", "list"], &revoked);
    assert!(String::from_utf8(listed.stdout).expect("text").contains("revoked"));
    assert_eq!(run(dir.path(), &["keys", "list"], &[]).status.code(), Some(2));
    let note = ["keys", "generate", "--checkpoint-name", "log.example/eu", "--out", "c.pem"];
    let made = run(dir.path(), &note, &[]);
    assert!(made.stdout.starts_with(b"log.example/eu+"), "{made:?}");
}

/// Batches of a thousand records, since signing is what takes time here; whoever verifies keeps the ids of the last 20,000.
#[test]
fn a_chain_of_any_length_is_verified_in_the_same_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let words = ["keys", "generate", "--version", "v1", "--out", "v1.pem"];
    let made = run(dir.path(), &words, &[]);
    let public = String::from_utf8(made.stdout).expect("text");
    let keys = format!(r#"{{"chain":"eu","checkpoint_keys":[],"keys":[{}]}}"#, public.trim());
    fs::write(dir.path().join("keys.json"), keys).expect("written");
    let path = dir.path().join("v1.pem").display().to_string();
    let environment = Environment::from([("AUDIT_PRIVATE_KEY_V1_FILE", path.as_str())]);
    let signer = SigningKeys::from_environment(&environment).expect("a key").current();
    let (signer, chain) = (signer.expect("it signs"), ChainName::new("eu").expect("a name"));
    let mut file = fs::File::create(dir.path().join("chain.jsonl")).expect("made");
    let (mut head, mut number, mut peaks_kib) = (Head::GENESIS, 0, Vec::new());
    for until in [40_000, 160_000] {
        while number < until {
            let event = |n: u32| {
                let text = format!(
                    r#"{{"action":"deny","actor":"filter","detail":"names=p.ip","id":"{n:032x}-1","outcome":"quota-exceeded","region":"eu","tenant":null,"ts":1767225600000,"v":1}}"#
                );
                Event::read(text.as_bytes()).expect("an event")
            };
            let events: Vec<Event> = (number..number + 1_000).map(event).collect();
            let made = batch(&chain, head, &events, &signer);
            (head, number) = (made.head, number + 1_000);
            for line in made.lines {
                file.write_all(&line.bytes).and_then(|()| file.write_all(b"\n")).expect("written");
            }
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-audit"));
        command.current_dir(dir.path()).env_clear();
        command.args(["verify", "chain.jsonl", "--keys", "keys.json", "--json"]);
        let ended = tidegate_tests::process::run(command).expect("it runs");
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        let said: serde_json::Value = serde_json::from_str(&ended.output).expect("a report");
        assert_eq!(said["records"], number);
        peaks_kib.push(ended.peak_kib);
    }
    let length = fs::metadata(dir.path().join("chain.jsonl")).expect("there").len();
    assert!(length > 40 << 20, "{length} bytes");
    // A thirtieth of what came more.
    assert!(peaks_kib[1] < peaks_kib[0] + 1_024, "{peaks_kib:?} KiB");
}
