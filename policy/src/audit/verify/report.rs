//! Owns what a verification says: the findings, the counts, the verdict. Knows no record.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;

use super::label;
use crate::audit::merkle::Frontier;
use crate::audit::record::{Head, KeyVersion};

/// How many findings are kept; all are counted.
pub const FINDINGS_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A line is no record.
    Unreadable,
    /// Records are missing.
    Gap,
    /// A record is not linked to the one before it.
    BrokenLink,
    /// The same record stands twice.
    Repeated,
    /// Two records have one number.
    Fork,
    /// A record came after one with a larger number.
    OutOfOrder,
    /// An event stands in two records.
    DoubledEvent,
    /// Signed with a key that is not in the keys file.
    UnknownKey,
    /// The signature does not fit the record, the chain or the key.
    BadSignature,
    /// Signed with a key after it was revoked.
    RevokedKey,
    /// The last records are not signed.
    UnsignedTail,
    /// Head or checkpoint say that there were more records.
    Truncated,
    /// The head is not the last record.
    HeadDiffers,
    /// A checkpoint cannot be read, or no known key signed it.
    BadCheckpoint,
    /// Two signed checkpoints contradict each other.
    CheckpointFork,
    /// The records are not those that a checkpoint was made of.
    CheckpointDiffers,
    /// A record says that the store had lost records, and nobody signed it.
    UnsignedRollback,
    /// The store had lost records, says the chain itself, and nobody said that this is known.
    RolledBack,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The first record that it puts in doubt; `None` is the chain as a whole.
    pub seq: Option<u64>,
    /// What it is.
    pub kind: Kind,
    /// In words.
    pub detail: String,
}

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong.
    Valid,
    /// Nothing is wrong, and some signatures are of a key that was revoked later.
    ValidRevokedKey,
    /// Something is wrong.
    Invalid,
    /// There is no record at all.
    Unreadable,
}

/// What a verification says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The outcome.
    pub verdict: Verdict,
    /// The chain that was expected.
    pub chain: String,
    /// Lines read.
    pub lines: u64,
    /// Of these, records.
    pub records: u64,
    /// The number of the last record.
    pub last_seq: u64,
    /// Its hash.
    pub last_hash: String,
    /// Up to this record everything is linked and signed, and nothing was found before.
    pub proven_seq: u64,
    /// The root over all records, if none is missing.
    pub root: Option<String>,
    /// Good signatures by key.
    pub signatures: BTreeMap<String, u64>,
    /// Of these, by keys that are revoked.
    pub revoked_signatures: BTreeMap<String, u64>,
    /// The first record signed with a key that was revoked later, whose age no checkpoint proves.
    pub revoked_unproven_from: Option<u64>,
    /// Checkpoints that agree with the records.
    pub checkpoints_matched: u64,
    /// Checkpoints that could not be compared, because records are missing before them.
    pub checkpoints_unchecked: u64,
    /// Checkpoints of records that the store had lost, says the chain itself.
    pub checkpoints_lost: u64,
    /// The records that say so.
    pub rollbacks: Vec<u64>,
    /// Up to which record a checkpoint proves the records against a stolen key.
    pub checkpoint_size: u64,
    /// The first record at which something is wrong.
    pub first_bad: Option<u64>,
    /// How many findings there are.
    pub findings_total: u64,
    /// Of them, those of keys that are not in the keys file: who follows a chain may be about to be given them.
    #[serde(skip)]
    pub unknown_keys: u64,
    /// The first [`FINDINGS_MAX`] of them.
    pub findings: Vec<Finding>,
    /// Of the findings, those that a rollback may explain: a checkpoint's size and how many rollbacks came before it.
    #[serde(skip)]
    doubts: Vec<((u64, u64), Finding)>,
    /// The first record at which something is wrong that no rollback explains.
    #[serde(skip)]
    first_certain: Option<u64>,
}

// === impl Report ===

impl Report {
    pub(super) fn new(chain: &str) -> Self {
        Self {
            verdict: Verdict::Unreadable,
            chain: chain.to_string(),
            lines: 0,
            records: 0,
            last_seq: 0,
            last_hash: String::new(),
            proven_seq: 0,
            root: None,
            signatures: BTreeMap::new(),
            revoked_signatures: BTreeMap::new(),
            revoked_unproven_from: None,
            checkpoints_matched: 0,
            checkpoints_unchecked: 0,
            checkpoints_lost: 0,
            rollbacks: Vec::new(),
            checkpoint_size: 0,
            first_bad: None,
            findings_total: 0,
            unknown_keys: 0,
            findings: Vec::new(),
            doubts: Vec::new(),
            first_certain: None,
        }
    }

    pub(super) fn find(&mut self, seq: Option<u64>, kind: Kind, detail: String) {
        self.first_certain = self.first_certain.into_iter().chain(seq).min();
        self.add(Finding { seq, kind, detail });
    }

    /// What a checkpoint puts in doubt, unless a rollback explains it.
    pub(super) fn doubt(&mut self, checkpoint: (u64, u64), seq: u64, kind: Kind, detail: String) {
        let finding = Finding { seq: Some(seq), kind, detail };
        self.doubts.push((checkpoint, finding.clone()));
        self.add(finding);
    }

    fn add(&mut self, finding: Finding) {
        self.findings_total = self.findings_total.saturating_add(1);
        let unknown = u64::from(finding.kind == Kind::UnknownKey);
        self.unknown_keys = self.unknown_keys.saturating_add(unknown);
        self.first_bad = self.first_bad.into_iter().chain(finding.seq).min();
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// What such checkpoints put in doubt is explained: how many of them differed.
    pub(super) fn settle(&mut self, is_explained: impl Fn((u64, u64)) -> bool) -> usize {
        let (settled, left) = core::mem::take(&mut self.doubts)
            .into_iter()
            .partition::<Vec<_>, _>(|(checkpoint, _)| is_explained(*checkpoint));
        self.doubts = left;
        let of_doubts = self.doubts.iter().filter_map(|(_, finding)| finding.seq);
        self.first_bad = self.first_certain.into_iter().chain(of_doubts).min();
        for (_, finding) in &settled {
            self.findings_total = self.findings_total.saturating_sub(1);
            if let Some(at) = self.findings.iter().position(|found| found == finding) {
                self.findings.remove(at);
            }
        }
        settled.iter().filter(|(_, finding)| finding.kind == Kind::CheckpointDiffers).count()
    }

    pub(super) fn count(&mut self, version: KeyVersion, in_force: bool) {
        let add = |counts: &mut BTreeMap<String, u64>| {
            let count = counts.entry(label(version)).or_default();
            *count = count.saturating_add(1);
        };
        add(&mut self.signatures);
        if !in_force {
            add(&mut self.revoked_signatures);
        }
    }

    pub(super) fn close(&mut self, end: Head, frontier: &Frontier) {
        self.last_seq = end.seq;
        self.last_hash = end.hash.to_string();
        self.proven_seq = self.first_bad.map_or(self.proven_seq, |first| {
            // A checkpoint may contradict what signatures bear out.
            self.proven_seq.min(first.saturating_sub(1))
        });
        self.root = (frontier.size() == end.seq).then(|| frontier.root().to_string());
        self.verdict = if self.records == 0 {
            Verdict::Unreadable
        } else if self.findings_total > 0 {
            Verdict::Invalid
        } else if self.revoked_signatures.is_empty() {
            Verdict::Valid
        } else {
            Verdict::ValidRevokedKey
        };
    }
}
