//! Owns the one resolver of a policy's effective mode: what the configuration says, what the kill
//! switch and the flags say on top of it, and the sticky share. Knows neither how flags are stored
//! nor how they travel.
//!
//! Source: product row F (flags govern policies: off, shadow, enforce; emergency kill switch).

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a policy does with its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Not evaluated at all.
    Off,
    /// Decided, counted and recorded, never acted upon.
    Shadow,
    /// Decided and acted upon.
    #[default]
    Enforce,
}

/// A mechanism that a kill switch can take out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// Rate limits.
    RateLimit,
    /// The circuit breaker.
    Breaker,
    /// Idempotency.
    Idempotency,
}

/// What the kill switch takes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kill {
    /// Every mechanism.
    All,
    /// One mechanism.
    #[serde(untagged)]
    One(Mechanism),
}

/// What a document says of one policy: a mode, for all or for a share of the callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    /// The mode for those whom the share takes in.
    pub mode: Mode,
    /// Who is taken in, in hundredths of a percent: 0 nobody, 10,000 everybody. The rest is in the
    /// next weaker mode: in shadow beside `enforce`, off beside `shadow`.
    pub share_bp: u16,
}

/// A flag's word on one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// The mode for those whom the share takes in.
    pub mode: Mode,
    /// Who is taken in, in hundredths of a percent: 0 nobody, 10,000 everybody.
    pub share_bp: u16,
    /// Makes the share of this flag independent of every other flag's.
    pub salt: String,
}

/// The slots that the tick's reply fills. The receiver keeps the last one it got (last known
/// good): an absent reply changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Overrides {
    /// Rises with every change; an older one is ignored.
    pub version: u64,
    /// The kill switch, if it is thrown.
    pub kill: Option<Kill>,
    /// Flags by policy name.
    pub flags: BTreeMap<String, Flag>,
}

// === impl Overrides ===

impl Overrides {
    /// Takes `newer` if it really is newer; tells whether it did.
    pub fn update(&mut self, newer: Overrides) -> bool {
        let taken = newer.version > self.version;
        if taken {
            *self = newer;
        }
        taken
    }
}

// === impl Rollout ===

impl Rollout {
    /// Enforced for everybody.
    pub const ENFORCE: Self = Self::whole(Mode::Enforce);

    /// A mode for everybody.
    pub const fn whole(mode: Mode) -> Self {
        Self { mode, share_bp: 10_000 }
    }

    /// The mode for one caller; the policy's name is the salt, so that two policies take in
    /// different tenths.
    fn of(self, policy: &str, identity: Option<&[u8]>) -> Mode {
        if is_taken_in(policy, identity, self.share_bp) {
            return self.mode;
        }
        match self.mode {
            Mode::Enforce => Mode::Shadow,
            Mode::Shadow | Mode::Off => Mode::Off,
        }
    }
}

/// The mode in force for one policy, one mechanism and one identity.
///
/// The kill switch beats the flag, the flag beats the configuration. `identity` is any stable
/// bytes of the caller; the same bytes always fall on the same side of a share. Callers without
/// any are the last to be taken in: together they would be all or none of a share.
pub fn effective(
    configured: Rollout,
    policy: &str,
    mechanism: Mechanism,
    identity: Option<&[u8]>,
    overrides: &Overrides,
) -> Mode {
    match overrides.kill {
        Some(Kill::All) => return Mode::Off,
        Some(Kill::One(killed)) if killed == mechanism => return Mode::Off,
        Some(Kill::One(_)) | None => {}
    }
    match overrides.flags.get(policy) {
        Some(flag) if is_taken_in(&flag.salt, identity, flag.share_bp) => flag.mode,
        Some(_) | None => configured.of(policy, identity),
    }
}

fn is_taken_in(salt: &str, identity: Option<&[u8]>, share_bp: u16) -> bool {
    share_bp >= 10_000 || identity.is_some_and(|bytes| sticky_bp(salt, bytes) < share_bp)
}

/// Where an identity falls in 0..10,000. Length-prefixed, so that a salt cannot run into an
/// identity; SHA-256, so that nobody chooses his place by trying names against a weak hash.
pub fn sticky_bp(salt: &str, identity: &[u8]) -> u16 {
    let salt_len = u64::try_from(salt.len()).unwrap_or(u64::MAX);
    let digest = Sha256::new()
        .chain_update(salt_len.to_be_bytes())
        .chain_update(salt.as_bytes())
        .chain_update(identity)
        .finalize();
    let head = digest.iter().take(4).fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte));
    u16::try_from((head * 10_000) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString;

    fn flagged(mode: Mode, share_bp: u16) -> Overrides {
        let flag = Flag { mode, share_bp, salt: "s".to_string() };
        Overrides { version: 1, kill: None, flags: [("p".to_string(), flag)].into() }
    }

    #[test]
    fn kill_beats_flag_beats_configuration() {
        let mut all_shadow = flagged(Mode::Shadow, 10_000);
        let rows = [
            (None, "p", Mode::Shadow),
            (None, "other", Mode::Enforce),
            (Some(Kill::All), "p", Mode::Off),
            (Some(Kill::One(Mechanism::RateLimit)), "p", Mode::Off),
            (Some(Kill::One(Mechanism::Breaker)), "p", Mode::Shadow),
        ];
        for (kill, policy, expected) in rows {
            all_shadow.kill = kill;
            let mode =
                effective(Rollout::ENFORCE, policy, Mechanism::RateLimit, Some(b"a"), &all_shadow);
            assert_eq!(mode, expected, "{kill:?} {policy}");
        }
    }

    #[test]
    fn a_share_is_sticky_and_about_as_large_as_it_says() {
        let tenth = flagged(Mode::Enforce, 1_000);
        let inside = |identity: &str| {
            effective(
                Rollout::whole(Mode::Off),
                "p",
                Mechanism::RateLimit,
                Some(identity.as_bytes()),
                &tenth,
            ) == Mode::Enforce
        };
        let taken = (0..10_000).filter(|n| inside(&format!("client-{n}"))).count();
        assert!((900..1_100).contains(&taken), "{taken} of 10,000 in a tenth");
        assert!((0..100).all(|n| inside(&format!("client-{n}")) == inside(&format!("client-{n}"))));
        assert!(
            effective(
                Rollout::whole(Mode::Off),
                "p",
                Mechanism::RateLimit,
                Some(b"x"),
                &flagged(Mode::Enforce, 0)
            ) == Mode::Off
        );
    }

    #[test]
    fn who_has_no_identity_is_taken_in_last() {
        let of = |configured, overrides: &Overrides| {
            effective(configured, "p", Mechanism::RateLimit, None, overrides)
        };
        let none = Overrides::default();
        let most = Rollout { mode: Mode::Enforce, share_bp: 9_999 };
        assert_eq!(of(most, &none), Mode::Shadow);
        assert_eq!(of(Rollout::ENFORCE, &none), Mode::Enforce);
        assert_eq!(of(Rollout::whole(Mode::Off), &flagged(Mode::Enforce, 9_999)), Mode::Off);
        assert_eq!(of(Rollout::whole(Mode::Off), &flagged(Mode::Enforce, 10_000)), Mode::Enforce);
    }

    #[test]
    fn the_rest_of_a_share_is_one_mode_weaker() {
        let none = Overrides::default();
        for (mode, rest) in [(Mode::Enforce, Mode::Shadow), (Mode::Shadow, Mode::Off)] {
            let tenth = Rollout { mode, share_bp: 1_000 };
            let of = |n: u32| {
                let identity = format!("client-{n}");
                effective(tenth, "p", Mechanism::RateLimit, Some(identity.as_bytes()), &none)
            };
            let taken = (0..10_000).filter(|n| of(*n) == mode).count();
            assert!((900..1_100).contains(&taken), "{taken} of 10,000 in a tenth");
            assert!((0..10_000).all(|n| of(n) == mode || of(n) == rest));
        }
    }

    #[test]
    fn an_older_version_changes_nothing() {
        let mut held = flagged(Mode::Shadow, 10_000);
        held.version = 7;
        let kept = held.clone();
        assert!(!held.update(Overrides { version: 7, ..Overrides::default() }));
        assert_eq!(held, kept);
        assert!(held.update(Overrides { version: 8, ..Overrides::default() }));
        assert_eq!(held.flags.len(), 0);
    }

    #[test]
    fn the_kill_switch_reads_as_written() {
        assert_eq!(serde_json::from_str::<Kill>("\"all\"").ok(), Some(Kill::All));
        assert_eq!(
            serde_json::from_str::<Kill>("\"rate_limit\"").ok(),
            Some(Kill::One(Mechanism::RateLimit))
        );
    }
}
