//! Owns which audit keys are in force while the gateway runs: reading them again and again, what stays of
//! them where something cannot be read, and the alarm while none may sign. Knows neither events nor stores.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::keys::{Key, KeyRing, Revocation};
use tidegate_policy::audit::record::{ChainName, KeyVersion};

use super::chain_end::{SharedKeys, SharedSigner};
use super::counters::ChainCounters;
use super::keys::{KeySource, SigningKeys};
use crate::clock::Clock;

/// Between two looks at the keys.
const FOLLOW: Duration = Duration::from_secs(1);
/// Between two alarms that nothing can be signed.
const ALARM_US: u64 = 60_000_000;

/// The keys in force.
pub struct Following {
    chain: ChainName,
    source: KeySource,
    in_force: SigningKeys,
    signer: SharedSigner,
    ring: SharedKeys,
    clock: Arc<dyn Clock>,
    counters: ChainCounters,
    /// What could not be read, as it was told.
    told: Vec<String>,
    /// Revoked versions that nothing names any more, as it was told.
    unnamed: Vec<String>,
    alarmed_us: Option<u64>,
}

// === impl Following ===

impl Following {
    /// Reads the keys. At the start all of them have to be readable, and one has to sign.
    pub fn begin(
        chain: ChainName,
        source: KeySource,
        clock: Arc<dyn Clock>,
        counters: ChainCounters,
    ) -> Result<Self, String> {
        let (in_force, problems) = source.read();
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        let signer: SharedSigner = Arc::new(RwLock::new(Some(Arc::new(in_force.current()?))));
        let ring = Arc::new(RwLock::new(Arc::new(key_ring(&chain, &in_force))));
        let (told, unnamed, alarmed_us) = (Vec::new(), Vec::new(), None);
        Ok(Self {
            chain,
            source,
            in_force,
            signer,
            ring,
            clock,
            counters,
            told,
            unnamed,
            alarmed_us,
        })
    }

    /// Who signs from now on.
    pub fn signer(&self) -> SharedSigner {
        Arc::clone(&self.signer)
    }

    /// By what signatures are checked from now on.
    pub fn ring(&self) -> SharedKeys {
        Arc::clone(&self.ring)
    }

    /// Follows until it is dropped, or nobody wants to be told of changes any more.
    pub async fn run(mut self, mut tell: impl FnMut(String) -> bool) {
        loop {
            self.clock.sleep(FOLLOW).await;
            let changes = self.look();
            if !changes.into_iter().all(&mut tell) {
                return;
            }
        }
    }

    /// Reads the keys again. What cannot be read leaves in force what was; a revocation that can be read
    /// always counts, whatever else is wrong.
    fn look(&mut self) -> Vec<String> {
        let (read, problems) = self.source.read();
        let mut keys = if problems.is_empty() { read } else { read.or_else(&self.in_force) };
        let unnamed = keys.stay_revoked(&self.in_force);
        let unnamed: Vec<String> = unnamed.iter().map(KeyVersion::to_string).collect();
        if unnamed != self.unnamed && !unnamed.is_empty() {
            tracing::error!(
                critical = true, chain = %self.chain, versions = unnamed.join(","),
                "audit keys are not named as revoked any more; they stay revoked until the gateway starts anew, and sign again \
                 then: name them again"
            );
        }
        self.unnamed = unnamed;
        if problems != self.told {
            if !problems.is_empty() {
                let problems = problems.join("; ");
                tracing::error!(
                    problems,
                    "audit keys cannot be read; those in force stay, and what is revoked is revoked"
                );
            }
            self.told = problems;
        }
        let before = self.in_force.signing_version();
        let changes = changes(&self.in_force, &keys);
        self.in_force = keys;
        self.replace_ring();
        let version = self.in_force.signing_version();
        // Also under the same version: a file may hold another key now.
        let current = self.in_force.current().ok();
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) =
            current.map(|current| Arc::new(current) as _);
        if version != before {
            let version = version.map(|version| version.to_string()).unwrap_or_default();
            tracing::info!(version, "another audit key signs, or another is revoked");
        }
        self.alarm(version);
        changes
    }

    fn replace_ring(&self) {
        let ring = key_ring(&self.chain, &self.in_force);
        let mut held = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if **held != ring {
            *held = Arc::new(ring);
        }
    }

    /// A key that is revoked never signs again, not even where it was the last one.
    fn alarm(&mut self, version: Option<KeyVersion>) {
        self.counters.no_key.set(i64::from(version.is_none()));
        if version.is_some() {
            self.alarmed_us = None;
            return;
        }
        let now = self.clock.elapsed_us();
        if self.alarmed_us.is_some_and(|then| now.saturating_sub(then) < ALARM_US) {
            return;
        }
        self.alarmed_us = Some(now);
        tracing::error!(
            critical = true, chain = %self.chain,
            "every audit key is revoked: nothing is appended, events wait in the spool; give a key that is not"
        );
    }
}

/// What an auditor is told: versions and what public keys begin with when they are hashed, nothing of private ones.
fn changes(before: &SigningKeys, after: &SigningKeys) -> Vec<String> {
    let known = |keys: &SigningKeys| -> BTreeMap<KeyVersion, ([u8; 32], bool)> {
        keys.public().map(|(version, public, revoked)| (version, (public, revoked))).collect()
    };
    let (old, new) = (known(before), known(after));
    let id =
        |public: &[u8; 32]| Hash::of(&[public]).to_string().chars().take(16).collect::<String>();
    let mut told = Vec::new();
    for (version, (public, revoked)) in &new {
        let was = old.get(version);
        if was.is_none_or(|(other, _)| other != public) {
            told.push(format!("audit key {version} is known: public key {}", id(public)));
        }
        if *revoked && was.is_none_or(|(_, was)| !was) {
            told.push(format!("audit key {version} is revoked: public key {}", id(public)));
        }
    }
    let gone = old.iter().filter(|(version, _)| !new.contains_key(version));
    told.extend(gone.map(|(version, (public, _))| {
        format!("audit key {version} is not known any more: public key {}", id(public))
    }));
    let signing = after.signing_version();
    if signing != before.signing_version() {
        told.push(match signing {
            Some(version) => format!("audit key {version} signs from now on"),
            None => "no audit key signs any more: all are revoked".to_owned(),
        });
    }
    told
}

fn key_ring(chain: &ChainName, keys: &SigningKeys) -> KeyRing {
    let key = |(version, public, revoked): (KeyVersion, [u8; 32], bool)| {
        let revoked = revoked.then(|| Revocation { after_seq: None, reason: String::new() });
        (version, Key { public, revoked })
    };
    KeyRing {
        chain: chain.clone(),
        keys: keys.public().map(key).collect(),
        checkpoint_keys: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::settings::Environment;

    /// RFC 8410 §10.3: everybody knows it.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_revocation_outlives_the_file_that_named_it() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["v1.pem", "v2.pem"] {
            std::fs::write(dir.path().join(name), PEM).expect("written");
        }
        let text = dir.path().display().to_string();
        let environment = Environment::from([("AUDIT_PRIVATE_KEY_DIR", text.as_str())]);
        let source = KeySource::of(&environment).expect("a folder");
        let (chain, clock) = (ChainName::new("eu").expect("a name"), Arc::new(SystemClock::new()));
        let begun = Following::begin(chain, source, clock, ChainCounters::default());
        let mut following = begun.expect("begun");
        let version = |following: &Following| {
            let signer = following.signer.read().expect("no panic");
            signer.as_ref().map(|signer| signer.version())
        };
        assert_eq!(version(&following), Some(KeyVersion(2)));
        let revoked = dir.path().join("revoked");
        std::fs::write(&revoked, "v2").expect("written");
        let told = following.look();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("audit key v2 is revoked: public key "), "{told:?}");
        assert_eq!(told[1], "audit key v1 signs from now on");
        std::fs::remove_file(&revoked).expect("removed");
        for _ in 0..2 {
            assert_eq!(following.look(), Vec::<String>::new(), "once");
            assert_eq!(version(&following), Some(KeyVersion(1)));
            assert_eq!(following.unnamed, ["v2"]);
            let ring = following.ring.read().expect("no panic");
            assert!(ring.keys[&KeyVersion(2)].revoked.is_some());
        }
        std::fs::write(&revoked, "v2").expect("written");
        following.look();
        assert!(following.unnamed.is_empty());
    }
}
