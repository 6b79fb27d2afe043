//! Owns how a call's arguments are written in the configuration, and the values that earlier calls
//! left for later ones.

use serde_json::Value;

/// What earlier calls of the same root answered, by the name under which an argument asks for it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Registers {
    pub(crate) cas: u32,
    pub(crate) metric: u32,
    pub(crate) queue: u32,
    pub(crate) token: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The contexts that a rule can name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) context: u32,
    pub(crate) root: u32,
}

/// The arguments of one call.
pub(crate) struct Args<'a> {
    pub(crate) values: &'a [Value],
    pub(crate) registers: &'a Registers,
    pub(crate) place: Place,
    pub(crate) names: &'a Value,
}

// === impl Args ===

impl Args<'_> {
    /// An argument, or null.
    pub(crate) fn raw(&self, at: usize) -> &Value {
        self.values.get(at).unwrap_or(&Value::Null)
    }

    /// A number: itself, the name of a map, buffer, stream or metric type, or a register.
    pub(crate) fn number(&self, at: usize) -> u32 {
        let value = self.raw(at);
        let Some(name) = value.as_str() else {
            // Negative numbers reach the host as the bits they have.
            let number = value.as_i64().unwrap_or(0).to_le_bytes();
            return number.first_chunk().map_or(0, |low| u32::from_le_bytes(*low));
        };
        match name {
            "request_headers" | "request_body" | "request" | "counter" => 0,
            "request_trailers" | "response_body" | "response" | "gauge" => 1,
            "response_headers" | "histogram" => 2,
            "response_trailers" => 3,
            "call_body" => 4,
            "call_headers" | "vm_config" => 6,
            "call_trailers" | "plugin_config" => 7,
            "max" => u32::MAX,
            "cas" => self.registers.cas,
            "metric" => self.registers.metric,
            "queue" => self.registers.queue,
            "token" => self.registers.token,
            "self" => self.place.context,
            "root" => self.place.root,
            _ => 0,
        }
    }

    /// A signed number of 64 bits.
    pub(crate) fn wide(&self, at: usize) -> i64 {
        self.raw(at).as_i64().unwrap_or(0)
    }

    /// Bytes, see [`bytes`].
    pub(crate) fn bytes(&self, at: usize) -> Vec<u8> {
        bytes(self.raw(at), &self.registers.bytes)
    }

    /// A cluster or a VM's id by the name that the host knows it by.
    pub(crate) fn named(&self) -> Vec<u8> {
        let known = self.raw(1).as_str().and_then(|name| self.names.get(name));
        bytes(known.unwrap_or(self.raw(1)), &self.registers.bytes)
    }

    /// The call as the log shows it.
    pub(crate) fn text(&self) -> String {
        let name = self.raw(0).as_str().unwrap_or("?");
        let shown = self.values.iter().skip(1).map(Value::to_string);
        format!("{name}({})", shown.collect::<Vec<_>>().join(", "))
    }
}

/// Bytes: a text, `{"hex": ".."}`, `{"fill": "x", "len": 5000}`, `{"pairs": [[name, value], ..]}`,
/// `"$"` for what the last call returned, or a list of parts that NULs join, as in property paths.
pub(crate) fn bytes(value: &Value, last: &[u8]) -> Vec<u8> {
    match value {
        Value::String(text) if text == "$" => last.to_vec(),
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(parts) => {
            parts.iter().map(|part| bytes(part, last)).collect::<Vec<_>>().join(&0)
        }
        Value::Object(keyed) => {
            if let Some(hex) = keyed.get("hex").and_then(Value::as_str) {
                from_hex(hex)
            } else if let Some(pairs) = keyed.get("pairs") {
                encode(pairs, last)
            } else {
                let unit = keyed.get("fill").and_then(Value::as_str).unwrap_or("x");
                let len = keyed.get("len").and_then(Value::as_u64).unwrap_or(0);
                let len = usize::try_from(len).unwrap_or(0);
                unit.bytes().cycle().take(len).collect()
            }
        }
        Value::Number(number) => number.to_string().into_bytes(),
        Value::Null | Value::Bool(_) => Vec::new(),
    }
}

/// A list of pairs in the host's encoding.
pub(crate) fn encode(pairs: &Value, last: &[u8]) -> Vec<u8> {
    let part = |pair: &Value, at| bytes(pair.get(at).unwrap_or(&Value::Null), last);
    let pairs: Vec<_> = pairs
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|pair| (part(pair, 0), part(pair, 1)))
        .collect();
    if pairs.is_empty() {
        return Vec::new();
    }
    let size = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = size(pairs.len()).to_vec();
    for (key, value) in &pairs {
        out.extend(size(key.len()));
        out.extend(size(value.len()));
    }
    for part in pairs.iter().flat_map(|(key, value)| [key, value]) {
        out.extend(part);
        out.push(0);
    }
    out
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)?.try_into().ok()).collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect()
}
