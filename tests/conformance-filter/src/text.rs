//! Owns how bytes stand in a log line: printable ASCII as it is, anything else escaped, long values
//! by length and digest.

/// Longer values are told by their length and a digest: a log line is for people.
const SHOWN_MAX: usize = 400;

/// A value in quotes.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    if bytes.len() > SHOWN_MAX {
        return format!("<{} bytes, digest {:08x}>", bytes.len(), digest(bytes));
    }
    let mut out = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(char::from(*byte)),
            _ => out += &format!("\\x{byte:02x}"),
        }
    }
    out.push('"');
    out
}

/// A header map as its pairs; bytes that are no map as they are.
pub(crate) fn pairs(bytes: &[u8]) -> String {
    let Some(pairs) = decode(bytes) else {
        return quoted(bytes);
    };
    let each = pairs.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)));
    format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
}

/// FNV-1a.
fn digest(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn decode(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut sizes = bytes;
    let count = number(&mut sizes)?;
    let mut data = sizes.get(count.checked_mul(8)?..)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let (key, value) = (number(&mut sizes)?, number(&mut sizes)?);
        pairs.push((part(&mut data, key)?, part(&mut data, value)?));
    }
    data.is_empty().then_some(pairs)
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*head)).ok()
}

fn part<'b>(data: &mut &'b [u8], size: usize) -> Option<&'b [u8]> {
    let (value, rest) = data.split_at_checked(size)?;
    *data = rest.strip_prefix(&[0])?;
    Some(value)
}
