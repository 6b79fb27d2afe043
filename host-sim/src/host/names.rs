//! Names that a plugin resolves. It must not ask anybody: an address is its own, `localhost` is known, no other name is.

use std::net::{IpAddr, Ipv4Addr};

use super::root_news::RootNews;
use super::vm::Vm;
use super::vm_state::VmState;

impl VmState {
    /// One counter for a VM; its first number is 2, as in Envoy.
    pub(crate) fn next_dns_token(&mut self) -> u32 {
        self.dns_tokens = self.dns_tokens.wrapping_add(1).max(1);
        self.dns_tokens.wrapping_add(1)
    }

    /// Envoy tells a name that it need not ask for within the call itself; here every answer comes after the callback.
    pub(crate) fn resolve_name(&mut self, token: u32, name: &str) {
        let root = self.root_of(self.current);
        let address = match name {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            _ => name.parse().ok(),
        };
        let addresses = encode(address.as_slice());
        self.tell(root, 0, RootNews::Resolved { token, addresses });
    }
}

impl Vm {
    pub(super) fn resolved(&mut self, root: u32, token: u32, addresses: Vec<u8>) {
        let len = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        self.state_mut().call_data = addresses;
        let function = self.exports.resolve_dns.clone();
        self.call("envoy_on_resolve_dns", root, function, (root, token, len), || {
            format!("token {token}, {len} bytes")
        });
        self.state_mut().call_data.clear();
    }
}

/// A count, then each time to live in seconds, then each address with port 0 and a zero byte.
fn encode(addresses: &[IpAddr]) -> Vec<u8> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut bytes = count.to_le_bytes().to_vec();
    for _ in addresses {
        bytes.extend(0u32.to_le_bytes());
    }
    for address in addresses {
        bytes.extend(std::net::SocketAddr::new(*address, 0).to_string().into_bytes());
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_and_end_with_a_zero() {
        assert_eq!(encode(&[]), [0; 4]);
        let both = encode(&["127.0.0.9".parse().unwrap(), "::1".parse().unwrap()]);
        let (numbers, texts) = both.split_at(12);
        assert_eq!(numbers, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(texts, b"127.0.0.9:0\0[::1]:0\0");
    }
}
