//! Owns how numbers are appended to a text: a formatter takes ten times as long, and every response
//! that shows its limits is written with some.

use alloc::string::String;

/// As many digits as the largest `u64` has.
const DIGITS_MAX: usize = 20;

/// Appends a number in decimal digits.
pub(crate) fn push_number(text: &mut String, mut number: u64) {
    let mut digits = [0u8; DIGITS_MAX];
    let mut left = DIGITS_MAX;
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        // The remainder of ten is a digit.
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        left = place;
        if number == 0 {
            break;
        }
    }
    text.push_str(digits.get(left..).and_then(|d| core::str::from_utf8(d).ok()).unwrap_or("0"));
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
