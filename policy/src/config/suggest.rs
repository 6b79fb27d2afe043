//! Owns "did you mean": the nearest of the known words.

use alloc::vec::Vec;

/// The known word that `text` most probably stands for, if any is near enough.
pub fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let near_max = text.chars().count().clamp(1, 9).div_ceil(3);
    known
        .iter()
        .map(|word| (distance(text, word), *word))
        .filter(|(distance, _)| *distance <= near_max)
        .min()
        .map(|(_, word)| word)
}

/// Levenshtein's distance over characters; texts longer than 64 are no slip of the pen.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(65).enumerate() {
        let mut corner = i;
        let mut left = i.saturating_add(1);
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            let cost = usize::from(x != *y);
            left = left
                .saturating_add(1)
                .min(above.saturating_add(1))
                .min(corner.saturating_add(cost));
            corner = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let known = ["minute", "second", "hour", "day", "week"];
        assert_eq!(nearest("minut", &known), Some("minute"));
        assert_eq!(nearest("hours", &known), Some("hour"));
        assert_eq!(nearest("fortnight", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
