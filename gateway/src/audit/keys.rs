//! Owns the private keys that sign audit records: where they come from, which of them signs, and Ed25519
//! for signing and checking. No key ever shows in a message, and each is wiped when it is dropped.
//!
//! `AUDIT_PRIVATE_KEY_V1`, `AUDIT_PRIVATE_KEY_V2`, … hold PKCS#8 PEM (`\n` may stand for line ends), or
//! `AUDIT_PRIVATE_KEY_V1_FILE` names a file. `AUDIT_PRIVATE_KEY` (and `_FILE`) is the key without a version,
//! `v0`. `AUDIT_PRIVATE_KEY_DIR` names a folder of files `v1.pem`, `v2.pem`, … and perhaps `revoked`, which is read
//! again while the gateway runs. The largest version signs that `REVOKED_KEY_VERSIONS` (`v1,v2`) does not name.
//!
//! `AUDIT_PUBLIC_KEY_V1`, `AUDIT_PUBLIC_KEY_V1_FILE` and files `v1.pub` in the folder hold keys that only verify, as
//! PEM (SPKI): of a private key that was destroyed, or that has not come here yet.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use tidegate_policy::audit::record::{KeyVersion, SignatureCheck, Signer};
use zeroize::Zeroizing;

use crate::secret::shown;
use crate::settings::Environment;

/// What the names of the variables begin with.
pub const PREFIX: &str = "AUDIT_PRIVATE_KEY";
/// The same of keys that only verify.
pub const PUBLIC: &str = "AUDIT_PUBLIC_KEY";
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
    /// Those whose private half is elsewhere, or nowhere.
    public: BTreeMap<KeyVersion, [u8; 32]>,
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
        let ours = |name: &str| [PREFIX, PUBLIC, REVOKED].iter().any(|own| name.starts_with(own));
        let own = environment.only(ours);
        let given = own.names().any(|name| {
            name.starts_with(PREFIX) && own.get(name).is_some_and(|value| !value.trim().is_empty())
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
        let (mut keys, mut public, mut problems) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for name in environment.names().filter(|name| *name != DIR) {
            let value = environment.get(name).unwrap_or_default();
            if value.trim().is_empty() {
                continue;
            }
            if let Some(middle) = name.strip_prefix(PREFIX) {
                let read = read(middle, value, PREFIX, parsed);
                put(&mut keys, &mut problems, name, read);
            } else if let Some(middle) = name.strip_prefix(PUBLIC) {
                let read = read(middle, value, PUBLIC, parsed_public);
                put(&mut public, &mut problems, name, read);
            }
        }
        let mut revoked_names = environment.get(REVOKED).unwrap_or_default().to_owned();
        if let Some(text) = environment.get(DIR).map(str::trim).filter(|dir| !dir.is_empty()) {
            let named = |error| format!("{DIR}: {:?}: {error}", shown(text));
            let dir = Path::new(text);
            let found = listed(dir).unwrap_or_else(|error| {
                problems.push(named(error.to_string()));
                Vec::new()
            });
            for (path, version, is_private) in found {
                let (name, pem) = (path.display().to_string(), pem(&path));
                if is_private {
                    let read = pem.and_then(|pem| Ok((version, parsed(&pem)?)));
                    put(&mut keys, &mut problems, &name, read);
                } else {
                    let read = pem.and_then(|pem| Ok((version, parsed_public(&pem)?)));
                    put(&mut public, &mut problems, &name, read);
                }
            }
            match std::fs::read_to_string(dir.join(REVOKED_FILE)) {
                Ok(revoked) => revoked_names = format!("{revoked_names},{revoked}"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => problems.push(named(format!("{REVOKED_FILE}: {error}"))),
            }
        }
        // With both halves at hand the private one says which the other is.
        public.retain(|version, public| {
            let Some(key) = keys.get(version) else { return true };
            if key.verifying_key().to_bytes() != *public {
                problems.push(format!("{version}: the public key is not that of the private one"));
            }
            false
        });
        let mut revoked = BTreeSet::new();
        let names = revoked_names.split([',', '\n']);
        for name in names.map(str::trim).filter(|name| !name.is_empty()) {
            match KeyVersion::new(name) {
                Some(version) => drop(revoked.insert(version)),
                None => problems
                    .push(format!("{REVOKED}: {:?} is no version: write v1,v2", shown(name))),
            }
        }
        (Self { keys, public, revoked }, problems)
    }

    /// Where not all could be read: what was in force before stays, and so does every revocation.
    pub fn or_else(mut self, before: &Self) -> Self {
        for (version, key) in &before.keys {
            self.keys.entry(*version).or_insert_with(|| key.clone());
        }
        for (version, public) in &before.public {
            self.public.entry(*version).or_insert(*public);
        }
        self.public.retain(|version, _| !self.keys.contains_key(version));
        self.revoked.extend(&before.revoked);
        self
    }

    /// What was revoked stays so while the process runs: a file that is gone is no word of anybody's. The versions that are
    /// named no more.
    pub fn stay_revoked(&mut self, before: &Self) -> Vec<KeyVersion> {
        let unnamed: Vec<KeyVersion> = before.revoked.difference(&self.revoked).copied().collect();
        self.revoked.extend(&unnamed);
        unnamed
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
        let own = self.keys.iter().map(|(version, key)| (*version, key.verifying_key().to_bytes()));
        let all = own.chain(self.public.iter().map(|(version, public)| (*version, *public)));
        all.map(|(version, public)| (version, public, self.revoked.contains(&version)))
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.keys()).finish()
    }
}

fn put<K>(
    keys: &mut BTreeMap<KeyVersion, K>,
    problems: &mut Vec<String>,
    name: &str,
    read: Result<(KeyVersion, K), String>,
) {
    match read {
        Ok((version, key)) => match keys.entry(version) {
            Entry::Vacant(free) => drop(free.insert(key)),
            Entry::Occupied(_) => {
                problems.push(format!("{name}: {version} is given twice: unset one of them"));
            }
        },
        Err(problem) => problems.push(format!("{name}: {problem}")),
    }
}

/// The key of the variable whose name goes on with `middle` behind `prefix`.
fn read<K>(
    middle: &str,
    value: &str,
    prefix: &str,
    parse: fn(&str) -> Result<K, String>,
) -> Result<(KeyVersion, K), String> {
    let (middle, file) = match middle.strip_suffix(FILE) {
        Some(middle) => (middle, true),
        None => (middle, false),
    };
    let version = match middle {
        "" => Some(KeyVersion(0)),
        _ => middle.strip_prefix("_V").and_then(|digits| KeyVersion::new(&format!("v{digits}"))),
    };
    let version =
        version.ok_or_else(|| format!("no version: write {prefix}_V1, {prefix}_V2, …"))?;
    let pem = if file {
        pem(Path::new(value.trim()))?
    } else {
        Zeroizing::new(value.replace("\\n", "\n"))
    };
    Ok((version, parse(&pem)?))
}

fn pem(path: &Path) -> Result<Zeroizing<String>, String> {
    let read = std::fs::read_to_string(path).map(Zeroizing::new);
    read.map_err(|error| format!("{:?}: {error}", shown(&path.to_string_lossy())))
}

fn parsed(pem: &str) -> Result<SigningKey, String> {
    SigningKey::from_pkcs8_pem(pem.trim())
        .map_err(|error| format!("no Ed25519 key in PKCS#8 PEM ({error}): see tidegate-audit keys"))
}

fn parsed_public(pem: &str) -> Result<[u8; 32], String> {
    VerifyingKey::from_public_key_pem(pem.trim()).map(|key| key.to_bytes()).map_err(|error| {
        format!(
            "no public Ed25519 key in PEM ({error}): openssl pkey -in v1.pem -pubout -out v1.pub"
        )
    })
}

/// The folder's keys by version, and whether they are private.
fn listed(dir: &Path) -> std::io::Result<Vec<(PathBuf, KeyVersion, bool)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((version, kind)) = name.rsplit_once('.') else { continue };
        if let (Some(version), "pem" | "pub") = (KeyVersion::new(version), kind) {
            let is_private = kind == "pem";
            found.push((path, version, is_private));
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
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;

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

    /// Of a key that was destroyed only the public half is left.
    #[test]
    fn a_public_key_verifies_and_never_signs() {
        use ed25519_dalek::pkcs8::EncodePublicKey;
        let public = |seed: u8| {
            let key = SigningKey::from_bytes(&[seed; 32]).verifying_key();
            (key.to_bytes(), key.to_public_key_pem(LineEnding::LF).expect("a key"))
        };
        let ((first, first_pem), (third, third_pem)) = (public(1), public(3));
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("v2.pem"), PEM).expect("written");
        std::fs::write(dir.path().join("v1.pub"), &first_pem).expect("written");
        std::fs::write(dir.path().join("revoked"), "v1\n").expect("written");
        let folder = dir.path().display().to_string();
        let given =
            [("AUDIT_PRIVATE_KEY_DIR", folder.as_str()), ("AUDIT_PUBLIC_KEY_V3", &third_pem)];
        let read = keys(given).expect("sound");
        assert_eq!(read.signing_version(), Some(KeyVersion(2)));
        let all: BTreeMap<_, _> =
            read.public().map(|(version, key, is)| (version.0, (key, is))).collect();
        assert_eq!((all.len(), all[&1], all[&3]), (3, (first, true), (third, false)));
        // Beside its private half it has to be the same key.
        std::fs::write(dir.path().join("v2.pub"), first_pem).expect("written");
        let problems = keys(given).expect_err("another key").join(" ");
        assert!(problems.contains("v2"), "{problems}");
        assert!(
            KeySource::of(&Environment::from([("AUDIT_PUBLIC_KEY_V3", third_pem.as_str())]))
                .is_none()
        );
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
