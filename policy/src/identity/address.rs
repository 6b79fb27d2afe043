//! Owns how a client's address is read and cut. Knows nothing of who trusts it.

use alloc::string::String;
use core::fmt::Write as _;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::digits::push_number;

/// `192.0.2.1:80`, `[2001:db8::1]:80`, or either without its port.
pub(super) fn client_ip(address: &[u8]) -> Option<IpAddr> {
    let text = core::str::from_utf8(address).ok()?;
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// The address within `192.0.2.1:80` where it is spelled as [`spell_ip`] would: nearly every client's. `None`: look
/// closer.
pub(super) fn plain_v4(address: &[u8]) -> Option<&[u8]> {
    let (mut dots, mut octet, mut digits, mut end) = (0u32, 0u32, 0u32, 0usize);
    for byte in address {
        match byte {
            // No octet begins with a nought that says nothing.
            b'0'..=b'9' if digits == 0 || octet > 0 => {
                octet = octet.wrapping_mul(10).wrapping_add(u32::from(byte.wrapping_sub(b'0')));
                digits = digits.wrapping_add(1);
            }
            b'.' if is_octet(octet, digits) => {
                (dots, octet, digits) = (dots.wrapping_add(1), 0, 0);
            }
            b':' => break,
            _ => return None,
        }
        end = end.wrapping_add(1);
    }
    let (address, port) = address.split_at_checked(end)?;
    (dots == 3 && is_octet(octet, digits) && is_port(port)).then_some(address)
}

/// At most three digits: more may be any number.
fn is_octet(octet: u32, digits: u32) -> bool {
    matches!(digits, 1..=3) && octet <= 255
}

/// `:` and one to five digits that are a port.
fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else { return false };
    let mut port = 0u32;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return false;
        }
        port = port.wrapping_mul(10).wrapping_add(u32::from(byte.wrapping_sub(b'0')));
    }
    matches!(digits.len(), 1..=5) && port <= u32::from(u16::MAX)
}

/// How many bits of an IPv6 address count if nothing else is said.
pub const V6_PREFIX: u8 = 64;

/// An address as subjects are; of IPv6 its leading bits, 1 to 128, since one client owns a whole network there.
pub fn spell_ip(address: IpAddr, v6_prefix: u8) -> String {
    let mut text = String::with_capacity(16);
    let written = match address {
        IpAddr::V4(v4) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    text.push('.');
                }
                push_number(&mut text, octet.into());
            }
            Ok(())
        }
        // An IPv4 client on a dual-stack listener is the IPv4 client.
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => write!(text, "{v4}"),
            None => {
                let keep = u32::from(v6_prefix.clamp(1, 128));
                let mask = u128::MAX.checked_shl(128 - keep).unwrap_or(u128::MAX);
                write!(text, "{}/{keep}", Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        },
    };
    // Writing to a String cannot fail.
    if written.is_err() {
        text.clear();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::format;

    proptest! {
        /// What is read at a glance is what a closer look says.
        #[test]
        fn a_glance_sees_what_a_closer_look_does(
            text in prop_oneof![
                "[0-3]?[0-9]{1,2}(\\.[0-9]{1,3}){3}(:[0-9]{0,6})?",
                "[0-9.:\\[\\]a]{0,20}",
            ],
            (v4, port) in any::<(u32, u16)>(),
        ) {
            if let Some(plain) = plain_v4(text.as_bytes()) {
                let spelled = client_ip(text.as_bytes()).map(|ip| spell_ip(ip, 64));
                prop_assert_eq!(Some(plain), spelled.as_ref().map(|text| text.as_bytes()));
            }
            let spelled = format!("{}", Ipv4Addr::from_bits(v4));
            let address = format!("{spelled}:{port}");
            prop_assert_eq!(plain_v4(address.as_bytes()), Some(spelled.as_bytes()));
        }
    }
}
