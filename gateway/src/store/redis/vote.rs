//! Owns what several servers are taken to say where they differ: one that is parted from the others says what was.
//! Asks nobody.

/// What more than half of all that were asked say, whoever has not answered yet.
pub fn settled<T: PartialEq>(told: &[T], asked: usize) -> Option<&T> {
    told.iter().find(|one| votes(told, one) > asked / 2)
}

/// What most of them say; of what as many say, what ranks highest, then what was told first.
pub fn elected<T: PartialEq, R: Ord>(told: &[T], rank: impl Fn(&T) -> R) -> Option<&T> {
    let place = |one: &T| (votes(told, one), rank(one));
    told.iter().reduce(|best, one| if place(one) > place(best) { one } else { best })
}

fn votes<T: PartialEq>(told: &[T], one: &T) -> usize {
    told.iter().filter(|other| *other == one).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_of_all_settle_it() {
        for (told, asked, expected) in [
            ("", 0, None),
            ("a", 1, Some('a')),
            ("a", 2, None),
            ("aa", 3, Some('a')),
            ("ab", 3, None),
            ("abb", 3, Some('b')),
            ("aabb", 4, None),
        ] {
            let said: Vec<char> = told.chars().collect();
            assert_eq!(settled(&said, asked), expected.as_ref(), "{told} of {asked}");
        }
    }

    #[test]
    fn most_are_believed_and_of_as_many_the_highest() {
        for (told, expected) in [
            ("", None),
            ("a", Some('a')),
            ("abb", Some('b')),
            ("bba", Some('b')),
            ("ab", Some('b')),
            ("ba", Some('b')),
        ] {
            let said: Vec<char> = told.chars().collect();
            assert_eq!(elected(&said, |one| *one), expected.as_ref(), "{told}");
        }
        let said = [(1, 'x'), (1, 'y')];
        assert_eq!(elected(&said, |one| one.0), Some(&(1, 'x')));
    }
}
