//! Owns how fast, and in how much memory, an auditor verifies an export: `tidegate-audit verify` on millions of
//! records, with batches of 64 signed.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use tidegate_policy::audit::record::{Head, batch};

use super::chains;
use crate::bench::envoy_rows::Effort;
use crate::bench::stats::Figures;
use crate::bench::summary::Summary;
use crate::{parts, process};

/// Records of the longer chain; the shorter one has a tenth.
const RECORDS: u64 = 2_000_000;
const SHORTER: u64 = 10;
const BATCH: u64 = 64;
/// When the first one happened.
const BEGAN_MS: u64 = 1_764_000_000_000;

/// Measures, prints, adds to the summary.
pub fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    println!(
        "\ntidegate-audit verify, {BATCH} records to a signature, {} rounds, CPU time of one thread",
        effort.rounds
    );
    for (name, records) in [("short", RECORDS / SHORTER), ("", RECORDS)] {
        let octets = export(dir.path(), records).map_err(|error| error.to_string())?;
        let (mut rate, mut peak) = (Figures::default(), Figures::default());
        for _ in 0..effort.rounds {
            let ended = verify(dir.path(), records)?;
            rate.push(whole(records) / (whole(ended.cpu_us) / 1_000_000.0));
            peak.push(whole(ended.peak_kib) / 1_024.0);
        }
        let each = octets / records;
        println!("  {records} records of {each} octets: {rate} records/s, at most {peak} MiB");
        let suffix = if name.is_empty() { String::new() } else { format!("_{name}") };
        summary.set(format!("audit_verify_events_per_s{suffix}"), rate.median());
        summary.set(format!("audit_verify_peak_mib{suffix}"), peak.median());
    }
    Ok(())
}

/// Writes a sound chain with its keys and its head; how many octets it has.
fn export(dir: &Path, records: u64) -> std::io::Result<u64> {
    let (chain, signer) = (chains::chain("eu"), chains::signer());
    let mut file = BufWriter::new(File::create(dir.join("chain.jsonl"))?);
    let (mut head, mut octets) = (Head::GENESIS, 0);
    while head.seq < records {
        let until = records.min(head.seq + BATCH);
        let events: Vec<_> = (head.seq..until).map(|n| chains::denial(n, BEGAN_MS + n)).collect();
        let made = batch(&chain, head, &events, &signer);
        head = made.head;
        for line in made.lines {
            file.write_all(&line.bytes)?;
            file.write_all(b"\n")?;
            octets += u64::try_from(line.bytes.len()).unwrap_or_default() + 1;
        }
    }
    file.flush()?;
    fs::write(dir.join("keys.json"), chains::key_ring(&chain).write())?;
    let head = format!(r#"{{"chain":"{chain}","hash":"{}","seq":{}}}"#, head.hash, head.seq);
    fs::write(dir.join("head.json"), head)?;
    Ok(octets)
}

fn verify(dir: &Path, records: u64) -> Result<process::Ended, String> {
    let mut command = Command::new(parts::auditor());
    command.current_dir(dir).args(["verify", "chain.jsonl", "--keys", "keys.json"]);
    command.args(["--head", "head.json", "--json"]);
    let ended = process::run(command).map_err(|error| error.to_string())?;
    if ended.code == Some(0) && ended.output.contains(&format!("\"proven_seq\": {records}")) {
        Ok(ended)
    } else {
        Err(format!("tidegate-audit verify ended with {:?}: {}", ended.code, ended.output))
    }
}

fn whole(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
