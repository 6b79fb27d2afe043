//! Owns the root over all records of a chain, as RFC 6962 §2.1 makes it. Knows no record and no
//! signature; a leaf's content is a record's hash.
//!
//! Only the right edge of the tree is kept: one hash for each bit of its size, so that a chain of
//! millions is hashed in the memory of a few dozen.

use alloc::vec::Vec;

use super::hash::Hash;

/// The right edge of a tree that grows leaf by leaf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The roots of the whole subtrees that the size's bits say, the largest first.
    peaks: Vec<Hash>,
}

// === impl Frontier ===

impl Frontier {
    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf with `content`.
    pub fn push(&mut self, content: &[u8]) {
        let mut node = Hash::of(&[&[0], content]);
        // Each bit that the counter carries over joins two subtrees of one height.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = join(&left, &node);
            }
        }
        self.peaks.push(node);
        self.size = self.size.saturating_add(1);
    }

    /// The root: of no leaf it is the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return Hash::of(&[]);
        };
        peaks.fold(*last, |right, left| join(left, &right))
    }
}

fn join(left: &Hash, right: &Hash) -> Hash {
    Hash::of(&[&[1], &left.0, &right.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec;

    /// The vectors of Certificate Transparency's own tests.
    #[test]
    fn the_roots_are_those_of_certificate_transparency() {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(frontier.root().to_string(), nothing);
        for (leaf, root) in leaves.into_iter().zip(roots) {
            frontier.push(leaf);
            assert_eq!(frontier.root().to_string(), root, "of {}", frontier.size());
        }
    }

    /// RFC 6962 §2.1, word by word.
    fn definition(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Hash::of(&[]),
            [leaf] => Hash::of(&[&[0], leaf]),
            _ => {
                let half = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(half);
                Hash::of(&[&[1], &definition(left).0, &definition(right).0])
            }
        }
    }

    #[test]
    fn the_edge_gives_the_root_of_the_definition_at_every_size() {
        let mut leaves = vec![];
        let mut frontier = Frontier::default();
        for number in 0..130_u8 {
            leaves.push(vec![number; usize::from(number)]);
            frontier.push(&leaves[usize::from(number)]);
            assert_eq!(frontier.root(), definition(&leaves), "of {}", leaves.len());
        }
    }

    proptest! {
        #[test]
        fn another_leaf_is_another_root(size in 1..40_u8, at in any::<u8>()) {
            let root = |changed: Option<u8>| {
                let mut frontier = Frontier::default();
                (0..size).for_each(|n| frontier.push(&[n, u8::from(changed == Some(n))]));
                frontier.root()
            };
            prop_assert_ne!(root(None), root(Some(at % size)));
        }
    }
}
