//! Every wrong configuration under tests/config/invalid/ has one mistake, and the message that its first
//! lines expect is all that is said about it. `BLESS=1` writes the messages anew: read them then.
//!
//! A file says `# beyond the schema` where only the filter can see the mistake; every other is refused by
//! the schema, too.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tidegate_policy::check::found;

use crate::{root, schema};

const EXPECT: &str = "# expect: ";
const BEYOND: &str = "# beyond the schema\n";

struct Case {
    path: PathBuf,
    /// Without its expectations.
    yaml: String,
    expected: Vec<String>,
    is_beyond: bool,
}

fn cases() -> Vec<Case> {
    let dir = root().join("tests/config/invalid");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.into_iter().map(case).collect()
}

fn case(path: PathBuf) -> Case {
    let text = fs::read_to_string(&path).expect("a readable file");
    let (head, yaml): (Vec<&str>, Vec<&str>) =
        text.split_inclusive('\n').partition(|line| line.starts_with('#'));
    let expected = head.iter().filter_map(|line| line.strip_prefix(EXPECT));
    Case {
        expected: expected.map(|line| line.trim_end().to_owned()).collect(),
        is_beyond: head.contains(&BEYOND),
        yaml: yaml.concat(),
        path,
    }
}

impl Case {
    fn document(&self) -> Value {
        serde_saphyr::from_str(&self.yaml)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }
}

fn said(document: &Value) -> Vec<String> {
    let line = |found: &tidegate_policy::check::Found| {
        let place = if found.field.is_empty() { "configuration" } else { &found.field };
        format!("{}: {place}: {}; {}", found.severity, found.problem, found.remedy)
    };
    found(&document.to_string(), "").iter().map(line).collect()
}

#[test]
fn each_mistake_gets_the_message_that_its_file_expects_and_no_other() {
    let cases = cases();
    assert!(cases.len() >= 50, "only {} wrong configurations", cases.len());
    let schema = jsonschema::validator_for(&schema::schema()).expect("a schema");
    let mut wrong = Vec::new();
    for case in &cases {
        let document = case.document();
        let said = said(&document);
        let is_beyond = schema.is_valid(&document);
        if std::env::var_os("BLESS").is_some() {
            let lines: String = said.iter().map(|line| format!("{EXPECT}{line}\n")).collect();
            let mark = if is_beyond { BEYOND } else { "" };
            fs::write(&case.path, format!("{lines}{mark}{}", case.yaml)).expect("written");
        } else if said != case.expected || said.len() != 1 {
            wrong.push(format!("{}:\n  {}", case.path.display(), said.join("\n  ")));
        } else if is_beyond != case.is_beyond {
            wrong.push(format!("{}: the schema takes it: {is_beyond}", case.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
