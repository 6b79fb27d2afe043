//! Owns the list of differences that are accepted (`tests/conformance/EXCEPTIONS.md`). It must not
//! know what differs.

use std::collections::BTreeMap;
use std::fs;

use crate::parts;

/// Reasons by the names of their scenarios.
pub(super) fn exceptions() -> BTreeMap<String, String> {
    let path = parts::root().join("tests/conformance/EXCEPTIONS.md");
    read(&fs::read_to_string(path).expect("the exceptions"))
}

/// The rows of the table, its head left out.
fn read(text: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let (name, reason) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
        Some((name.to_owned(), reason.to_owned()))
    };
    text.lines().filter_map(row).filter(|(name, _)| name != "scenario").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_nothing_else() {
        let text = "# Title\n\n| scenario | reason |\n|---|---|\n| a name | so it is |\ntext\n";
        let expected = BTreeMap::from([("a name".to_owned(), "so it is".to_owned())]);
        assert_eq!(read(text), expected);
    }
}
