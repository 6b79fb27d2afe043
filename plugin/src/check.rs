//! Owns the answer to a check before deployment. It runs when an author asks, never when requests are
//! served.

use tidegate_policy::check::check;

/// Diagnostics as JSON.
pub(crate) fn answer(config: &[u8], facts: &[u8]) -> String {
    // A byte that is no UTF-8 becomes a character that the reader refuses at its place.
    check(&String::from_utf8_lossy(config), &String::from_utf8_lossy(facts))
}
