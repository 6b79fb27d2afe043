//! Every tampering that the documentation names, done to files and found by the shipped command, with real
//! signatures.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tidegate_gateway::Environment;
use tidegate_gateway::audit::keys::{Current, SigningKeys};
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::merkle::Frontier;
use tidegate_policy::audit::note::{Checkpoint, NoteKey};
use tidegate_policy::audit::record::{ChainName, Event, Head, KeyVersion, Record, Signer, batch};
use tidegate_policy::audit::verify::HeadClaim;

const ORIGIN: &str = "log.example/eu";
const BATCH: usize = 8;
const RECORDS: usize = 48;

/// Files of one chain: 48 records in batches of 8, a checkpoint at 16 and one at 32.
struct Case {
    dir: TempDir,
    lines: Vec<String>,
    own: Current,
    foreign: Current,
}

/// How an inserted record is signed.
enum Forged {
    Foreign,
    Copied,
    Unsigned,
}

fn chain() -> ChainName {
    ChainName::new("eu").expect("a name")
}

/// The key that the shipped command makes.
fn key(dir: &Path, name: &str) -> SigningKeys {
    let made = audit(dir, &["keys", "generate", "--version", "v1", "--out", name]);
    assert_eq!(made.0, 0, "{}", made.1);
    let path = dir.join(name).display().to_string();
    let environment = Environment::from([("AUDIT_PRIVATE_KEY_V1_FILE", path.as_str())]);
    SigningKeys::from_environment(&environment).expect("a key")
}

fn audit(dir: &Path, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-audit"));
    let output = command.current_dir(dir).args(words).env_clear().output().expect("it runs");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn events(from: usize, to: usize, word: &str) -> Vec<Event> {
    let event = |n: usize| {
        let text = format!(
            r#"{{"action":"admin","actor":"a","detail":"{word} {n}","id":"{word}-{n}","outcome":"ok","region":"eu","tenant":null,"ts":1,"v":1}}"#
        );
        Event::read(text.as_bytes()).expect("an event")
    };
    (from..=to).map(event).collect()
}

fn public(keys: &SigningKeys) -> [u8; 32] {
    keys.public().next().expect("one").1
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let own = key(dir.path(), "own.pem");
        let foreign = key(dir.path(), "foreign.pem");
        let notes = key(dir.path(), "notes.pem");
        let signer = own.current().expect("a key");
        let lines = written(Head::GENESIS, events(1, RECORDS, "e"), &signer);
        let note_key = NoteKey::new(ORIGIN, public(&notes)).expect("a name");
        let ring = KeyRing {
            chain: chain(),
            keys: [(KeyVersion(1), Key { public: public(&own), revoked: None })].into(),
            checkpoint_keys: vec![note_key.clone()],
        };
        fs::write(dir.path().join("keys.json"), ring.write()).expect("written");
        let mut frontier = Frontier::default();
        let note_signer = notes.current().expect("a key");
        for (index, line) in lines.iter().enumerate() {
            frontier.push(&Record::read(line.as_bytes()).expect("a record").hash.0);
            if [16, 32].contains(&(index + 1)) {
                let size = frontier.size();
                let root = frontier.root();
                let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size, root };
                let note = checkpoint.note(&note_key, |text| note_signer.sign(text));
                fs::write(dir.path().join(format!("checkpoint-{size}")), note).expect("written");
            }
        }
        let foreign = foreign.current().expect("a key");
        let case = Self { dir, lines, own: signer, foreign };
        case.write_head(RECORDS);
        case
    }

    fn write_head(&self, seq: usize) {
        let head = self.head(seq);
        let claim = HeadClaim { chain: "eu".to_owned(), head };
        fs::write(self.dir.path().join("head.json"), claim.write()).expect("written");
    }

    /// The chain's end if `seq` is its last record.
    fn head(&self, seq: usize) -> Head {
        let Some(last) = seq.checked_sub(1) else { return Head::GENESIS };
        let record = Record::read(self.lines[last].as_bytes()).expect("a record");
        Head { seq: record.seq, hash: record.hash }
    }

    fn edit(&mut self, seq: usize, from: &str, to: &str) {
        let line = &mut self.lines[seq - 1];
        let edited = line.replacen(from, to, 1);
        assert_ne!(*line, edited);
        *line = edited;
    }

    /// All from `seq` on anew, linked and signed as it should be, and the head set to it.
    fn rewrite(&mut self, seq: usize, by_thief: bool) {
        let signer = if by_thief { &self.own } else { &self.foreign };
        let count = self.lines.len();
        let made = written(self.head(seq - 1), events(seq, count, "x"), signer);
        self.lines.truncate(seq - 1);
        self.lines.extend(made);
        self.write_head(count);
    }

    fn cut(&mut self, seq: usize, head_too: bool) {
        self.lines.truncate(seq);
        if head_too {
            self.write_head(seq);
        }
    }

    /// Puts a record before the one with this number and counts and links all behind it anew, as it should be. Its
    /// signature is a foreign key's, that of another record, or none.
    fn forge(&mut self, seq: usize, forged: Forged) {
        let before = self.head(seq - 1);
        let event = events(seq, seq, "forged");
        let made = written(before, event, &self.foreign).remove(0);
        let mut made: serde_json::Value = serde_json::from_str(&made).expect("a record");
        let members = made.as_object_mut().expect("an object");
        match forged {
            Forged::Foreign => {}
            Forged::Copied => {
                let signed: serde_json::Value =
                    serde_json::from_str(&self.lines[39]).expect("a record");
                members.insert("sig".to_owned(), signed["sig"].clone());
            }
            Forged::Unsigned => {
                members.remove("sig");
                members.remove("key_version");
            }
        }
        self.lines.insert(seq - 1, made.to_string());
        for index in seq..self.lines.len() {
            let before = self.head(index);
            let mut line: serde_json::Value =
                serde_json::from_str(&self.lines[index]).expect("a record");
            line["seq"] = (index + 1).into();
            line["prev"] = before.hash.to_string().into();
            self.lines[index] = line.to_string();
        }
        self.write_head(self.lines.len());
    }

    fn verify(&self) -> (i32, serde_json::Value) {
        let text: String = self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        fs::write(self.dir.path().join("chain.jsonl"), text).expect("written");
        let words = ["verify", "chain.jsonl", "--keys", "keys.json", "--head", "head.json"];
        let notes = ["--checkpoint", "checkpoint-16", "--checkpoint", "checkpoint-32", "--json"];
        let (code, text) = audit(self.dir.path(), &[&words[..], &notes].concat());
        (code, serde_json::from_str(&text).expect("a report"))
    }
}

fn written(head: Head, events: Vec<Event>, signer: &Current) -> Vec<String> {
    let (mut head, mut lines) = (head, Vec::new());
    for events in events.chunks(BATCH) {
        let made = batch(&chain(), head, events, signer);
        head = made.head;
        let texts = made.lines.into_iter().map(|line| String::from_utf8(line.bytes));
        lines.extend(texts.map(|text| text.expect("text")));
    }
    lines
}

#[test]
fn the_chain_that_is_tampered_with_below_is_valid() {
    let (code, report) = Case::new().verify();
    assert_eq!((code, &report["verdict"]), (0, &"valid".into()), "{report}");
    assert_eq!((&report["records"], &report["checkpoint_size"]), (&48.into(), &32.into()));
}

/// What was done, what is found, the first bad record.
#[test]
fn every_tampering_exits_1_and_names_the_first_bad_record() {
    type Row = (&'static str, fn(&mut Case), &'static str, u64);
    let rows: [Row; 20] = [
        ("edit", |c| c.edit(11, "e 11", "f 11"), "broken_link", 11),
        ("edit of a signed one", |c| c.edit(24, "e 24", "f 24"), "bad_signature", 24),
        ("edit of the last", |c| c.edit(48, "e 48", "f 48"), "bad_signature", 48),
        ("delete", |c| drop(c.lines.remove(18)), "gap", 19),
        ("swap", |c| c.lines.swap(20, 21), "out_of_order", 21),
        ("insert a copy", |c| c.lines.insert(30, c.lines[29].clone()), "repeated", 30),
        // What is signed next covers what was inserted: the signature there is of another number and hash.
        ("insert, linked, unsigned", |c| c.forge(35, Forged::Unsigned), "bad_signature", 41),
        (
            "insert, linked, signature of another",
            |c| c.forge(35, Forged::Copied),
            "bad_signature",
            35,
        ),
        ("insert, linked, a foreign key", |c| c.forge(35, Forged::Foreign), "bad_signature", 35),
        ("the same below a checkpoint", |c| c.forge(20, Forged::Foreign), "bad_signature", 20),
        (
            "insert, linked, the others as they were",
            |c| {
                let own = c.lines.split_off(34);
                c.lines.extend(own.clone());
                c.forge(35, Forged::Unsigned);
                c.lines.truncate(35);
                c.lines.extend(own);
            },
            "fork",
            35,
        ),
        ("a foreign key", |c| c.rewrite(33, false), "bad_signature", 40),
        ("cut off, head kept", |c| c.cut(40, false), "truncated", 41),
        ("cut off within a batch", |c| c.cut(45, true), "unsigned_tail", 41),
        ("cut off, head set back", |c| c.cut(24, true), "truncated", 25),
        ("all cut off but one batch", |c| c.cut(8, true), "truncated", 9),
        (
            "a fork",
            |c| {
                let own = c.lines[9].clone();
                c.edit(10, "e 10", "f 10");
                c.lines.insert(10, own);
            },
            "fork",
            10,
        ),
        ("rewritten with the stolen key", |c| c.rewrite(20, true), "checkpoint_differs", 17),
        ("rewritten from the start", |c| c.rewrite(1, true), "checkpoint_differs", 1),
        ("an empty line between", |c| c.lines.insert(5, String::new()), "unreadable", 6),
    ];
    for (name, tamper, kind, first_bad) in rows {
        let mut case = Case::new();
        tamper(&mut case);
        let (code, report) = case.verify();
        assert_eq!((code, &report["verdict"]), (1, &"invalid".into()), "{name}: {report}");
        assert_eq!(report["first_bad"], first_bad, "{name}: {report}");
        let findings = report["findings"].as_array().expect("findings");
        assert!(findings.iter().any(|found| found["kind"] == kind), "{name}: {report}");
    }
}

/// What no verifier can tell, so that nobody believes it does.
#[test]
fn behind_the_last_checkpoint_a_stolen_key_and_a_cut_pass() {
    let tampers: [fn(&mut Case); 2] = [|case| case.rewrite(33, true), |case| case.cut(40, true)];
    for tamper in tampers {
        let mut case = Case::new();
        tamper(&mut case);
        let (code, report) = case.verify();
        assert_eq!((code, &report["checkpoint_size"]), (0, &32.into()), "{report}");
    }
}
