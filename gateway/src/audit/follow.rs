//! Owns which audit keys are in force while the gateway runs: reading them again and again, what stays of
//! them where something cannot be read, and the alarm while none may sign. Knows neither events nor stores.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

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
        let (told, alarmed_us) = (Vec::new(), None);
        Ok(Self { chain, source, in_force, signer, ring, clock, counters, told, alarmed_us })
    }

    /// Who signs from now on.
    pub fn signer(&self) -> SharedSigner {
        Arc::clone(&self.signer)
    }

    /// By what signatures are checked from now on.
    pub fn ring(&self) -> SharedKeys {
        Arc::clone(&self.ring)
    }

    /// Follows until it is dropped.
    pub async fn run(mut self) {
        loop {
            self.clock.sleep(FOLLOW).await;
            self.look();
        }
    }

    /// Reads the keys again. What cannot be read leaves in force what was; a revocation that can be read
    /// always counts, whatever else is wrong.
    fn look(&mut self) {
        let (read, problems) = self.source.read();
        let keys = if problems.is_empty() { read } else { read.or_else(&self.in_force) };
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
