//! Owns the host's encoding of header maps: count, sizes, then each name and value with a closing
//! NUL, all numbers little-endian u32.

/// Headers in order, names as the host gives them (lower case), borrowed from its encoding.
pub(crate) type Headers<'b> = Vec<(&'b [u8], &'b [u8])>;

/// Reads a map. What is malformed ends the reading: the host would have to be broken.
pub(crate) fn decode(bytes: &[u8]) -> Option<Headers<'_>> {
    if bytes.is_empty() {
        return Some(Headers::new());
    }
    let mut sizes = bytes;
    let count = number(&mut sizes)?;
    let mut data = sizes.get(count.checked_mul(8)?..)?;
    let mut headers = Headers::with_capacity(count);
    for _ in 0..count {
        let (name_size, value_size) = (number(&mut sizes)?, number(&mut sizes)?);
        headers.push((text(&mut data, name_size)?, text(&mut data, value_size)?));
    }
    Some(headers)
}

/// Writes a map. Sizes beyond u32 cannot occur in a 32-bit memory.
pub(crate) fn encode(headers: &[(&str, &str)]) -> Vec<u8> {
    encode_bytes(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

/// The same of values that need not be text, without a list of them.
pub(crate) fn encode_bytes<'h>(
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
) -> Vec<u8> {
    let (mut count, mut len) = (0usize, 4usize);
    for (name, value) in headers.clone() {
        count = count.wrapping_add(1);
        len = len.wrapping_add(10).wrapping_add(name.len()).wrapping_add(value.len());
    }
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&size(count));
    for (name, value) in headers.clone() {
        bytes.extend_from_slice(&size(name.len()));
        bytes.extend_from_slice(&size(value.len()));
    }
    for (name, value) in headers {
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    bytes
}

fn size(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*head)).ok()
}

fn text<'b>(data: &mut &'b [u8], size: usize) -> Option<&'b [u8]> {
    let (value, rest) = data.split_at_checked(size)?;
    *data = rest.strip_prefix(&[0])?;
    Some(value)
}
