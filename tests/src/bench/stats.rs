//! Owns medians, spreads and the shuffle of rounds.

use std::fmt;
use std::time::Duration;

/// Figures of one row over all rounds.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<f64>);

// === impl Figures ===

impl Figures {
    /// Adds a round's figure.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The median; NaN of nothing.
    pub fn median(&self) -> f64 {
        let mut sorted: Vec<f64> = self.0.iter().copied().filter(|f| !f.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        }
    }

    /// The least and the greatest.
    pub fn spread(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// Median, least and greatest; nothing where there is no number.
    pub fn json(&self) -> serde_json::Value {
        let (least, most) = self.spread();
        let number = |figure: f64| {
            let rounded = (figure * 1000.0).round() / 1000.0;
            if rounded.is_finite() { rounded.into() } else { serde_json::Value::Null }
        };
        serde_json::json!({
            "median": number(self.median()), "least": number(least), "most": number(most),
        })
    }

    /// The same figures, each less the other row's of the same round.
    pub fn less(&self, other: &Figures) -> Figures {
        Figures(self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect())
    }

    /// The same figures, each divided by the other row's of the same round.
    pub fn over(&self, other: &Figures) -> Figures {
        Figures(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// The median, and between which two of the figures that of endless rounds lies.
    pub fn surely(&self) -> String {
        let (low, high) = self.median_within();
        format!("{:.2} (within {low:.2}..{high:.2})", self.median())
    }

    /// Between which two of the figures the median of endless rounds lies, 19 times of 20 (the binomial's order
    /// statistics, whatever the figures' distribution); all of them where there are few.
    pub fn median_within(&self) -> (f64, f64) {
        let mut sorted: Vec<f64> = self.0.iter().copied().filter(|f| !f.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len() as f64;
        let below = (count / 2.0 - 0.98 * count.sqrt()).floor().max(1.0) as usize;
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        (at(below - 1), at(sorted.len().wrapping_sub(below)))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, greatest) = self.spread();
        write!(f, "{:.2} [{least:.2}..{greatest:.2}]", self.median())
    }
}

/// The time, in ms, within which so many percent of these (sorted) were done; NaN of nothing.
pub fn at_share(sorted: &[Duration], percent: usize) -> f64 {
    let place = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(place).map_or(f64::NAN, |took| took.as_secs_f64() * 1_000.0)
}

/// Shuffles by a seed (SplitMix64), so that no row always follows the same other row.
pub fn shuffle<T>(items: &mut [T], seed: &mut u64) {
    for last in (1..items.len()).rev() {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *seed;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(last + 1).expect("a length fits");
        items.swap(last, usize::try_from((bits ^ (bits >> 31)) % bound).expect("below a length"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_spreads_and_ratios() {
        let figures = |values: &[f64]| Figures(values.to_vec());
        assert_eq!(figures(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(figures(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(figures(&[3.0, 1.0, 2.0]).spread(), (1.0, 3.0));
        assert_eq!(figures(&[1.0, 9.0]).over(&figures(&[2.0, 3.0])).median(), 1.75);
        assert_eq!(figures(&[1.0, 9.0]).less(&figures(&[2.0, 3.0])).spread(), (-1.0, 6.0));
        let many: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(figures(&many).median_within(), (40.0, 61.0));
        assert_eq!(figures(&[3.0, 1.0, 2.0]).median_within(), (1.0, 3.0));
        assert!(figures(&[]).median_within().0.is_nan());
        assert!(figures(&[]).median().is_nan() && at_share(&[], 99).is_nan());
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(at_share(&[ms(1), ms(2), ms(9)], 50), 2.0);
        assert_eq!(figures(&[f64::NAN, 2.0]).json()["median"], 2.0);
        assert!(figures(&[f64::NAN]).json()["median"].is_null());
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..20).collect();
        shuffle(&mut items, &mut 7);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
