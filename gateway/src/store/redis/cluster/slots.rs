//! Owns the slots of a Cluster: which key lies in which, what a node says of who serves them, and a key of each
//! master's own. Asks nobody.

use std::collections::BTreeMap;

use redis::Value;

use crate::store::keys;

/// How many there are.
pub const SLOTS: u16 = 16_384;

/// First and last slot, and the node that serves them as a master.
pub type SlotRange = (u16, u16, String);

/// Per node a key of its own. Among so many keys there is one even for a node of one slot.
pub fn probes(ranges: &[SlotRange]) -> BTreeMap<String, (u16, String)> {
    const TRIES: u32 = 16 * SLOTS as u32;
    let mut missing = BTreeMap::new();
    for (first, _, node) in ranges {
        missing.entry(node.as_str()).or_insert(*first);
    }
    let mut found = BTreeMap::new();
    for number in 0..TRIES {
        if missing.is_empty() {
            break;
        }
        let key = keys::probe(number);
        let slot = slot(&key);
        let serving = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        if let Some((_, _, node)) = serving
            && let Some(first) = missing.remove(node.as_str())
        {
            found.insert(node.clone(), (first, key));
        }
    }
    found
}

/// A reply of CLUSTER SLOTS: first slot, last slot, then the master as host, port and more. A node
/// that does not know its own host is at the host that was asked.
pub fn ranges(reply: &Value, asked: &str) -> Option<Vec<SlotRange>> {
    let Value::Array(rows) = reply else { return None };
    let mut ranges = Vec::new();
    for row in rows {
        let (first, last, [host, Value::Int(port), ..]) = served_by(row)? else { return None };
        let host: Option<String> = redis::from_redis_value_ref(host).ok()?;
        let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.to_owned());
        ranges.push((first, last, format!("{host}:{port}")));
    }
    ranges.sort();
    Some(ranges)
}

/// Which master serves a slot by such a reply: its id, which it keeps under whichever address. `None` where none is told.
pub fn id_of(slot: u16, reply: &Value) -> Option<String> {
    let Value::Array(rows) = reply else { return None };
    let mut rows = rows.iter().filter_map(served_by);
    let (_, _, master) = rows.find(|(first, last, _)| (*first..=*last).contains(&slot))?;
    let id: String = redis::from_redis_value_ref(master.get(2)?).ok()?;
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_id.then_some(id)
}

/// A row of such a reply: first and last slot, and what it says of the master.
fn served_by(row: &Value) -> Option<(u16, u16, &[Value])> {
    let Value::Array(row) = row else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = row.as_slice() else {
        return None;
    };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    (first <= last).then_some((first, last, master.as_slice()))
}

/// How many slots a map names.
pub fn served(ranges: &[SlotRange]) -> u32 {
    ranges.iter().map(|(first, last, _)| u32::from(last.saturating_sub(*first)) + 1).sum()
}

/// CRC16 (XMODEM) of what stands in the first braces, or of all.
pub fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    let crc = tag.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // CLUSTER KEYSLOT of Redis 7 said so; the first is the example of its specification.
        let rows = [("123456789", 12_739), ("{user1000}.following", 3_443), ("foo{}{bar}", 8_363)];
        for (key, expected) in rows {
            assert_eq!(slot(key), expected, "{key}");
        }
        assert_eq!(slot("ratelimit:{here|a1}:start"), slot("settled:{here|a1}:x"));
    }

    #[test]
    fn a_map_is_read_or_refused() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port)]);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let row = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let good = Value::Array(vec![
            row(8_192, 16_383, node(text(""), 7)),
            row(0, 8_191, node(text("h"), 6)),
        ]);
        let expected = vec![(0, 8_191, "h:6".to_owned()), (8_192, 16_383, "me:7".to_owned())];
        assert_eq!(ranges(&good, "me"), Some(expected));
        for bad in [Value::Nil, Value::Array(vec![row(2, 1, node(text("h"), 6))])] {
            assert_eq!(ranges(&bad, "me"), None);
            assert_eq!(id_of(2, &bad), None);
        }
        let named = |id: &str| Value::Array(vec![text(""), Value::Int(7), text(id), text("more")]);
        let told = Value::Array(vec![row(0, 8, named("07c3")), row(9, 16_383, named("9f5a"))]);
        assert_eq!(
            [8, 9].map(|slot| id_of(slot, &told)),
            ["07c3", "9f5a"].map(|id| Some(id.into()))
        );
        for none in [good, Value::Array(vec![row(0, 8, named("h:6")), row(9, 9, named(""))])] {
            assert_eq!([8, 9, 16_383].map(|slot| id_of(slot, &none)), [None, None, None]);
        }
    }
}
