//! Owns what becomes of a spool that is damaged: what can be read goes on waiting, the rest is kept aside and
//! counted. Knows no chain.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufWriter, Write};
use std::path::Path;

use super::{CRC_LEN, NAME, Waiting, parse};
use crate::audit::private;

const NEW: &str = "spool.new";

/// A spool that is whole again.
pub struct Mended {
    /// The file in its place.
    pub file: File,
    /// Where it ends.
    pub end: u64,
    /// Events that were accepted, and are gone.
    pub lost: u64,
}

/// The file at `path`.
pub fn opened(path: &Path) -> io::Result<File> {
    private::open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
}

/// Whether each line can be read.
pub fn is_whole(mut waiting: impl BufRead) -> io::Result<bool> {
    let mut line = Vec::new();
    while waiting.read_until(b'\n', &mut line)? > 0 {
        if line.strip_suffix(b"\n").and_then(parse).is_none() {
            return Ok(false);
        }
        line.clear();
    }
    Ok(true)
}

/// Puts what can be read of what waits into the spool's place, and the rest into a file of its own, all of it
/// on the disk.
pub fn mend(dir: &Path, mut waiting: impl BufRead) -> io::Result<Mended> {
    let mut lost = 0_u64;
    let (file, end) = replaced(dir, |good| {
        let (mut bad, mut line) = (Vec::new(), Vec::new());
        while waiting.read_until(b'\n', &mut line)? > 0 {
            for piece in pieces(&line) {
                match readable(piece) {
                    Some(text) => good.write_all(&[text, b"\n"].concat())?,
                    None => {
                        lost = lost.saturating_add(u64::from(!was_cut_off(piece)));
                        bad.extend_from_slice(piece);
                    }
                }
            }
            line.clear();
        }
        keep(dir, &bad, lost)
    })?;
    Ok(Mended { file, end, lost })
}

/// Puts what waits, as it is, into the spool's place: the file on the disk, and where it ends.
pub fn shrunk(dir: &Path, mut waiting: impl BufRead) -> io::Result<(File, u64)> {
    replaced(dir, |file| io::copy(&mut waiting, file).map(drop))
}

/// Another file in the spool's place once all of it is on the disk.
fn replaced(
    dir: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<(File, u64)> {
    let new = dir.join(NEW);
    // Half of an earlier attempt.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = BufWriter::new(opened(&new)?);
    fill(&mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(NAME))?;
    File::open(dir)?.sync_all()?;
    let end = file.metadata()?.len();
    Ok((file, end))
}

/// Where the end of a line was damaged the next one begins within it: with its checksum and a number.
/// That cannot stand within an event: canonical JSON has spaces in texts alone, and there a quote behind a
/// backslash.
fn pieces(line: &[u8]) -> Vec<&[u8]> {
    let begins = |at: usize| {
        let rest = line.get(at..).unwrap_or_default();
        let Some((crc, rest)) = rest.split_at_checked(CRC_LEN) else { return false };
        let Some(rest) = rest.strip_prefix(b" ") else { return false };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        crc.iter().all(u8::is_ascii_hexdigit)
            && digits > 0
            && rest.get(digits..).is_some_and(|rest| rest.starts_with(b" {\""))
    };
    let (mut pieces, mut from) = (Vec::new(), 0);
    for at in (1..line.len()).filter(|at| begins(*at)).chain([line.len()]) {
        pieces.extend(line.get(from..at));
        from = at;
    }
    pieces
}

/// The line of which only the end is missing or damaged.
fn readable(piece: &[u8]) -> Option<&[u8]> {
    let (_, without_end) = piece.split_last()?;
    [piece, without_end].into_iter().find(|text| parse(text).is_some_and(|_: Waiting| true))
}

/// An event ends with a brace, and its line with one octet more. What ends otherwise was not written to its
/// end, so nobody was told that it was accepted.
fn was_cut_off(piece: &[u8]) -> bool {
    let without_end = piece.split_last().map_or(piece, |(_, rest)| rest);
    !piece.ends_with(b"}") && !without_end.ends_with(b"}")
}

/// Puts what cannot be read into a file that is there for good: under a name that no other run gives, since
/// the numbers of processes come again.
fn keep(dir: &Path, bad: &[u8], lost: u64) -> io::Result<()> {
    if bad.is_empty() {
        tracing::warn!(folder = %dir.display(), "ends of lines of the audit spool were damaged");
        return Ok(());
    }
    let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
    let path = dir.join(format!("spool.damaged-{random:016x}"));
    let mut file = private::open(&path, OpenOptions::new().write(true).create_new(true))?;
    file.write_all(bad)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    if lost > 0 {
        tracing::error!(
            critical = true, file = %path.display(), events = lost,
            "the audit spool is damaged: events that were accepted are lost, and their lines are kept aside"
        );
    } else {
        tracing::warn!(
            file = %path.display(),
            "the audit spool ended in a write that was cut off, which nobody was told of; it is kept aside"
        );
    }
    Ok(())
}
