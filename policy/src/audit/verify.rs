//! Owns the verification of a chain: records in, findings out, in one pass and bounded memory. Knows
//! neither files nor how signatures are computed.
//!
//! What is found, and by what:
//!
//! | tampering | found by |
//! |---|---|
//! | edit | the next record's link, or the signature of the edited one |
//! | delete, swap, insert | numbers and links |
//! | another's key | the keys file |
//! | a tail that nobody signed | the last record is signed, or its batch was not whole |
//! | truncation, head kept | the head |
//! | truncation, head set back | a checkpoint that is larger |
//! | two records with one number | numbers, and hashes of the last [`RECENT_MAX`] records |
//! | rewritten with a stolen key | a checkpoint, up to its size; **nothing behind the last one** |
//! | a rollback that nobody signed | its own signature: it explains nothing |
//! | records lost by the store | the gateway's own rollback record; until it came any checkpoint of the lost part |
//!
//! The first bad record is where the chain first contradicts itself, the keys or what was kept outside:
//! where a link breaks the earlier record, unless that is signed; where only a checkpoint differs the
//! one behind the last checkpoint that agreed. Who changed several records may have linked them among
//! one another: what is beyond doubt is what lies up to `proven_seq`.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};

use super::hash::Hash;
use super::keys::KeyRing;
use super::merkle::Frontier;
use super::note::Checkpoint;
use super::record::{Head, KeyVersion, Record, Rollback, Seal, SignatureCheck, signed};
pub use head::HeadClaim;
pub use ids::IDS_MAX;
use ids::Ids;
pub use report::{Finding, Kind, Report, Verdict};

mod head;
mod ids;
mod report;

/// How many of the last records' hashes are kept, to tell a fork from a repetition.
pub const RECENT_MAX: usize = 1_024;

/// A verification that is under way.
pub struct Verifier<'k> {
    ring: Cow<'k, KeyRing>,
    check: &'k (dyn SignatureCheck + Sync),
    /// Those that are still to come, by size and by how many rollbacks came before. Two of one size differ where
    /// records were lost, or where somebody lies.
    checkpoints: BTreeMap<(u64, u64), BTreeSet<Hash>>,
    /// Rollbacks that the auditor knows of, by the numbers of their records.
    accepted: BTreeSet<u64>,
    /// Who follows a chain as it grows is told of rollbacks by whoever makes them.
    accepts_all: bool,
    end: Head,
    /// Of the last good signature.
    signed_seq: u64,
    /// Of the last signature, good or not.
    sealed_seq: u64,
    frontier: Frontier,
    recent: VecDeque<(u64, Hash)>,
    ids: Ids,
    /// The first record signed by a revoked key that no checkpoint has proven yet, and up to which
    /// size a checkpoint can.
    unproven: Option<(u64, u64)>,
    report: Report,
}

// === impl Verifier ===

impl<'k> Verifier<'k> {
    /// Expects a whole chain, from its first record.
    pub fn new(ring: &'k KeyRing, check: &'k (dyn SignatureCheck + Sync)) -> Self {
        Self::with(Cow::Borrowed(ring), check)
    }

    /// The same for who follows a chain for long.
    pub fn owning(ring: KeyRing, check: &'k (dyn SignatureCheck + Sync)) -> Self {
        Self::with(Cow::Owned(ring), check)
    }

    /// Believes other keys from now on.
    pub fn trust(&mut self, ring: KeyRing) {
        self.ring = Cow::Owned(ring);
    }

    fn with(ring: Cow<'k, KeyRing>, check: &'k (dyn SignatureCheck + Sync)) -> Self {
        let report = Report::new(ring.chain.as_str());
        Self {
            ring,
            check,
            checkpoints: BTreeMap::new(),
            accepted: BTreeSet::new(),
            accepts_all: false,
            end: Head::GENESIS,
            signed_seq: 0,
            sealed_seq: 0,
            frontier: Frontier::default(),
            recent: VecDeque::new(),
            ids: Ids::default(),
            unproven: None,
            report,
        }
    }

    /// Takes a checkpoint to compare with. All of them come before the records.
    pub fn expect(&mut self, note: &[u8]) {
        let opened = Checkpoint::open(note, &self.ring.checkpoint_keys, self.check);
        let keys = &self.ring.checkpoint_keys;
        let epoch = |checkpoint: &Checkpoint| {
            keys.iter().find_map(|key| epoch_of(&checkpoint.origin, key.name()))
        };
        let (checkpoint, epoch) = match opened.map(|opened| (epoch(&opened), opened)) {
            Ok((Some(epoch), checkpoint)) => (checkpoint, epoch),
            Ok((None, checkpoint)) => {
                let detail = format!("a checkpoint of {:?}", checkpoint.origin);
                return self.report.find(None, Kind::BadCheckpoint, detail);
            }
            Err(why) => return self.report.find(None, Kind::BadCheckpoint, why.0),
        };
        let Checkpoint { size, root, .. } = checkpoint;
        if size == 0 {
            return self.compare((size, epoch), &root);
        }
        let roots = self.checkpoints.entry((size, epoch)).or_default();
        if roots.insert(root) && roots.len() > 1 {
            let detail = format!("two signed checkpoints of size {size} with different roots");
            self.report.doubt((size, epoch), size, Kind::CheckpointFork, detail);
        }
    }

    /// Takes a rollback as known, so that it is no finding: the number of its record.
    pub fn accept_rollback(&mut self, seq: u64) {
        self.accepted.insert(seq);
    }

    /// Takes every rollback as known; they are still counted.
    pub fn accept_rollbacks(&mut self) {
        self.accepts_all = true;
    }

    /// Takes the next record, without its line's end.
    pub fn push(&mut self, line: &[u8]) {
        self.report.lines = self.report.lines.saturating_add(1);
        let next = self.end.seq.saturating_add(1);
        let record = match Record::read(line) {
            Ok(record) => record,
            Err(why) => {
                let detail = format!("line {}: {why}", self.report.lines);
                return self.report.find(Some(next), Kind::Unreadable, detail);
            }
        };
        self.report.records = self.report.records.saturating_add(1);
        if record.seq < next {
            return self.behind(&record);
        }
        if record.seq > next {
            let detail = format!("record {next} was expected, record {} came", record.seq);
            self.report.find(Some(next), Kind::Gap, detail);
        } else if record.prev != self.end.hash {
            let suspect = if self.signed_seq == self.end.seq { next } else { self.end.seq };
            let detail =
                format!("record {next} is linked to another record than the one before it");
            self.report.find(Some(suspect.max(1)), Kind::BrokenLink, detail);
        }
        self.advance(&record);
    }

    /// A record whose number was passed already.
    fn behind(&mut self, record: &Record) {
        let seq = record.seq;
        let seen = self.recent.iter().find(|(number, _)| *number == seq);
        let (kind, detail) = match seen {
            Some((_, hash)) if *hash == record.hash => {
                (Kind::Repeated, format!("record {seq} stands twice"))
            }
            Some(_) => (Kind::Fork, format!("there are two different records {seq}")),
            None => (Kind::OutOfOrder, format!("record {seq} came after record {}", self.end.seq)),
        };
        self.report.find(Some(seq), kind, detail);
        if let Some(seal) = &record.seal {
            self.check_seal(record, seal);
        }
    }

    /// The gateways say that the store had lost records. Checkpoints of what was lost cannot be compared
    /// any more, and those that were contradicted by what took its place were no lies; whoever could write this
    /// record could hide a cut behind it, so somebody has to know.
    fn roll_back(&mut self, seq: u64, rollback: Rollback) {
        self.report.rollbacks.push(seq);
        let epoch = u64::try_from(self.report.rollbacks.len()).unwrap_or(u64::MAX);
        let Rollback { kept, known, common } = rollback;
        let is_lost = |(size, of): (u64, u64)| of < epoch && size > common;
        let mut lost = self.report.settle(is_lost);
        self.checkpoints.retain(|at, roots| {
            let is_lost = is_lost(*at);
            lost = lost.saturating_add(if is_lost { roots.len() } else { 0 });
            !is_lost
        });
        self.report.checkpoints_lost =
            self.report.checkpoints_lost.saturating_add(u64::try_from(lost).unwrap_or(u64::MAX));
        if !self.accepts_all && !self.accepted.contains(&seq) {
            let first = common.saturating_add(1);
            let detail = format!(
                "the store had lost the records {first} to {known}: the chain goes on behind {kept}"
            );
            self.report.find(Some(seq), Kind::RolledBack, detail);
        }
    }

    fn advance(&mut self, record: &Record) {
        let is_signed = record.seal.as_ref().map(|seal| self.check_seal(record, seal));
        match (record.rollback, is_signed) {
            (Some(rollback), Some(true)) => self.roll_back(record.seq, rollback),
            // Gateways append it alone. A signature that does not fit was found.
            (Some(_), None) => {
                let detail = format!("nobody signed the rollback {}", record.seq);
                self.report.find(Some(record.seq), Kind::UnsignedRollback, detail);
            }
            (Some(_), Some(false)) | (None, _) => {}
        }
        let whole = self.frontier.size().saturating_add(1) == record.seq;
        self.end = Head { seq: record.seq, hash: record.hash };
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((record.seq, record.hash));
        if !self.ids.add(&record.id) {
            let detail = format!("the event {:?} stands twice", record.id);
            self.report.find(Some(record.seq), Kind::DoubledEvent, detail);
        }
        if let Some(is_good) = is_signed {
            self.sealed_seq = record.seq;
            if is_good {
                self.signed_seq = record.seq;
            }
            if self.report.findings_total == 0 {
                self.report.proven_seq = self.signed_seq;
            }
        }
        // Behind a gap there is no root any more.
        if whole {
            self.frontier.push(&record.hash.0);
            let seq = record.seq;
            while let Some((&at, _)) = self.checkpoints.range((seq, 0)..=(seq, u64::MAX)).next() {
                let roots = self.checkpoints.remove(&at).unwrap_or_default();
                roots.iter().for_each(|root| self.compare(at, root));
            }
        }
    }

    fn compare(&mut self, at: (u64, u64), root: &Hash) {
        let (size, _) = at;
        let ours = if size == 0 { Frontier::default().root() } else { self.frontier.root() };
        if *root != ours {
            // What was found on the way explains it; otherwise all since the last one is in doubt.
            let since = self.report.checkpoint_size.saturating_add(1);
            let first = self.report.first_bad.filter(|bad| *bad <= size).unwrap_or(since);
            let detail =
                format!("the checkpoint of size {size} has root {root}, the records {ours}");
            return self.report.doubt(at, first, Kind::CheckpointDiffers, detail);
        }
        self.report.checkpoints_matched = self.report.checkpoints_matched.saturating_add(1);
        if self.report.first_bad.is_none_or(|bad| bad > size) {
            self.report.checkpoint_size = size;
        }
        if self.unproven.is_some_and(|(_, until)| size <= until) {
            self.unproven = None;
        }
    }

    /// Whether the signature is good; a revoked key's may be.
    fn check_seal(&mut self, record: &Record, seal: &Seal) -> bool {
        let (seq, version) = (record.seq, seal.version);
        let Some(key) = self.ring.keys.get(&version) else {
            let detail = format!("signed with {version}, which the keys file does not hold");
            self.report.find(Some(seq), Kind::UnknownKey, detail);
            return false;
        };
        let message = signed(&self.ring.chain, seq, &record.hash, version);
        if !self.check.check(&key.public, &message, &seal.signature) {
            let detail = format!("the signature with {version} is wrong");
            self.report.find(Some(seq), Kind::BadSignature, detail);
            return false;
        }
        let Some(revocation) = &key.revoked else {
            self.report.count(version, true);
            return true;
        };
        self.report.count(version, false);
        match revocation.after_seq {
            Some(after) if seq > after => {
                let detail = format!("signed with {version}, which was revoked after {after}");
                self.report.find(Some(seq), Kind::RevokedKey, detail);
                return false;
            }
            Some(after) => {
                let (first, until) = self.unproven.unwrap_or((seq, after));
                self.unproven = Some((first, until.min(after)));
            }
            None => {}
        }
        true
    }

    /// Where the records end so far.
    pub fn end(&self) -> Head {
        self.end
    }

    /// The last record that is signed, or covered by a signature, and the root over all records up to
    /// the end; `None` while the end is not signed or anything was found.
    pub fn sound(&self) -> Option<(Head, Hash)> {
        let whole = self.report.findings_total == 0 && self.signed_seq == self.end.seq;
        whole.then(|| (self.end, self.frontier.root()))
    }

    /// What was found so far, and counted.
    pub fn so_far(&self) -> &Report {
        &self.report
    }

    /// The chain ends with the last record, or did when somebody asked: that one has to be signed. Records may follow.
    pub fn ends(&mut self) {
        let Head { seq, .. } = self.end;
        // Where something else is wrong in the tail, that is its place.
        let explained = self.report.first_bad.is_some_and(|bad| bad > self.sealed_seq);
        if self.sealed_seq < seq && !explained {
            let first = self.sealed_seq.saturating_add(1);
            let detail = format!("nobody signed the records {first} to {seq}");
            self.report.find(Some(first), Kind::UnsignedTail, detail);
        }
    }

    /// Closes the verification. `head` is what the store or the export says that the end is.
    pub fn finish(mut self, head: Option<&HeadClaim>) -> Report {
        let Head { seq, .. } = self.end;
        let behind = seq.saturating_add(1);
        self.ends();
        if let Some(claim) = head {
            self.compare_head(claim);
        }
        for (size, _) in self.checkpoints.keys().filter(|(size, _)| *size > seq) {
            let detail = format!("a signed checkpoint says {size} records, there are {seq}");
            self.report.find(Some(behind), Kind::Truncated, detail);
        }
        let unchecked = self.checkpoints.keys().filter(|(size, _)| *size <= seq).count();
        self.report.checkpoints_unchecked = u64::try_from(unchecked).unwrap_or(u64::MAX);
        self.report.revoked_unproven_from = self.unproven.map(|(first, _)| first);
        self.report.close(self.end, &self.frontier);
        self.report
    }

    fn compare_head(&mut self, claim: &HeadClaim) {
        let Head { seq, hash } = self.end;
        let behind = seq.saturating_add(1);
        let (at, kind, detail) = if claim.chain != self.ring.chain.as_str() {
            (None, Kind::HeadDiffers, format!("the head is of the chain {:?}", claim.chain))
        } else if claim.head.seq > seq {
            let detail = format!("the head is at {}, the records end at {seq}", claim.head.seq);
            (Some(behind), Kind::Truncated, detail)
        } else if claim.head.seq < seq {
            let first = claim.head.seq.saturating_add(1);
            let detail = format!("the head is at {}, the records go on to {seq}", claim.head.seq);
            (Some(first), Kind::HeadDiffers, detail)
        } else if claim.head.hash != hash {
            (Some(seq.max(1)), Kind::HeadDiffers, format!("the head has another hash at {seq}"))
        } else {
            return;
        };
        self.report.find(at, kind, detail);
    }
}

/// After how many rollbacks a log of that name has this origin: the name itself, then `name#1`, ….
fn epoch_of(origin: &str, name: &str) -> Option<u64> {
    match origin.strip_prefix(name)?.strip_prefix('#') {
        Some(number) => {
            number.parse().ok().filter(|epoch| *epoch > 0 && origin_of(name, *epoch) == origin)
        }
        None => (origin == name).then_some(0),
    }
}

/// The origin of a log after that many rollbacks: earlier checkpoints are never contradicted by it.
pub fn origin_of(name: &str, epoch: u64) -> String {
    if epoch == 0 { name.to_string() } else { format!("{name}#{epoch}") }
}

/// A version as it is counted.
fn label(version: KeyVersion) -> String {
    version.to_string()
}

#[cfg(test)]
mod tests;
