//! Headers as Envoy keeps them: ordered, lower-case names, bytes. It must not know which map it is.

use std::sync::Arc;

use crate::abi::pairs::Pairs;

/// A header map. A request's headers are kept in many places and seldom changed, so copies share their pairs until one of
/// them is written.
#[derive(Debug, Clone, Default)]
pub struct HeaderMap {
    /// None for no pairs, so that an empty map allocates nothing.
    shared: Option<Arc<Pairs>>,
}

impl PartialEq for HeaderMap {
    fn eq(&self, other: &Self) -> bool {
        self.pairs() == other.pairs()
    }
}

impl Eq for HeaderMap {}

impl HeaderMap {
    /// A map of these pairs; names become lower case.
    pub fn from_pairs(mut pairs: Pairs) -> Self {
        for (key, _) in &mut pairs {
            key.make_ascii_lowercase();
        }
        Self { shared: Some(Arc::new(pairs)) }
    }

    /// Every pair, in order.
    pub fn pairs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        self.shared.as_ref().map_or(&[], |pairs| pairs.as_slice())
    }

    fn pairs_mut(&mut self) -> &mut Pairs {
        Arc::make_mut(self.shared.get_or_insert_default())
    }

    /// The first value of a name, which is all a plugin gets when it asks for one.
    pub fn first(&self, key: &[u8]) -> Option<&[u8]> {
        let mut fitting = self.pairs().iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        fitting.next().map(|(_, value)| value.as_slice())
    }

    /// The first value as text, lossily: for matching and reports.
    pub fn text(&self, key: &str) -> Option<String> {
        self.first(key.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Every value of a name.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let fits = move |name: &[u8]| name.eq_ignore_ascii_case(key.as_bytes());
        self.pairs().iter().filter(move |(name, _)| fits(name)).map(|(_, value)| value.as_slice())
    }

    /// Appends a pair.
    pub fn add(&mut self, key: &[u8], value: impl Into<Vec<u8>>) {
        self.pairs_mut().push((key.to_ascii_lowercase(), value.into()));
    }

    /// Removes every pair of a name and appends one, as Envoy does for a plugin: pseudo headers stay in front.
    pub fn replace(&mut self, key: &[u8], value: impl Into<Vec<u8>>) {
        let key = key.to_ascii_lowercase();
        self.remove(&key);
        let pairs = self.pairs_mut();
        let is_pseudo = |name: &[u8]| name.starts_with(b":");
        let pseudo_count = pairs.iter().filter(|(name, _)| is_pseudo(name)).count();
        let at = if is_pseudo(&key) { pseudo_count } else { pairs.len() };
        pairs.insert(at.min(pairs.len()), (key, value.into()));
    }

    /// Sets the first of a name where it stands, as Envoy does for headers of its own; appends where there is none.
    pub(crate) fn overwrite(&mut self, key: &[u8], value: impl Into<Vec<u8>>) {
        match self.pairs_mut().iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value.into(),
            None => self.add(key, value),
        }
    }

    /// Removes every pair of a name.
    pub fn remove(&mut self, key: &[u8]) {
        if self.first(key).is_some() {
            self.pairs_mut().retain(|(name, _)| !name.eq_ignore_ascii_case(key));
        }
    }

    /// How many pairs there are, as callbacks are told.
    pub fn count(&self) -> u32 {
        u32::try_from(self.pairs().len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.pairs().iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_appends_and_overwrite_keeps_the_place() {
        let mut map = HeaderMap::default();
        for (key, value) in [(":path", "1"), (":method", "2"), ("A", "3"), ("b", "4"), ("a", "5")] {
            map.add(key.as_bytes(), value);
        }
        map.replace(b"A", "6");
        map.replace(b":path", "7");
        map.overwrite(b"b", "8");
        map.overwrite(b"c", "9");
        let expected = [(":method", "2"), (":path", "7"), ("b", "8"), ("a", "6"), ("c", "9")];
        let expected = expected.map(|(key, value)| (key.into(), value.into()));
        assert_eq!(map.pairs(), expected);
        assert_eq!(map.first(b"B"), Some(b"8".as_slice()));
    }

    #[test]
    fn a_copy_keeps_its_pairs_when_the_other_is_written() {
        let mut map = HeaderMap::from_pairs(vec![(b"A".to_vec(), b"1".to_vec())]);
        let copy = map.clone();
        map.replace(b"a", "2");
        map.add(b"b", "3");
        assert_eq!((copy.first(b"a"), copy.count()), (Some(b"1".as_slice()), 1));
        map.remove(b"a");
        map.remove(b"B");
        assert_eq!(map, HeaderMap::default());
    }
}
