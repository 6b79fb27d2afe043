//! Owns where the keys come from that seal stored answers: variables, or files that variables name. No
//! message shows any of a key.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Environment;
use super::knob::Resolver;
use crate::secret::shown;
use crate::store::redis::seal::{SealKeys, SealVersion};

/// What the names of the variables begin with; a version follows, and perhaps `_FILE`.
const PREFIX: &str = "TIDEGATE_SEAL_KEY_V";
/// Which version seals, if not the largest, or [`NONE`]: for a rotation over many gateways, and for its beginning.
pub const SEAL_WITH: &str = "TIDEGATE_SEAL_WITH";
/// Every key opens and none seals yet.
const NONE: &str = "none";
/// Whether answers that are not sealed are read as well: for a day after sealing began.
const READ_PLAIN: &str = "TIDEGATE_SEAL_READ_PLAIN";
const FILE: &str = "_FILE";
const REMEDY: &str = "write 64 hexadecimal digits (openssl rand -hex 32)";

/// What seals stored answers; `None` stores them as they are.
pub type Sealing = Option<Arc<SealKeys>>;

/// Whether a variable is one of these.
pub fn known(name: &str) -> bool {
    name == SEAL_WITH || name == READ_PLAIN || version(name).is_some()
}

/// The keys; `None` without any, or after a problem was noted.
pub fn seal(resolver: &mut Resolver<'_>) -> Sealing {
    let environment = resolver.environment();
    let (mut keys, mut problems) = (BTreeMap::new(), Vec::new());
    for name in environment.names() {
        let Some(version) = version(name) else { continue };
        match read(environment, name) {
            Ok(key) => {
                if keys.insert(version, key).is_some() {
                    problems.push(format!("{name}: {version} is given twice: unset one of them"));
                }
            }
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    let largest = keys.keys().next_back().copied();
    let with = environment.get(SEAL_WITH).map(str::trim).filter(|with| !with.is_empty());
    let seals = match with {
        None => largest.map(Some),
        Some(NONE) => largest.map(|_| None),
        Some(with) => {
            let named = with.strip_prefix('v').and_then(digits);
            let named = named.filter(|version| keys.contains_key(version));
            if named.is_none() {
                problems.push(format!(
                    "{SEAL_WITH} is {:?}, but no such key is given: write v1 and set {PREFIX}1, {NONE}, or unset it",
                    shown(with)
                ));
            }
            named.map(Some)
        }
    };
    if keys.is_empty() && with == Some(NONE) {
        problems.push(format!(
            "{SEAL_WITH} is {NONE:?}, but no key is given: set {PREFIX}1, or unset it"
        ));
    }
    let plain = environment.get(READ_PLAIN).map(str::trim).unwrap_or_default();
    if !["", "0", "1"].contains(&plain) {
        problems.push(format!("{READ_PLAIN} is {plain:?}: write 1, or unset it"));
    }
    if keys.is_empty() && plain == "1" {
        problems
            .push(format!("{READ_PLAIN} is set, but no key is given: set {PREFIX}1, or unset it"));
    }
    for problem in problems {
        resolver.problem(problem);
    }
    SealKeys::new(keys, seals?, plain == "1").map(Arc::new)
}

fn version(name: &str) -> Option<SealVersion> {
    let rest = name.strip_prefix(PREFIX)?;
    digits(rest.strip_suffix(FILE).unwrap_or(rest))
}

fn digits(text: &str) -> Option<SealVersion> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain).map(SealVersion)
}

fn read(environment: &Environment, name: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    let value = environment.get(name).unwrap_or_default().trim();
    if value.is_empty() {
        // Answers would be stored as they are, and nobody would notice.
        let what = if name.ends_with(FILE) { "the file's name" } else { "the key" };
        return Err(format!("is empty: write {what} into it or unset it"));
    }
    let text = if name.ends_with(FILE) {
        let read = std::fs::read_to_string(value);
        Zeroizing::new(read.map_err(|error| format!("{:?}: {error}", shown(value)))?)
    } else {
        Zeroizing::new(value.to_owned())
    };
    let text = text.trim().as_bytes();
    if text.len() != 64 {
        return Err(format!("{} characters: {REMEDY}", text.len()));
    }
    let mut key = Zeroizing::new([0; 32]);
    for (octet, pair) in key.iter_mut().zip(text.chunks(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let pair = match pair {
            [high, low] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let (high, low) = pair.ok_or_else(|| format!("no hexadecimal digit: {REMEDY}"))?;
        *octet = u8::try_from(high * 16 + low).unwrap_or_default();
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use crate::settings::{Environment, Settings, SettingsError};

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
    const TWO: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let own = [("TIDEGATE_TOKEN", "t")];
        let pairs = own.iter().chain(pairs);
        let pairs = pairs.map(|(name, value)| ((*name).into(), (*value).into()));
        let words = ["tidegate-gateway", "serve", "--redis-url", "redis://h:1"];
        Settings::parse(words, &Environment::new(pairs))
    }

    #[test]
    fn the_largest_version_seals_unless_another_is_named() {
        let keys = [("TIDEGATE_SEAL_KEY_V2", ONE), ("TIDEGATE_SEAL_KEY_V10", TWO)];
        let settings = parse(&keys).expect("sound");
        assert!(!settings.notes.iter().any(|note| note.contains("SEAL")), "{:?}", settings.notes);
        assert!(!format!("{settings:?} {settings}").contains("0102030405"));
        let shown = format!("{:?}", settings.seal);
        assert_eq!(shown, "Some([SealVersion(2), SealVersion(10)])");
        let [one, two] = keys;
        for with in ["v2", "none"] {
            assert!(parse(&[one, two, ("TIDEGATE_SEAL_WITH", with)]).is_ok(), "{with}");
        }
        assert!(parse(&[]).expect("sound").seal.is_none());
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("key");
        std::fs::write(&file, format!("{ONE}\n")).expect("a file");
        let of_file = ("TIDEGATE_SEAL_KEY_V1_FILE", file.to_str().expect("text"));
        assert!(parse(&[of_file]).expect("sound").seal.is_some());
    }

    #[test]
    fn what_cannot_be_names_the_variable_and_shows_no_key() {
        let one = ("TIDEGATE_SEAL_KEY_V1", ONE);
        for (pairs, expected) in [
            (vec![("TIDEGATE_SEAL_KEY_V1", &ONE[1..])], "TIDEGATE_SEAL_KEY_V1: 63 characters"),
            (vec![("TIDEGATE_SEAL_KEY_V1", &*ONE.replace('f', "g"))], "no hexadecimal digit"),
            (vec![one, ("TIDEGATE_SEAL_KEY_V1_FILE", "/no/such")], "/no/such"),
            (vec![("TIDEGATE_SEAL_KEY_V1", "")], "V1: is empty: write the key into it or unset it"),
            (vec![one, ("TIDEGATE_SEAL_KEY_V2", " \n")], "V2: is empty"),
            (vec![("TIDEGATE_SEAL_KEY_V1_FILE", "")], "V1_FILE: is empty: write the file's name"),
            (vec![one, ("TIDEGATE_SEAL_WITH", "v2")], "TIDEGATE_SEAL_WITH is \"v2\""),
            (vec![("TIDEGATE_SEAL_WITH", "v1")], "no such key is given"),
            (vec![("TIDEGATE_SEAL_WITH", "none")], "no key is given"),
            (vec![one, ("TIDEGATE_SEAL_READ_PLAIN", "yes")], "write 1, or unset it"),
            (vec![("TIDEGATE_SEAL_READ_PLAIN", "1")], "no key is given"),
        ] {
            let error = parse(&pairs).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("0405"), "{error}");
        }
        let settings = parse(&[("TIDEGATE_SEAL_KEY_VX", ONE)]).expect("no setting of ours");
        assert!(settings.notes.iter().any(|note| note.contains("TIDEGATE_SEAL_KEY_VX")));
    }
}
