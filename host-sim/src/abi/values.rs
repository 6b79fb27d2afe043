//! The encoding of property values. It must not know any property.

use super::pairs;

/// A value as Envoy's expressions know it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Text, or the bytes of a protobuf message.
    Bytes(Vec<u8>),
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// Every number of a filter's or a route's metadata is one.
    Double(f64),
    DurationNs(i64),
    List(Vec<Value>),
    Map(Vec<(Vec<u8>, Value)>),
}

impl Value {
    /// Numbers and times are 8 bytes, a truth is one, text and messages are themselves, a list is a map of empty values.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Bool(truth) => vec![u8::from(*truth)],
            Self::Int(whole) | Self::DurationNs(whole) => whole.to_le_bytes().to_vec(),
            Self::Uint(whole) => whole.to_le_bytes().to_vec(),
            Self::Double(number) => number.to_le_bytes().to_vec(),
            Self::List(items) => encode_map(items.iter().map(|item| (item.encode(), Vec::new()))),
            Self::Map(fields) => {
                encode_map(fields.iter().map(|(key, value)| (key.clone(), value.encode())))
            }
        }
    }
}

/// Unlike a header map, an empty one still has its count.
pub(crate) fn encode_map(fields: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    let fields: Vec<_> = fields.collect();
    if fields.is_empty() { vec![0; 4] } else { pairs::encode(&fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_bytes() {
        assert_eq!(Value::Bytes(b"a\xff".to_vec()).encode(), b"a\xff");
        assert_eq!(Value::Bool(true).encode(), [1]);
        assert_eq!(Value::Int(-1).encode(), [0xff; 8]);
        assert_eq!(Value::Uint(u64::MAX).encode(), [0xff; 8]);
        assert_eq!(Value::Double(5.0).encode(), [0, 0, 0, 0, 0, 0, 0x14, 0x40]);
        assert_eq!(Value::DurationNs(5_000_000).encode(), 5_000_000u64.to_le_bytes());
        let list = Value::List(vec![Value::Bytes(b"a".to_vec()), Value::Bool(false)]);
        assert_eq!(
            pairs::decode(&list.encode()),
            [(b"a".to_vec(), Vec::new()), (vec![0], Vec::new())]
        );
        let map = Value::Map(vec![(b"k".to_vec(), Value::List(Vec::new()))]);
        assert_eq!(pairs::decode(&map.encode()), [(b"k".to_vec(), vec![0; 4])]);
        assert_eq!(Value::Map(Vec::new()).encode(), [0; 4]);
    }
}
