//! Owns the private keys that sign audit records: where they come from, which of them signs, and Ed25519
//! for signing and checking. No key ever shows in a message, and each is wiped when it is dropped.
//!
//! `AUDIT_PRIVATE_KEY_V1`, `AUDIT_PRIVATE_KEY_V2`, … hold PKCS#8 PEM (`\n` may stand for line ends), or
//! `AUDIT_PRIVATE_KEY_V1_FILE` names a file. `AUDIT_PRIVATE_KEY` (and `_FILE`) is the key without a version,
//! `v0`. `AUDIT_PRIVATE_KEY_DIR` names a folder of files `v1.pem`, `v2.pem`, … and perhaps `revoked`, which is read
//! again while the gateway runs. The largest version signs that `REVOKED_KEY_VERSIONS` (`v1,v2`) does not name.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use tidegate_policy::audit::record::{KeyVersion, SignatureCheck, Signer};
use zeroize::Zeroizing;

use crate::secret::shown;
use crate::settings::Environment;

/// What the names of the variables begin with.
pub const PREFIX: &str = "AUDIT_PRIVATE_KEY";
/// Which versions must not sign.
pub const REVOKED: &str = "REVOKED_KEY_VERSIONS";
const FILE: &str = "_FILE";
/// A folder of keys.
pub const DIR: &str = "AUDIT_PRIVATE_KEY_DIR";
/// The file in it that does what [`REVOKED`] does.
const REVOKED_FILE: &str = "revoked";

/// The keys that were given.
pub struct SigningKeys {
    keys: BTreeMap<KeyVersion, SigningKey>,
    revoked: BTreeSet<KeyVersion>,
}

/// Where keys are read, again and again. Holds what the environment holds.
#[derive(Clone)]
pub struct KeySource(Environment);

/// The key that signs.
pub struct Current {
    version: KeyVersion,
    key: SigningKey,
}

/// Checks signatures, strictly: no weak keys, and one signature only per message and key.
#[derive(Debug, Clone, Copy)]
pub struct Ed25519;

// === impl KeySource ===

impl KeySource {
    /// Of the environment what names keys; `None` if nothing does.
    pub fn of(environment: &Environment) -> Option<Self> {
        let ours = |name: &str| name.starts_with(PREFIX) || name == REVOKED;
        let own = environment.only(ours);
        let given = own.names().any(|name| {
            name != REVOKED && own.get(name).is_some_and(|value| !value.trim().is_empty())
        });
        given.then_some(Self(own))
    }

    /// The keys as they are now, and what of them cannot be read.
    pub fn read(&self) -> (SigningKeys, Vec<String>) {
        SigningKeys::gather(&self.0)
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.names()).finish()
    }
}

// === impl SigningKeys ===

impl SigningKeys {
    /// Reads all keys that the environment names. Every problem at once, each with its variable; none of
    /// them shows any of a key.
    pub fn from_environment(environment: &Environment) -> Result<Self, Vec<String>> {
        let (keys, problems) = Self::gather(environment);
        if problems.is_empty() { Ok(keys) } else { Err(problems) }
    }

    /// Reads what can be read, and says what cannot: a revocation must not wait for somebody to mend a file
    /// that has nothing to do with it.
    fn gather(environment: &Environment) -> (Self, Vec<String>) {
        let (mut keys, mut problems) = (BTreeMap::new(), Vec::new());
        let mut take = |name: &str, read: Result<(KeyVersion, SigningKey), String>| match read {
            Ok((version, key)) => {
                if let Entry::Vacant(free) = keys.entry(version) {
                    free.insert(key);
                } else {
                    problems.push(format!("{name}: {version} is given twice: unset one of them"));
                }
            }
            Err(problem) => problems.push(format!("{name}: {problem}")),
        };
        let set = |name: &&str| environment.get(name).is_some_and(|value| !value.trim().is_empty());
        let names = environment.names().filter(|name| name.starts_with(PREFIX));
        for name in names.filter(|name| *name != DIR).filter(set) {
            take(name, read(name, environment.get(name).unwrap_or_default()));
        }
        let mut unread = Vec::new();
        let mut revoked_names = environment.get(REVOKED).unwrap_or_default().to_owned();
        if let Some(dir) = environment.get(DIR).filter(|dir| !dir.trim().is_empty()) {
            let text = dir.trim();
            let dir = Path::new(text);
            let found = listed(dir).unwrap_or_else(|error| {
                unread.push(format!("{DIR}: {:?}: {error}", shown(text)));
                Vec::new()
            });
            for (path, version) in found {
                let read = pem(&path).and_then(|pem| parsed(&pem));
                take(&path.display().to_string(), read.map(|key| (version, key)));
            }
            match std::fs::read_to_string(dir.join(REVOKED_FILE)) {
                Ok(revoked) => revoked_names = format!("{revoked_names},{revoked}"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    unread.push(format!("{DIR}: {:?}: {REVOKED_FILE}: {error}", shown(text)))
                }
            }
        }
        problems.append(&mut unread);
        let mut revoked = BTreeSet::new();
        let names = revoked_names.split([',', '\n']);
        for name in names.map(str::trim).filter(|name| !name.is_empty()) {
            match KeyVersion::new(name) {
                Some(version) => drop(revoked.insert(version)),
                None => problems
                    .push(format!("{REVOKED}: {:?} is no version: write v1,v2", shown(name))),
            }
        }
        (Self { keys, revoked }, problems)
    }

    /// Where not all could be read: what was in force before stays, and so does every revocation.
    pub fn or_else(mut self, before: &Self) -> Self {
        for (version, key) in &before.keys {
            self.keys.entry(*version).or_insert_with(|| key.clone());
        }
        self.revoked.extend(&before.revoked);
        self
    }

    /// Whether no key was given at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The version that signs from now on.
    pub fn signing_version(&self) -> Option<KeyVersion> {
        self.keys.keys().rev().find(|version| !self.revoked.contains(version)).copied()
    }

    /// The key that signs from now on.
    pub fn current(&self) -> Result<Current, String> {
        let version = self.signing_version();
        let found = version.and_then(|version| Some((version, self.keys.get(&version)?)));
        let (version, key) = found.ok_or_else(|| {
            format!("every key of {PREFIX}_V… is named by {REVOKED}: give one that is not")
        })?;
        Ok(Current { version, key: key.clone() })
    }

    /// Versions, public keys, and whether they are revoked.
    pub fn public(&self) -> impl Iterator<Item = (KeyVersion, [u8; 32], bool)> {
        self.keys.iter().map(|(version, key)| {
            (*version, key.verifying_key().to_bytes(), self.revoked.contains(version))
        })
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.keys()).finish()
    }
}

fn read(name: &str, value: &str) -> Result<(KeyVersion, SigningKey), String> {
    let middle = name.strip_prefix(PREFIX).unwrap_or_default();
    let (middle, file) = match middle.strip_suffix(FILE) {
        Some(middle) => (middle, true),
        None => (middle, false),
    };
    let version = match middle {
        "" => Some(KeyVersion(0)),
        _ => middle.strip_prefix("_V").and_then(|digits| KeyVersion::new(&format!("v{digits}"))),
    };
    let version =
        version.ok_or_else(|| format!("no version: write {PREFIX}_V1, {PREFIX}_V2, …"))?;
    let pem = if file {
        pem(Path::new(value.trim()))?
    } else {
        Zeroizing::new(value.replace("\\n", "\n"))
    };
    Ok((version, parsed(&pem)?))
}

fn pem(path: &Path) -> Result<Zeroizing<String>, String> {
    let read = std::fs::read_to_string(path).map(Zeroizing::new);
    read.map_err(|error| format!("{:?}: {error}", shown(&path.to_string_lossy())))
}

fn parsed(pem: &str) -> Result<SigningKey, String> {
    SigningKey::from_pkcs8_pem(pem.trim())
        .map_err(|error| format!("no Ed25519 key in PKCS#8 PEM ({error}): see tidegate-audit keys"))
}

/// The folder's keys by version.
fn listed(dir: &Path) -> std::io::Result<Vec<(PathBuf, KeyVersion)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(version) = name.strip_suffix(".pem").and_then(KeyVersion::new) {
            found.push((path, version));
        }
    }
    Ok(found)
}

// === impl Current ===

impl Signer for Current {
    fn version(&self) -> KeyVersion {
        self.version
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Current({})", self.version)
    }
}

// === impl Ed25519 ===

impl SignatureCheck for Ed25519 {
    fn check(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(public_key)
            .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 §10.3: the example of a private key.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

    fn keys<const N: usize>(pairs: [(&str, &str); N]) -> Result<SigningKeys, Vec<String>> {
        SigningKeys::from_environment(&Environment::from(pairs))
    }

    #[test]
    fn the_largest_version_that_is_not_revoked_signs() {
        let folded = PEM.replace('\n', "\\n");
        for (revoked, expected) in [("", 10), ("v10", 2), (" v10, v2", 0)] {
            let keys = keys([
                ("AUDIT_PRIVATE_KEY", PEM),
                ("AUDIT_PRIVATE_KEY_V2", &folded),
                ("AUDIT_PRIVATE_KEY_V10", PEM),
                ("AUDIT_PRIVATE_KEY_V11", ""),
                ("REVOKED_KEY_VERSIONS", revoked),
            ]);
            let keys = keys.expect("sound");
            assert_eq!(keys.current().expect("a key").version(), KeyVersion(expected));
            assert_eq!(keys.public().count(), 3);
        }
        let none = keys([("AUDIT_PRIVATE_KEY_V1", PEM), ("REVOKED_KEY_VERSIONS", "v1")]);
        assert!(none.expect("read").current().expect_err("none left").contains("REVOKED"));
        assert!(keys([]).expect("none").is_empty());
    }

    #[test]
    fn a_key_may_lie_in_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("v3.pem");
        std::fs::write(&path, PEM).expect("written");
        let path = path.display().to_string();
        let keys = keys([("AUDIT_PRIVATE_KEY_V3_FILE", path.as_str())]).expect("sound");
        assert_eq!(keys.current().expect("a key").version(), KeyVersion(3));
    }

    #[test]
    fn problems_name_the_variable_and_show_nothing_of_a_key() {
        let broken = PEM.replace("MC4C", "MC4D");
        let problems = keys([
            ("AUDIT_PRIVATE_KEY_V1", &broken),
            ("AUDIT_PRIVATE_KEY_V2_FILE", "/nowhere/key.pem"),
            ("AUDIT_PRIVATE_KEY_V03", PEM),
            ("AUDIT_PRIVATE_KEY_X", PEM),
            ("REVOKED_KEY_VERSIONS", "v1,2"),
        ])
        .expect_err("all wrong");
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(
            problems.iter().all(|problem| !problem.contains("MC4") && !problem.contains("INTu"))
        );
        let shown = format!("{:?}", keys([("AUDIT_PRIVATE_KEY_V1", PEM)]).expect("sound"));
        assert_eq!(shown, "[KeyVersion(1)]");
    }

    /// The key itself where its file's path belongs, or its folder's.
    #[test]
    fn a_key_in_a_paths_place_is_not_shown() {
        let folded = PEM.replace('\n', "\\n");
        for pem in [PEM, &folded] {
            let names =
                ["AUDIT_PRIVATE_KEY_V1_FILE", "AUDIT_PRIVATE_KEY_DIR", "REVOKED_KEY_VERSIONS"];
            for name in names {
                let problems = keys([(name, pem)]).expect_err("no path").join(" ");
                assert!(problems.contains(name) && !problems.contains("INTu"), "{problems}");
            }
        }
    }

    /// Nothing else holds a key: the texts that it was read from are wiped, too.
    #[test]
    fn keys_are_wiped_when_they_are_dropped() {
        fn is_wiped<T: zeroize::ZeroizeOnDrop>() {}
        is_wiped::<SigningKey>();
        is_wiped::<Zeroizing<String>>();
    }

    #[test]
    fn what_is_signed_checks_and_nothing_else_does() {
        let keys = keys([("AUDIT_PRIVATE_KEY_V1", PEM)]).expect("sound");
        let (_, public, _) = keys.public().next().expect("one");
        let signature = keys.current().expect("a key").sign(b"message");
        assert!(Ed25519.check(&public, b"message", &signature));
        assert!(!Ed25519.check(&public, b"massage", &signature));
        // The neutral element as a key verifies anything where checks are not strict.
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut forged = [0; 64];
        forged[0] = 1;
        assert!(!Ed25519.check(&weak, b"message", &forged));
    }
}
