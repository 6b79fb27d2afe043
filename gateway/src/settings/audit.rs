//! Owns the settings of the audit chain and how they depend on one another. Opens no file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_policy::audit::Action;

use super::cli::AuditArgs;
use super::knob::{self, Resolver};
use crate::audit::keys::{KeySource, PREFIX};
use crate::secret::SecretSource;

/// What the chain is told. The private keys are in the environment, in files or in a folder.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The keys that sign.
    pub keys: KeySource,
    /// Where spool and mark lie.
    pub dir: PathBuf,
    /// How long events are gathered.
    pub tick: Duration,
    /// The largest spool in bytes.
    pub spool_bytes_max: u64,
    /// Whether commands are refused that cannot be put on record.
    pub refuse_when_full: bool,
    /// The actions whose events are waited for.
    pub sync: BTreeSet<Action>,
    /// By what subjects are hashed; without it they are left out.
    pub subject_key: Option<SecretSource>,
    /// Where checkpoints go.
    pub checkpoints: Option<CheckpointSettings>,
}

/// What checkpoints need.
#[derive(Debug, Clone)]
pub struct CheckpointSettings {
    /// The folder.
    pub dir: PathBuf,
    /// The log's name.
    pub name: String,
    /// The key.
    pub key: SecretSource,
}

/// `None` after a problem was noted; `Some(None)` without a key: then there is no chain.
pub fn audit(arguments: AuditArgs, resolver: &mut Resolver<'_>) -> Option<Option<AuditSettings>> {
    let keys = KeySource::of(resolver.environment());
    let dir = resolver.maybe(&knob::AUDIT_DIR, arguments.audit_dir, knob::path);
    let tick = resolver.take(&knob::AUDIT_TICK, arguments.audit_tick, knob::duration);
    let spool = resolver.take(&knob::AUDIT_SPOOL_MAX, arguments.audit_spool_max, knob::count);
    let full = resolver.take(&knob::AUDIT_WHEN_FULL, arguments.audit_when_full, when_full);
    let sync = resolver.take(&knob::AUDIT_SYNC, arguments.audit_sync, actions);
    let checkpoint_dir =
        resolver.maybe(&knob::AUDIT_CHECKPOINT_DIR, arguments.audit_checkpoint_dir, knob::path);
    let name = |text: &str| Ok(text.to_owned());
    let checkpoint_name =
        resolver.maybe(&knob::AUDIT_CHECKPOINT_NAME, arguments.audit_checkpoint_name, name);
    let key_file = resolver.maybe(
        &knob::AUDIT_CHECKPOINT_KEY_FILE,
        arguments.audit_checkpoint_key_file,
        knob::path,
    );
    let subject_file =
        resolver.maybe(&knob::AUDIT_SUBJECT_KEY_FILE, arguments.audit_subject_key_file, knob::path);
    let checkpoint_key = super::secret(
        resolver,
        "TIDEGATE_AUDIT_CHECKPOINT_KEY",
        "--audit-checkpoint-key-file",
        key_file,
    );
    let subject_key = super::secret(
        resolver,
        "TIDEGATE_AUDIT_SUBJECT_KEY",
        "--audit-subject-key-file",
        subject_file,
    );
    let Some(keys) = keys else {
        let given = [
            dir.map(|_| knob::AUDIT_DIR.name()),
            checkpoint_dir.map(|_| knob::AUDIT_CHECKPOINT_DIR.name()),
            checkpoint_key.map(|_| {
                let flag = knob::AUDIT_CHECKPOINT_KEY_FILE.name();
                format!("{flag}, or TIDEGATE_AUDIT_CHECKPOINT_KEY,")
            }),
            subject_key.map(|_| {
                let flag = knob::AUDIT_SUBJECT_KEY_FILE.name();
                format!("{flag}, or TIDEGATE_AUDIT_SUBJECT_KEY,")
            }),
        ];
        let mut sound = true;
        for name in given.into_iter().flatten() {
            sound = false;
            resolver.problem(format!(
                "{name} is given, but no key that signs audit records: set {PREFIX}_V1, {PREFIX}_V1_FILE or {PREFIX}_DIR, or leave it out"
            ));
        }
        return sound.then_some(None);
    };
    let Some(dir) = dir else {
        resolver.problem(format!(
            "{PREFIX}… is set, but not {}: name a folder on a disk of this machine for the audit spool, which outlives a restart",
            knob::AUDIT_DIR.name()
        ));
        return None;
    };
    let checkpoints = match (checkpoint_dir, checkpoint_name, checkpoint_key) {
        (Some(dir), Some(name), Some(key)) => Some(CheckpointSettings { dir, name, key }),
        (None, None, None) => None,
        _ => {
            resolver.problem(format!(
                "checkpoints need {}, {} and {} (or TIDEGATE_AUDIT_CHECKPOINT_KEY): give all of them or none",
                knob::AUDIT_CHECKPOINT_DIR.name(),
                knob::AUDIT_CHECKPOINT_NAME.name(),
                knob::AUDIT_CHECKPOINT_KEY_FILE.name()
            ));
            return None;
        }
    };
    Some(Some(AuditSettings {
        keys,
        dir,
        tick: tick?,
        spool_bytes_max: u64::try_from(spool?).unwrap_or(u64::MAX),
        refuse_when_full: full?,
        sync: sync?,
        subject_key,
        checkpoints,
    }))
}

/// The actions for whose events something can wait; all others tell of what has happened already, or of what is
/// shed to save time.
const AWAITED: [Action; 5] =
    [Action::Admin, Action::Deny, Action::Replay, Action::Conflict, Action::Claim];

fn when_full(text: &str) -> Result<bool, String> {
    match text {
        "refuse" => Ok(true),
        "drop" => Ok(false),
        _ => Err("must be refuse or drop".to_owned()),
    }
}

/// Names of actions, or `none`.
fn actions(text: &str) -> Result<BTreeSet<Action>, String> {
    if text == "none" {
        return Ok(BTreeSet::new());
    }
    text.split(',').map(str::trim).map(awaited).collect()
}

fn awaited(name: &str) -> Result<Action, String> {
    let wrong = match Action::named(name) {
        Some(action) if AWAITED.contains(&action) => return Ok(action),
        Some(_) => "is an action whose events no answer waits for",
        None => "is no action",
    };
    let some = AWAITED.map(Action::as_str).join(", ");
    Err(format!("{name:?} {wrong}: write some of {some}, or none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, Settings, SettingsError};

    fn parse(flags: &str, pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let own = [("TIDEGATE_TOKEN", "t")];
        let pairs = own.iter().chain(pairs);
        let pairs = pairs.map(|(name, value)| ((*name).into(), (*value).into()));
        let words = ["tidegate-gateway", "serve"].into_iter().chain(flags.split_whitespace());
        Settings::parse(words, &Environment::new(pairs))
    }

    const KEY: (&str, &str) = ("AUDIT_PRIVATE_KEY_V1", "s3cret");

    #[test]
    fn without_a_key_there_is_no_chain_and_the_log_says_so_once() {
        let settings = parse("", &[("REVOKED_KEY_VERSIONS", "v1")]).expect("sound");
        assert!(settings.audit.is_none());
        let said = settings.notes.iter().filter(|note| note.contains("AUDIT_PRIVATE_KEY_V1"));
        assert_eq!(said.count(), 1, "{:#?}", settings.notes);
    }

    #[test]
    fn with_a_key_there_is_one_and_nothing_shows_it() {
        let settings = parse("--audit-dir /a --audit-sync admin,deny", &[KEY]).expect("sound");
        let audit = settings.audit.as_ref().expect("a chain");
        assert_eq!(audit.sync, [Action::Admin, Action::Deny].into());
        assert!(audit.refuse_when_full && audit.checkpoints.is_none());
        assert!(!format!("{settings:?} {settings}").contains("s3cret"));
        assert!(settings.notes.iter().any(|note| note.contains("in memory")));
    }

    #[test]
    fn what_cannot_be_names_the_flag_and_the_remedy() {
        for (flags, pairs, expected) in [
            ("", vec![KEY], "--audit-dir (TIDEGATE_AUDIT_DIR)"),
            ("--audit-dir /a", vec![], "no key that signs audit records"),
            ("--audit-dir /a --audit-checkpoint-dir /c", vec![KEY], "all of them or none"),
            ("--audit-dir /a --audit-sync admin,fly", vec![KEY], "\"fly\" is no action"),
            (
                "--audit-dir /a --audit-sync deny,config",
                vec![KEY],
                "\"config\" is an action whose events no answer waits for: write some of admin, deny, replay, conflict, claim, or none",
            ),
            ("--audit-dir /a --audit-when-full wait", vec![KEY], "must be refuse or drop"),
        ] {
            let error = parse(flags, &pairs).expect_err(flags).to_string();
            assert!(error.contains(expected), "{flags}: {error}");
        }
    }
}
