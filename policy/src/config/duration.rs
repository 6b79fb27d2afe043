//! Owns how durations are written: `10s`, `1h30m`, `250ms` (GEP-2257), or a unit's name.

use alloc::format;
use alloc::string::String;

/// The names of whole periods.
pub(super) const NAMES: &[&str] = &["second", "minute", "hour", "day", "week"];

/// A duration in ms, or `None` if the text is none. GEP-2257 (h, m, s, ms; up to five digits a
/// part), and `d` beside it.
pub(super) fn parse_ms(text: &str) -> Option<u64> {
    match text {
        "second" => return Some(1_000),
        "minute" => return Some(60_000),
        "hour" => return Some(3_600_000),
        "day" => return Some(86_400_000),
        "week" => return Some(7 * 86_400_000),
        _ => {}
    }
    let mut rest = text;
    let mut total_ms = 0u64;
    let mut unit_before = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return None;
        }
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let (unit_ms, len) = unit(rest)?;
        // Each unit once, larger ones first: `1m1m` and `1s1h` are slips, not durations.
        if unit_ms >= unit_before {
            return None;
        }
        unit_before = unit_ms;
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
        rest = rest.get(len..)?;
    }
    (unit_before != u64::MAX).then_some(total_ms)
}

/// A duration in the largest unit that it is a whole number of.
pub(super) fn written(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.into_iter().find(|(unit_ms, _)| ms > 0 && ms.is_multiple_of(*unit_ms));
    let (unit_ms, name) = whole.unwrap_or((1, "ms"));
    format!("{}{name}", ms.checked_div(unit_ms).unwrap_or_default())
}

fn unit(text: &str) -> Option<(u64, usize)> {
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
        .into_iter()
        .find(|(name, _)| text.starts_with(name))
        .map(|(name, unit_ms)| (unit_ms, name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written() {
        let rows = [
            ("45ms", Some(45)),
            ("10s", Some(10_000)),
            ("15m", Some(900_000)),
            ("1h30m", Some(5_400_000)),
            ("1s500ms", Some(1_500)),
            ("30d", Some(2_592_000_000)),
            ("minute", Some(60_000)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1s1h", None),
            ("1m1m", None),
            ("100000s", None),
            ("10 s", None),
            ("month", None),
            ("1ms1", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_ms(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_so_that_they_can_be_read() {
        for (ms, text) in [(1, "1ms"), (60_000, "1m"), (31_622_400_000, "366d"), (1_500, "1500ms")]
        {
            assert_eq!(written(ms), text);
            assert_eq!(parse_ms(text), Some(ms));
        }
    }
}
