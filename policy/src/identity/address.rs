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

/// The address; of IPv6 its leading bits, since one client owns a whole network there.
pub(super) fn spell_ip(address: IpAddr, v6_prefix: u8) -> String {
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
