//! Headers as Envoy keeps them: ordered, lower-case names, bytes. It must not know which map it is.

use crate::abi::pairs::Pairs;

/// A header map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMap {
    pairs: Pairs,
}

impl HeaderMap {
    /// A map of these pairs; names become lower case.
    pub fn from_pairs(pairs: Pairs) -> Self {
        let mut map = Self::default();
        for (key, value) in pairs {
            map.add(&key, value);
        }
        map
    }

    /// Every pair, in order.
    pub fn pairs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.pairs
    }

    /// The first value of a name, which is all a plugin gets when it asks for one.
    pub fn first(&self, key: &[u8]) -> Option<&[u8]> {
        let key = key.to_ascii_lowercase();
        self.pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_slice())
    }

    /// The first value as text, lossily: for matching and reports.
    pub fn text(&self, key: &str) -> Option<String> {
        self.first(key.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Every value of a name.
    pub fn all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a [u8]> {
        let key = key.to_ascii_lowercase().into_bytes();
        self.pairs.iter().filter(move |(name, _)| *name == key).map(|(_, value)| value.as_slice())
    }

    /// Appends a pair.
    pub fn add(&mut self, key: &[u8], value: impl Into<Vec<u8>>) {
        self.pairs.push((key.to_ascii_lowercase(), value.into()));
    }

    /// Sets the first of a name and removes the others.
    pub fn replace(&mut self, key: &[u8], value: impl Into<Vec<u8>>) {
        let key = key.to_ascii_lowercase();
        let position = self.pairs.iter().position(|(name, _)| *name == key);
        self.remove(&key);
        let at = position.unwrap_or(self.pairs.len()).min(self.pairs.len());
        self.pairs.insert(at, (key, value.into()));
    }

    /// Removes every pair of a name.
    pub fn remove(&mut self, key: &[u8]) {
        let key = key.to_ascii_lowercase();
        self.pairs.retain(|(name, _)| *name != key);
    }

    /// How many pairs there are, as callbacks are told.
    pub fn count(&self) -> u32 {
        u32::try_from(self.pairs.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.pairs.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_keeps_the_place_of_the_first_and_drops_the_rest() {
        let mut map = HeaderMap::default();
        for (key, value) in [("A", "1"), ("b", "2"), ("a", "3")] {
            map.add(key.as_bytes(), value);
        }
        map.replace(b"A", "9");
        assert_eq!(map.pairs(), [(b"a".to_vec(), b"9".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
        assert_eq!(map.first(b"B"), Some(b"2".as_slice()));
    }
}
