//! From a file or a text to a scenario, with errors a person can act on. It must not know what the parts mean.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::file::RawScenario;
use super::plan::Scenario;
use super::values::with_room;

/// A scenario that cannot be used. The text names the file, and the place or the field in it.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file itself.
    #[error("{}: cannot be read; is the path right?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its YAML, or a field that does not exist or has the wrong type.
    #[error("{file}:{line}:{column}: {problem}")]
    Parse {
        /// The file, or `scenario` for a text.
        file: String,
        /// Counted from 1; 0 when unknown.
        line: u64,
        /// Counted from 1; 0 when unknown.
        column: u64,
        /// What is wrong, with the field's name.
        problem: String,
    },
    /// Something that only makes no sense as a whole.
    #[error("{file}: {problem}")]
    Meaning {
        /// The file, or `scenario` for a text.
        file: String,
        /// What is wrong, with the field or the line.
        problem: String,
    },
}

impl Scenario {
    /// Reads a scenario file. Paths in it start at its folder.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ScenarioError> {
        let path = path.as_ref();
        let text = read_bounded(path)
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        parse(&text, &path.display().to_string(), path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a scenario from text. Paths in it start at the working directory.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        parse(text, "scenario", Path::new(""))
    }
}

/// A scenario or a configuration; longer ones are a mistake, and some files have no end.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads a file that a scenario is or names.
pub(super) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= FILE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(std::io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")))
    }
}

fn parse(text: &str, file: &str, folder: &Path) -> Result<Scenario, ScenarioError> {
    let raw: RawScenario = with_room(|| serde_saphyr::from_str_with_options(text, options()))
        .map_err(|error| parse_error(&error, file))?;
    Scenario::plan(&raw, folder)
        .map_err(|problem| ScenarioError::Meaning { file: file.to_owned(), problem })
}

/// What a few characters of YAML may become by repetition.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 10_000,
            max_recorded_anchor_bytes: 16 * 1024 * 1024,
            max_total_scalar_bytes: 32 * 1024 * 1024,
        },
    }
}

fn parse_error(error: &serde_saphyr::Error, file: &str) -> ScenarioError {
    let error = error.without_snippet();
    let place = error.location();
    ScenarioError::Parse {
        file: file.to_owned(),
        line: place.map_or(0, |place| place.line()),
        column: place.map_or(0, |place| place.column()),
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = "name: x
plugin: { wasm: p.wasm, config: { a: [1, 2.5, null, true] }, env: { A: b } }
host: { workers: 2, until: 5s, properties: { a.b: { c: 1 } } }
gateway: [{ on: POST /v1/decide, answer: { status: 200, body: '{{request.json./id}}' }, after: 20ms, times: 1 }]
timeline: [{ at: 0ms, client: a, send: { headers: [[x, { hex: ff }]], chunks: [{ after: 1ms, data: [a, b] }] } }]
expect: [{ client: a, status: 200, at: 1ms..2ms, body: { json: { /a: 1 } } }]
";

    proptest! {
        #[test]
        fn a_damaged_file_is_an_error_and_no_panic(at in 0..WHOLE.len(), len in 0..40usize, text in "[ -~\\n]{0,12}") {
            let mut damaged = WHOLE.to_owned();
            let end = (at + len).min(WHOLE.len());
            damaged.replace_range(at..end, &text);
            if let Err(error) = Scenario::parse(&damaged) {
                prop_assert!(error.to_string().starts_with("scenario:"));
            }
        }
    }

    #[test]
    fn the_whole_file_is_right() {
        assert_eq!(Scenario::parse(WHOLE).unwrap().name(), "x");
    }
}
