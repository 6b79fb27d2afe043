//! Owns host patterns and the one spelling of a host they are compared in.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Which hosts fall under a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Every host below a domain, not the domain itself: `*.example.com`.
    Below(String),
}

/// Why a text is no host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHost {
    /// Holds `*` elsewhere than in a leading `*.`.
    Star,
    /// Has a port: hosts are compared without.
    Port,
    /// No request's host has this spelling.
    NotCanonical,
}

const HOST_LEN_MAX: usize = 253;

// === impl HostPattern ===

impl HostPattern {
    /// Reads `api.example.com`, `*.example.com` or `[2001:db8::1]`.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(BadHost::Star);
        }
        let spelled = canonical_host(name.as_bytes());
        if spelled != name.as_bytes() {
            let is_port = name.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
            });
            return Err(if is_port { BadHost::Port } else { BadHost::NotCanonical });
        }
        let bracketed = name.starts_with('[') && name.ends_with(']');
        let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let labels = !name.starts_with('.') && !name.contains("..");
        if name.is_empty()
            || name.len() > HOST_LEN_MAX
            || !(bracketed || (labels && name.bytes().all(sound)))
        {
            return Err(BadHost::NotCanonical);
        }
        let name = name.to_owned();
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }
}

/// A host as it is compared: in lower case, without port and closing dot (RFC 9110 §4.2.3).
pub fn canonical_host(authority: &[u8]) -> Vec<u8> {
    // `user@host` is no authority that HTTP sends; what a client writes before @ names no host.
    let host = authority.rsplit(|&b| b == b'@').next().unwrap_or_default();
    let end = match host.iter().rposition(|&b| b == b':') {
        Some(colon) if host.iter().skip(colon).all(|&b| b != b']') => colon,
        _ => host.len(),
    };
    let host = host.get(..end).unwrap_or(host);
    let host = host.strip_suffix(b".").unwrap_or(host);
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_host_has_one_spelling() {
        for (written, spelled) in [
            ("API.Example.com:8443", "api.example.com"),
            ("api.example.com.", "api.example.com"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("evil@api.example.com", "api.example.com"),
            ("", ""),
        ] {
            assert_eq!(canonical_host(written.as_bytes()), spelled.as_bytes(), "{written}");
        }
    }

    #[test]
    fn what_no_request_can_have_is_refused() {
        let below = HostPattern::Below("example.com".to_string());
        assert_eq!(HostPattern::parse("*.example.com"), Ok(below));
        for (text, expected) in [
            ("a.*.com", BadHost::Star),
            ("*", BadHost::Star),
            ("api.example.com:443", BadHost::Port),
            ("API.example.com", BadHost::NotCanonical),
            ("api.example.com.", BadHost::NotCanonical),
            ("", BadHost::NotCanonical),
            (".example.com", BadHost::NotCanonical),
            ("a b", BadHost::NotCanonical),
            ("https://api.example.com", BadHost::NotCanonical),
        ] {
            assert_eq!(HostPattern::parse(text), Err(expected), "{text}");
        }
    }
}
