//! Owns the verification of files: reading them line by line in bounded memory, showing how far it is,
//! saying what was found. Knows no rule of the chain.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use tidegate_policy::audit::keys::KeyRing;
use tidegate_policy::audit::record::RECORD_LEN_MAX;
use tidegate_policy::audit::verify::{HeadClaim, Report, Verdict, Verifier};

use super::{TAMPERED, UNREADABLE, VALID, Verify};
use crate::audit::keys::Ed25519;

/// A line's end and one byte too many: what is longer is no record and need not be kept.
const LINE_MAX: usize = RECORD_LEN_MAX + 2;
/// How many bytes the bar moves at a time.
const SHOWN_EACH: u64 = 1 << 20;
const STANDARD_INPUT: &str = "-";

/// Verifies and prints; the exit code.
pub fn verify(what: &Verify) -> Result<u8, String> {
    let ring = KeyRing::read(&read(&what.keys)?)
        .map_err(|bad| format!("--keys {}: {bad}", what.keys.display()))?;
    let mut verifier = Verifier::new(&ring, &Ed25519);
    what.accepted_rollbacks.iter().for_each(|seq| verifier.accept_rollback(*seq));
    for checkpoint in &what.checkpoints {
        verifier.expect(&read(checkpoint)?);
    }
    let head = match &what.head {
        Some(path) => Some(claim(path)?),
        None => None,
    };
    let progress = progress(what);
    for path in &what.files {
        let done = if path.as_os_str() == STANDARD_INPUT {
            records(io::stdin().lock(), &mut verifier, &progress)
        } else {
            File::open(path).and_then(|file| records(file, &mut verifier, &progress))
        };
        done.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    progress.finish_and_clear();
    let report = verifier.finish(head.as_ref());
    print(what, &report).map_err(|error| format!("standard output: {error}"))?;
    Ok(match report.verdict {
        Verdict::Valid | Verdict::ValidRevokedKey => VALID,
        Verdict::Invalid => TAMPERED,
        Verdict::Unreadable => UNREADABLE,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn claim(path: &Path) -> Result<HeadClaim, String> {
    let bytes = read(path)?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    HeadClaim::read(bytes).map_err(|bad| format!("--head {}: {bad}", path.display()))
}

fn progress(what: &Verify) -> ProgressBar {
    let sizes = what.files.iter().map(|path| std::fs::metadata(path).map(|data| data.len()));
    let total: u64 = sizes.map(Result::unwrap_or_default).sum();
    // Draws on standard error, and nothing where that is no terminal.
    let bar = ProgressBar::new(total);
    let template = "{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_unstyled) => bar,
    }
}

fn records(
    source: impl Read,
    verifier: &mut Verifier<'_>,
    progress: &ProgressBar,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 20, source);
    let (mut line, mut unshown) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
        let count = (&mut reader).take(limit).read_until(b'\n', &mut line)?;
        unshown = unshown.saturating_add(u64::try_from(count).unwrap_or_default());
        // The bar costs more than a line.
        if count == 0 || unshown >= SHOWN_EACH {
            progress.inc(std::mem::take(&mut unshown));
        }
        if count == 0 {
            return Ok(());
        }
        verifier.push(line.strip_suffix(b"\n").unwrap_or(&line));
    }
}

fn print(what: &Verify, report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if what.json {
        let text = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
        return writeln!(out, "{text}");
    }
    let verdict = match report.verdict {
        Verdict::Valid => "valid",
        Verdict::ValidRevokedKey => "valid, partly signed by keys that are revoked",
        Verdict::Invalid => "TAMPERED",
        Verdict::Unreadable => "not readable as a chain",
    };
    writeln!(out, "{}: {verdict}", report.chain)?;
    writeln!(
        out,
        "  {} records, up to {}; linked and signed up to {}; {} checkpoints agree, up to {}",
        report.records,
        report.last_seq,
        report.proven_seq,
        report.checkpoints_matched,
        report.checkpoint_size
    )?;
    if report.checkpoints_unchecked > 0 {
        writeln!(out, "  {} checkpoints could not be compared", report.checkpoints_unchecked)?;
    }
    if !report.rollbacks.is_empty() {
        writeln!(
            out,
            "  the store had lost records before {:?}; {} checkpoints were of lost records",
            report.rollbacks, report.checkpoints_lost
        )?;
    }
    if let Some(seq) = report.revoked_unproven_from {
        writeln!(
            out,
            "  no checkpoint proves that record {seq} is older than its key's revocation"
        )?;
    }
    if what.checkpoints.is_empty() && report.verdict != Verdict::Unreadable {
        writeln!(
            out,
            "  no --checkpoint was given: a stolen key, or an end cut off, is not ruled out"
        )?;
    }
    if let Some(seq) = report.first_bad {
        writeln!(out, "  first bad record: {seq}")?;
    }
    for finding in &report.findings {
        let at = finding.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
        writeln!(out, "  {at:>10}  {}", finding.detail)?;
    }
    let kept = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
    match report.findings_total.saturating_sub(kept) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}
