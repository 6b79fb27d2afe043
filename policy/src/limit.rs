//! Owns which algorithm counts a limit. Knows no key, no clock and no store.

use serde::{Deserialize, Serialize};

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// At most `burst + t * limit / period` in every interval of length t (see [`crate::gcra`]).
    #[default]
    Gcra,
    /// Never more than `limit` in any period; has no burst of its own.
    Window,
}

// === impl Algorithm ===

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Gcra, Self::Window];

    /// The algorithm as it stands in configurations and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gcra => "gcra",
            Self::Window => "window",
        }
    }

    /// Whether it is the one that is meant where none is named.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
