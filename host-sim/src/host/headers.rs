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

    /// Sets the first of a name and removes the others.
    pub fn replace(&mut self, key: &[u8], value: impl Into<Vec<u8>>) {
        let pairs = self.pairs_mut();
        let mut fitting = pairs.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        let Some((_, first)) = fitting.next() else {
            pairs.push((key.to_ascii_lowercase(), value.into()));
            return;
        };
        *first = value.into();
        if fitting.next().is_some() {
            let mut is_first = true;
            pairs.retain(|(name, _)| {
                !name.eq_ignore_ascii_case(key) || std::mem::replace(&mut is_first, false)
            });
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
    fn replace_keeps_the_place_of_the_first_and_drops_the_rest() {
        let mut map = HeaderMap::default();
        for (key, value) in [("A", "1"), ("b", "2"), ("a", "3")] {
            map.add(key.as_bytes(), value);
        }
        map.replace(b"A", "9");
        assert_eq!(map.pairs(), [(b"a".to_vec(), b"9".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
        assert_eq!(map.first(b"B"), Some(b"2".as_slice()));
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
