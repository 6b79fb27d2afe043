//! Envoy's foreign functions: which exist and what they answer. It must not know how a plugin's memory is reached.
//!
//! `compress`, `uncompress`, `clear_route_cache`, `declare_property` and `set_envoy_filter_state` do what Envoy does.
//! `expr_create` takes a path of names alone (`request.path`); any other expression is Unimplemented. `sign` and
//! `verify_signature` check their arguments and then are Unimplemented: no cryptography is worth its weight here.

use std::collections::BTreeMap;

use super::vm_state::VmState;
use crate::abi::codes::{LogLevel, Status};
use crate::abi::protobuf::Message;

/// What foreign functions leave behind in a VM.
#[derive(Default)]
pub(crate) struct Foreign {
    /// Declared properties by root and name: whether each may be set only once.
    declared: BTreeMap<(u32, String), bool>,
    /// Expressions by root and number.
    expressions: BTreeMap<(u32, u32), Vec<u8>>,
    next_expression: u32,
}

/// What a plugin may make the host unpack at once.
const UNCOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The level of zlib's own default.
const LEVEL: u8 = 6;

/// Keys of filter state that Envoy can make of bytes; it refuses all others.
const FILTER_STATE_KEYS: [&str; 12] = [
    "envoy.string",
    "envoy.hashable_string",
    "envoy.tcp_proxy.cluster",
    "envoy.tcp_proxy.disable_tunneling",
    "envoy.tcp_proxy.per_connection_idle_timeout_ms",
    "envoy.network.upstream_server_name",
    "envoy.network.application_protocols",
    "envoy.network.upstream_subject_alt_names",
    "envoy.network.transport_socket.original_dst_address",
    "envoy.filters.listener.original_dst.local_ip",
    "envoy.filters.listener.original_dst.remote_ip",
    "envoy.ratelimit.hits_addend",
];

type Answer = Result<Vec<u8>, Status>;

impl Foreign {
    /// Whether a property of this root may be set only once.
    pub(super) fn is_read_only(&self, root: u32, name: &str) -> bool {
        self.declared.get(&(root, name.to_owned())).copied().unwrap_or(false)
    }
}

impl VmState {
    /// None for a function that Envoy does not have.
    pub(crate) fn foreign_call(&mut self, name: &str, args: &[u8]) -> Option<Answer> {
        Some(match name {
            // There is one route here, so nothing has to be chosen again.
            "clear_route_cache" => Ok(Vec::new()),
            "compress" => Ok(miniz_oxide::deflate::compress_to_vec_zlib(args, LEVEL)),
            "uncompress" => uncompress(args),
            "declare_property" => self.declare_property(args),
            "set_envoy_filter_state" => self.set_filter_state(args),
            "expr_create" => self.expr_create(args),
            "expr_evaluate" => self.expr_evaluate(args),
            "expr_delete" => self.expr_delete(args),
            "sign" => self.refuse_signature(name, args, 2, 4),
            "verify_signature" => self.refuse_signature(name, args, 2, 5),
            _ => return None,
        })
    }

    fn declare_property(&mut self, args: &[u8]) -> Answer {
        const NAME: u64 = 1;
        const READ_ONLY: u64 = 2;
        let message = Message::parse(args).ok_or(Status::BadArgument)?;
        let name = message.text(NAME).ok_or(Status::BadArgument)?.to_owned();
        let key = (self.root_of(self.current), name);
        if self.foreign.declared.contains_key(&key) {
            return Err(Status::BadArgument);
        }
        self.foreign.declared.insert(key, message.is_set(READ_ONLY));
        Ok(Vec::new())
    }

    fn set_filter_state(&mut self, args: &[u8]) -> Answer {
        const PATH: u64 = 1;
        const VALUE: u64 = 2;
        let message = Message::parse(args).ok_or(Status::BadArgument)?;
        let path = message.text(PATH).ok_or(Status::BadArgument)?;
        let value = message.text(VALUE).ok_or(Status::BadArgument)?;
        if !FILTER_STATE_KEYS.contains(&path) {
            return Err(Status::NotFound);
        }
        let stream = self.stream_mut().ok_or(Status::NotFound)?;
        let key = format!("filter_state.{path}");
        stream.http.borrow_mut().properties.insert(key, Some(value.as_bytes().to_vec()));
        Ok(Vec::new())
    }

    fn expr_create(&mut self, args: &[u8]) -> Answer {
        let path = path_of(args)?;
        let number = self.foreign.next_expression;
        self.foreign.next_expression = number.wrapping_add(1);
        self.foreign.expressions.insert((self.root_of(self.current), number), path);
        Ok(number.to_le_bytes().to_vec())
    }

    fn expr_evaluate(&self, args: &[u8]) -> Answer {
        let key = (self.root_of(self.current), expression(args)?);
        let path = self.foreign.expressions.get(&key).ok_or(Status::NotFound)?;
        self.property(path).ok_or(Status::InternalFailure)
    }

    /// Also an expression that is not there can be deleted.
    fn expr_delete(&mut self, args: &[u8]) -> Answer {
        let key = (self.root_of(self.current), expression(args)?);
        self.foreign.expressions.remove(&key);
        Ok(Vec::new())
    }

    /// Exactly one key, as DER or as PEM, is what Envoy asks for first.
    fn refuse_signature(&mut self, name: &str, args: &[u8], der: u64, pem: u64) -> Answer {
        let message = Message::parse(args).ok_or(Status::BadArgument)?;
        if message.bytes(der).is_empty() == message.bytes(pem).is_empty() {
            return Err(Status::BadArgument);
        }
        self.log(LogLevel::Warn, format!("the foreign function {name} is not simulated"));
        Err(Status::Unimplemented)
    }
}

fn uncompress(args: &[u8]) -> Answer {
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(args, UNCOMPRESSED_BYTES_MAX)
        .or(Err(Status::SerializationFailure))
}

fn expression(args: &[u8]) -> Result<u32, Status> {
    args.try_into().map(u32::from_le_bytes).or(Err(Status::BadArgument))
}

/// `request.path` as the path of a property. What cannot be any expression at all is a bad argument.
fn path_of(expression: &[u8]) -> Result<Vec<u8>, Status> {
    let text = std::str::from_utf8(expression).or(Err(Status::BadArgument))?.trim();
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if text.split('.').all(is_name) {
        return Ok(text.replace('.', "\0").into_bytes());
    }
    let opened = text.matches(['(', '[', '{']).count();
    let closed = text.matches([')', ']', '}']).count();
    Err(if text.is_empty() || opened != closed {
        Status::BadArgument
    } else {
        Status::Unimplemented
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back_and_junk_does_not() {
        let packed = miniz_oxide::deflate::compress_to_vec_zlib(&[b'a'; 1000], LEVEL);
        assert!(packed.len() < 100);
        assert_eq!(uncompress(&packed), Ok(vec![b'a'; 1000]));
        assert_eq!(uncompress(b"junk"), Err(Status::SerializationFailure));
        assert_eq!(uncompress(b""), Err(Status::SerializationFailure));
        let bomb = vec![0; UNCOMPRESSED_BYTES_MAX + 1];
        let bomb = miniz_oxide::deflate::compress_to_vec_zlib(&bomb, 1);
        assert_eq!(uncompress(&bomb), Err(Status::SerializationFailure));
    }

    #[test]
    fn an_expression_is_a_path_of_names() {
        assert_eq!(path_of(b"request.path"), Ok(b"request\0path".to_vec()));
        assert_eq!(path_of(b"request.path == '/'"), Err(Status::Unimplemented));
        assert_eq!(path_of(b"((("), Err(Status::BadArgument));
        assert_eq!(path_of(b""), Err(Status::BadArgument));
        assert_eq!(path_of(b"\xff"), Err(Status::BadArgument));
    }
}
