//! Owns checkpoints: what a chain looked like at a size, in the form of C2SP tlog-checkpoint, a signed
//! note. Knows no record.
//!
//! ```text
//! tidegate.example/eu              origin, the log's name
//! 4711                             records
//! <base64 of the root>             RFC 6962, over the records' hashes
//!
//! — tidegate.example/eu <base64 of the key's id, 4 bytes, and the signature, 64>
//! ```
//!
//! Extension lines are refused: the format advises against them and none is ours. Unknown keys'
//! signatures are passed over, a known key's wrong one is an error, and one known key has to have signed.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::hash::{Hash, from_base64, to_base64};
use super::record::SignatureCheck;
use super::value::Unfit;

/// Signatures per note at most; the format asks for at least 16.
pub const SIGNATURES_MAX: usize = 64;
/// The longest note in bytes.
pub const NOTE_LEN_MAX: usize = 65_535;

const ED25519: u8 = 1;
const SIGNATURE_MARK: &str = "\u{2014} ";

/// The state of a chain at a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name: a URL without its scheme.
    pub origin: String,
    /// How many records: the `seq` of the last.
    pub size: u64,
    /// The root over their hashes.
    pub root: Hash,
}

/// A public key that signs notes, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    public: [u8; 32],
}

// === impl NoteKey ===

impl NoteKey {
    /// A name has neither white space nor `+`, and is not empty.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, Unfit> {
        let wrong = |c: char| c == '+' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.contains(wrong) {
            return Err(Unfit(format!("{name:?} is no name: no white space, no +")));
        }
        Ok(Self { name: name.to_owned(), public })
    }

    /// Reads `name+id+key`, the form in which such keys are published.
    pub fn read(text: &str) -> Result<Self, Unfit> {
        let form = || Unfit(format!("{text:?} is no key: write name+8 hex digits+base64"));
        let (name, rest) = text.split_once('+').ok_or_else(form)?;
        let (_id, key) = rest.split_once('+').ok_or_else(form)?;
        let bytes = from_base64(key).ok_or_else(form)?;
        let (&kind, public) = bytes.split_first().ok_or_else(form)?;
        let public = public.try_into().ok().filter(|_| kind == ED25519).ok_or_else(form)?;
        let key = Self::new(name, public)?;
        // The id follows from the rest: another one is a mistake in copying.
        if key.to_string() == text { Ok(key) } else { Err(form()) }
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ed25519.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The id that stands before its signatures.
    pub fn id(&self) -> [u8; 4] {
        let Hash([a, b, c, d, ..]) =
            Hash::of(&[self.name.as_bytes(), b"\n", &[ED25519], &self.public]);
        [a, b, c, d]
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [[ED25519].as_slice(), &self.public].concat();
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), to_base64(&key))
    }
}

// === impl Checkpoint ===

impl Checkpoint {
    /// What is signed: the three lines.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, to_base64(&self.root.0))
    }

    /// The note with one signature, which `sign` makes of the text.
    pub fn note(&self, key: &NoteKey, sign: impl Fn(&[u8]) -> [u8; 64]) -> String {
        let text = self.text();
        let signature = [key.id().as_slice(), &sign(text.as_bytes())].concat();
        format!("{text}\n{SIGNATURE_MARK}{} {}\n", key.name, to_base64(&signature))
    }

    /// Reads a note and checks who signed it. The origin is the caller's to compare.
    pub fn open(note: &[u8], keys: &[NoteKey], check: &dyn SignatureCheck) -> Result<Self, Unfit> {
        if note.len() > NOTE_LEN_MAX {
            return Err(Unfit(format!("longer than {NOTE_LEN_MAX} bytes")));
        }
        let note = core::str::from_utf8(note).map_err(|bad| Unfit(format!("no text: {bad}")))?;
        if note.contains(|c: char| c.is_control() && c != '\n') {
            return Err(Unfit::new("control characters"));
        }
        let (text, signatures) = note
            .rsplit_once("\n\n")
            .ok_or_else(|| Unfit::new("no signature after an empty line"))?;
        let text = format!("{text}\n");
        let checkpoint = Self::read(&text)?;
        check_signatures(&text, signatures, keys, check)?;
        Ok(checkpoint)
    }

    fn read(text: &str) -> Result<Self, Unfit> {
        let lines: Vec<&str> = text.split('\n').collect();
        let &[origin, size, root, ""] = lines.as_slice() else {
            return Err(Unfit::new("not three lines: origin, size, root"));
        };
        let number = size.parse().ok().filter(|number: &u64| number.to_string() == size);
        let number = number.ok_or_else(|| Unfit::new("line 2 is no size without leading zeros"))?;
        let root = from_base64(root).and_then(|bytes| bytes.try_into().ok());
        let root = root.ok_or_else(|| Unfit::new("line 3 is no hash of 32 bytes in base64"))?;
        if origin.is_empty() {
            return Err(Unfit::new("line 1 is no origin"));
        }
        Ok(Self { origin: origin.to_owned(), size: number, root: Hash(root) })
    }
}

fn check_signatures(
    text: &str,
    signatures: &str,
    keys: &[NoteKey],
    check: &dyn SignatureCheck,
) -> Result<(), Unfit> {
    let form = || Unfit::new("a signature's line is not: dash, name, base64");
    let lines = signatures.strip_suffix('\n').ok_or_else(|| Unfit::new("no line's end"))?;
    let lines: Vec<&str> = lines.split('\n').collect();
    if lines.len() > SIGNATURES_MAX {
        return Err(Unfit(format!("more than {SIGNATURES_MAX} signatures")));
    }
    let mut known: usize = 0;
    for line in lines {
        let line = line.strip_prefix(SIGNATURE_MARK).ok_or_else(form)?;
        let (name, signature) = line.split_once(' ').ok_or_else(form)?;
        let bytes = from_base64(signature).ok_or_else(form)?;
        let (id, signature) = bytes.split_at_checked(4).ok_or_else(form)?;
        let Some(key) = keys.iter().find(|key| key.name == name && key.id() == *id) else {
            continue;
        };
        let good = signature
            .try_into()
            .is_ok_and(|signature| check.check(&key.public, text.as_bytes(), signature));
        if !good {
            return Err(Unfit(format!("the signature by {name} is wrong")));
        }
        known = known.saturating_add(1);
    }
    if known == 0 {
        return Err(Unfit::new("signed by no key that is known"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::{Fake, key, sign};
    use core::slice::from_ref;
    use std::vec;

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "log.example/eu".to_owned(), size: 17, root: Hash([5; 32]) }
    }

    fn note_key(name: &str, number: u8) -> NoteKey {
        NoteKey::new(name, key(number)).expect("a name")
    }

    #[test]
    fn a_note_is_opened_by_whom_it_is_signed_for() {
        let ours = note_key("log.example/eu", 1);
        let witness = note_key("witness.example", 2);
        let stranger = note_key("log.example/eu", 3);
        let note = checkpoint().note(&ours, |text| sign(1, text));
        let open = |note: &str, keys: &[NoteKey]| Checkpoint::open(note.as_bytes(), keys, &Fake);
        assert_eq!(open(&note, &[witness.clone(), ours.clone()]), Ok(checkpoint()));
        let error = open(&note, &[stranger]).expect_err("another key");
        assert!(error.0.contains("no key that is known"), "{error}");
        let wrong = checkpoint().note(&ours, |text| sign(2, text));
        let error = open(&wrong, from_ref(&ours)).expect_err("wrongly signed");
        assert!(error.0.contains("is wrong"), "{error}");
        // A second signature behind it; one wrong one of a known key spoils the note.
        let second = checkpoint().note(&witness, |text| sign(9, text));
        let line = second.rsplit_once("\n\n").expect("a signature").1;
        let both = format!("{note}{line}");
        assert_eq!(open(&both, from_ref(&ours)), Ok(checkpoint()));
        assert!(open(&both, &[ours, witness]).is_err());
    }

    #[test]
    fn other_spellings_are_refused() {
        let ours = note_key("log.example/eu", 1);
        let note = checkpoint().note(&ours, |text| sign(1, text));
        for (from, to) in [
            ("17", "017"),
            ("17", "+17"),
            ("17\n", "17\r\n"),
            ("17\n", "17\n\n"),
            ("BQUFBQ", "BQUFBR"),
            ("log.example/eu\n", "\n"),
            ("\u{2014} ", "- "),
            ("eu\n17", "us\n17"),
            ("\n\n", "\nextension\n\n"),
        ] {
            let broken = note.replacen(from, to, 1);
            assert_ne!(broken, note);
            assert!(Checkpoint::open(broken.as_bytes(), from_ref(&ours), &Fake).is_err(), "{to:?}");
        }
        for short in ["", "\n\n", "\n", note.trim_end()] {
            assert!(Checkpoint::open(short.as_bytes(), from_ref(&ours), &Fake).is_err());
        }
        let long = vec![b'a'; NOTE_LEN_MAX + 1];
        assert!(Checkpoint::open(&long, &[ours], &Fake).is_err());
    }

    /// The key of the examples of golang.org/x/mod/sumdb/note.
    #[test]
    fn a_published_key_is_read() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = NoteKey::read(text).expect("a key");
        assert_eq!((key.name(), key.to_string().as_str()), ("PeterNeumann", text));
        for wrong in
            ["PeterNeumann", &text.replace("c74f", "c74e"), &text.replace("Peter", "Pe ter")]
        {
            assert!(NoteKey::read(wrong).is_err(), "{wrong}");
        }
    }
}
