//! Owns what one of the host's properties can be. Knows neither paths nor how it was read.

/// What one of the host's properties is.
pub(crate) enum Property {
    /// There is none.
    Absent,
    /// It is there, and no bytes stand for it: a null, or something that holds one.
    Nameless,
    /// Its bytes.
    Bytes(Vec<u8>),
}

// === impl Property ===

impl Property {
    /// Its bytes, if any stand for it.
    pub(crate) fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Absent | Self::Nameless => None,
        }
    }
}
