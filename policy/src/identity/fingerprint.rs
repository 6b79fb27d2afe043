//! Owns the stable fingerprint of a client: device, user agent and TLS, without the address, so
//! that phones, NAT and VPNs do not change it (product row E).

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::facts::Facts;
use super::source::Place;
use super::subject::{SubjectName, hex};

/// Stands for a part that is absent.
const ABSENT: &[u8] = b"-";

/// What a fingerprint is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The device's id, from a source that is trusted; without it there is no fingerprint.
    pub device: Place,
    /// JA3 or JA4, if one is looked for.
    pub tls: Option<Place>,
}

// === impl Fingerprint ===

impl Fingerprint {
    /// `{device_id}:{sha256(user_agent)[:16]}:{tls_fingerprint}`. Device and TLS are spelled as
    /// subjects are, so that no part holds a `:`; a part that is absent is `-`.
    pub fn value(&self, facts: &Facts<'_>) -> Option<Vec<u8>> {
        let device = self.device.value(facts)?;
        let mut text = part(&device);
        text.push(b':');
        match facts.header("user-agent") {
            Some(agent) => text.extend(hex(&Sha256::digest(agent), 8).into_bytes()),
            None => text.extend(ABSENT),
        }
        text.push(b':');
        match self.tls.as_ref().and_then(|tls| tls.value(facts)) {
            Some(tls) => text.extend(part(&tls)),
            None => text.extend(ABSENT),
        }
        Some(text)
    }
}

/// `-` alone is spelled out: it stands for an absent part.
fn part(value: &[u8]) -> Vec<u8> {
    if value == ABSENT {
        return b"%2D".to_vec();
    }
    SubjectName::from_bytes(value).as_str().as_bytes().to_vec()
}
