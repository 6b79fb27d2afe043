//! Owns a real gateway.

/// The token that filter and gateway share in tests.
pub const TOKEN: &str = "test-token";
