//! Owns how numbers are appended to a text: a formatter takes ten times as long, and every response
//! that shows its limits is written with some.

use alloc::string::String;

/// The numbers below a hundred.
const PAIRS: &str = "\
    0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
    5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// Appends a number in decimal digits, two at a time.
pub(crate) fn push_number(text: &mut String, number: u64) {
    let (before, last) = (number / 100, number % 100);
    if before > 0 {
        push_number(text, before);
    }
    let at = usize::try_from(last * 2).unwrap_or(0);
    let from = if before == 0 && last < 10 { at.saturating_add(1) } else { at };
    text.push_str(PAIRS.get(from..at.saturating_add(2)).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    proptest! {
        #[test]
        fn digits_are_those_of_the_formatter(number: u64, shift in 0u32..64) {
            let number = number >> shift;
            let mut text = String::from("x");
            push_number(&mut text, number);
            prop_assert_eq!(text, std::format!("x{number}"));
        }
    }

    #[test]
    fn the_ends_are_written() {
        for number in [0, 9, 10, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }
}
