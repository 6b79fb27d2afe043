//! Owns where secrets come from and how they are kept from being seen. Knows neither what they
//! open nor who asks.
//!
//! A secret is given by value (environment) or by file; a file is read again about once a second,
//! so a rotation needs no restart. A file that turns unreadable or wrong leaves the last good
//! secret in force. Several files that belong together (a certificate and its key) are one secret:
//! all of them are read, and they are in force together or not at all. Source: product row H4.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use zeroize::Zeroizing;

/// A text that never shows in `Debug` or `Display`, and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// Where a secret is given.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The value of an environment variable.
    Value {
        /// The variable's name.
        variable: &'static str,
        /// What it holds.
        secret: Secret,
    },
    /// A file, read again when its content changes.
    File {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
}

/// Why a secret cannot be used. Never shows any of it.
#[derive(thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{flag}: cannot read {}", shown_path(path))]
    Unreadable {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The content is not what it should be.
    #[error("{place}: {problem}")]
    Unusable {
        /// The flag or variable, and the file if there is one.
        place: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

/// What is read and parsed, again and again.
pub trait Origin: Send + Sync + 'static {
    /// What is read; compared to notice a change.
    type Text: Clone + PartialEq + Send;
    /// What it says.
    type Value: Send + Sync;

    /// Its name for messages.
    fn place(&self) -> String;
    /// Reads it.
    fn read(&self) -> Result<Self::Text, SecretError>;
    /// Understands it. The error says what is wrong without showing the secret.
    fn parse(&self, text: &Self::Text) -> Result<Self::Value, SecretError>;
}

/// What a secret of one source is parsed by. The error says what is wrong without showing the
/// secret.
pub type Parse<T> = fn(&Secret) -> Result<T, String>;

/// One source, and what its text means.
pub struct Parsed<T> {
    /// Where it is read.
    pub source: SecretSource,
    /// What it is parsed by.
    pub parse: Parse<T>,
}

/// The longest value that is shown as a path.
const PATH_LEN_MAX: usize = 256;
/// The longest one without a folder: names of files are short, and secrets are not.
const NAME_LEN_MAX: usize = 20;

/// A parsed secret that follows its origin.
pub struct Watched<O: Origin> {
    origin: O,
    current: RwLock<Arc<O::Value>>,
    last_read: Mutex<O::Text>,
}

/// A path for messages, unless it might be the secret itself: who writes that where its file belongs
/// should not find it in the log.
pub fn shown(path: &str) -> String {
    let is_text = !path.chars().any(char::is_control) && !path.contains("-----BEGIN");
    let has_folder = ["/", "./", "../"].iter().any(|start| path.starts_with(start));
    let length_max = if has_folder { PATH_LEN_MAX } else { NAME_LEN_MAX };
    if is_text && path.len() < length_max {
        path.to_owned()
    } else {
        "(not shown, since it may be the secret itself: write the path of its file)".to_owned()
    }
}

/// The same of a path.
fn shown_path(path: &std::path::Path) -> String {
    shown(&path.to_string_lossy())
}

// === impl Secret ===

impl Secret {
    /// Keeps `text`, without the white space around it.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl SecretSource ===

impl SecretSource {
    /// The source's name for messages: the variable, or the flag and the file.
    pub fn place(&self) -> String {
        match self {
            Self::Value { variable, .. } => (*variable).to_owned(),
            Self::File { flag, path } => format!("{flag} ({})", shown_path(path)),
        }
    }

    /// What it holds now.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Value { secret, .. } => Ok(secret.clone()),
            Self::File { flag, path } => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Secret::new(&Zeroizing::new(text))),
                Err(source) => Err(SecretError::Unreadable { flag, path: path.clone(), source }),
            },
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSource({})", self.place())
    }
}

// === impl SecretError ===

impl fmt::Debug for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretError({self})")
    }
}

// === impl Parsed ===

impl<T: Send + Sync + 'static> Origin for Parsed<T> {
    type Text = Secret;
    type Value = T;

    fn place(&self) -> String {
        self.source.place()
    }

    fn read(&self) -> Result<Secret, SecretError> {
        self.source.read()
    }

    fn parse(&self, text: &Secret) -> Result<T, SecretError> {
        let unusable = |problem| SecretError::Unusable { place: self.source.place(), problem };
        if text.reveal().is_empty() {
            return Err(unusable("is empty: write the secret into it".to_owned()));
        }
        (self.parse)(text).map_err(unusable)
    }
}

// === impl Watched ===

impl<O: Origin> Watched<O> {
    /// Reads and parses the origin for the first time.
    pub fn open(origin: O) -> Result<Self, SecretError> {
        let text = origin.read()?;
        let current = RwLock::new(Arc::new(origin.parse(&text)?));
        Ok(Self { origin, current, last_read: Mutex::new(text) })
    }

    /// The secret in force.
    pub fn current(&self) -> Arc<O::Value> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the origin again. `Ok(true)` if a new secret is in force; on an error the last good
    /// one stays. A content that was refused once is not reported again until it changes.
    pub fn refresh(&self) -> Result<bool, SecretError> {
        let text = self.origin.read()?;
        let mut last = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == text {
            return Ok(false);
        }
        last.clone_from(&text);
        let parsed = self.origin.parse(&text)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(parsed);
        Ok(true)
    }

    /// Its name for messages.
    pub fn place(&self) -> String {
        self.origin.place()
    }
}

/// What was told of a secret that cannot be read again: each problem once, until it is gone.
#[derive(Debug, Default)]
pub struct Problem(Option<String>);

// === impl Problem ===

impl Problem {
    /// The secret could be read.
    pub fn is_gone(&mut self) {
        self.0 = None;
    }

    /// Whether this is another one than was told last.
    pub fn is_news(&mut self, problem: String) -> bool {
        let told = self.0.replace(problem);
        told != self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(secret: &Secret) -> Result<String, String> {
        match secret.reveal() {
            "bad" => Err("holds a bad word".to_owned()),
            text => Ok(text.to_owned()),
        }
    }

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("hunter2");
        let source = SecretSource::Value { variable: "TIDEGATE_TOKEN", secret: secret.clone() };
        let shown = format!("{secret} {secret:?} {source:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    /// That memory is cleared nobody can look at; that its type does it the compiler can.
    #[test]
    fn a_secret_is_of_a_type_that_wipes_itself() {
        fn wipes(_: &impl zeroize::ZeroizeOnDrop) {}
        wipes(&Secret::new("hunter2").0);
    }

    /// Where the file's path belongs, the secret itself is a common mistake.
    #[test]
    fn a_secret_in_its_files_place_never_shows() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n";
        let folded = pem.replace('\n', "\\n");
        let long = format!("/{}", "x".repeat(300));
        let digits = "000102030405060708090a0b0c0d0e0f";
        for secret in [pem, &folded, &long, digits, "t0p\nsecret"] {
            let source = SecretSource::File { flag: "--token-file", path: secret.into() };
            let error = source.read().expect_err("no file");
            let shown = format!("{error} {error:?} {source:?} {}", source.place());
            assert!(!shown.contains(secret) && shown.contains("--token-file"), "{shown}");
            assert!(!shown.contains("MC4") && shown.contains("the path of its file"), "{shown}");
        }
        for path in ["/run/secrets/token", "../token", "token.txt"] {
            assert_eq!(shown(path), path);
        }
    }

    #[test]
    fn a_file_is_followed_and_a_bad_one_leaves_the_last_good_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        std::fs::write(&path, " first\n").expect("written");
        let source = SecretSource::File { flag: "--token-file", path: path.clone() };
        let watched = Watched::open(Parsed { source, parse: word }).expect("a sound secret");
        assert_eq!(*watched.current(), "first");
        assert!(!watched.refresh().expect("unchanged"));

        std::fs::write(&path, "second\n").expect("written");
        assert!(watched.refresh().expect("changed"));
        assert_eq!(*watched.current(), "second");

        std::fs::write(&path, "bad").expect("written");
        let error = watched.refresh().expect_err("refused").to_string();
        assert!(error.ends_with("holds a bad word"), "{error}");
        assert!(!watched.refresh().expect("reported once"));
        assert_eq!(*watched.current(), "second");

        std::fs::remove_file(&path).expect("removed");
        let error = watched.refresh().expect_err("gone").to_string();
        assert!(error.contains("--token-file: cannot read"), "{error}");
        assert_eq!(*watched.current(), "second");
    }

    #[test]
    fn a_problem_is_told_once_and_again_once_it_is_another_or_was_gone() {
        let mut problem = Problem::default();
        let mut told = |what: &str| problem.is_news(what.to_owned());
        let seen = [told("no file"), told("no file"), told("no key"), told("no file")];
        assert_eq!(seen, [true, false, true, true]);
        problem.is_gone();
        assert!(problem.is_news("no file".to_owned()));
    }

    #[test]
    fn an_empty_secret_is_refused() {
        let source = SecretSource::Value { variable: "TIDEGATE_TOKEN", secret: Secret::new(" \n") };
        let error =
            Watched::open(Parsed { source, parse: word }).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("TIDEGATE_TOKEN: is empty: write the secret into it"));
    }
}
