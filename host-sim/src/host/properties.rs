//! Properties a plugin can ask for: what the stream tells, what the scenario sets, what the plugin sets. It must not change streams.

use super::headers::HeaderMap;
use super::stream::Http;
use super::vm_state::VmState;
use crate::abi::codes::Status;
use crate::abi::path;
use crate::abi::values::encode_map;

impl VmState {
    /// A property's bytes. What a client or the host was given wins over what the stream itself tells.
    pub(crate) fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        let dotted = path::dotted(path);
        let http = self.stream().map(|stream| stream.http.borrow());
        let http = http.as_deref();
        let set_by_plugin = || http?.properties.get(&own_key(&dotted)).cloned();
        let set_for_client = || http?.properties.get(&dotted).cloned();
        let set_for_host = || self.base.properties.get(&dotted).cloned();
        let told_by_plugin = || self.plugin_property(&dotted);
        let told_by_stream = || http.and_then(|http| stream_property(http, &dotted));
        set_for_client()
            .or_else(set_for_host)
            .or_else(told_by_plugin)
            .or_else(told_by_stream)
            .or_else(set_by_plugin)
    }

    /// A group of properties is there but has no bytes of its own; so it is with no path at all.
    pub(crate) fn status_of_missing_property(&self, path: &[u8]) -> Status {
        const GROUPS: [&str; 6] =
            ["request", "response", "connection", "source", "destination", "upstream"];
        let dotted = path::dotted(path);
        let is_group =
            dotted == "xds" || (self.stream().is_some() && GROUPS.contains(&dotted.as_str()));
        if path.is_empty() || is_group { Status::SerializationFailure } else { Status::NotFound }
    }

    /// The whole path becomes one key, so that a path of several segments can be set and never read back.
    pub(crate) fn set_property(&mut self, path: &[u8], value: Vec<u8>) -> Result<(), Status> {
        let current = self.current;
        let name = String::from_utf8_lossy(path).into_owned();
        let is_read_only = self.foreign.is_read_only(self.root_of(current), &name);
        let stream = self.streams.get_mut(&current).ok_or(Status::NotFound)?;
        let key = format!("wasm.{name}");
        let mut http = stream.http.borrow_mut();
        if is_read_only && http.properties.contains_key(&key) {
            return Err(Status::BadArgument);
        }
        http.properties.insert(key, value);
        Ok(())
    }

    fn plugin_property(&self, dotted: &str) -> Option<Vec<u8>> {
        let text = match dotted {
            "plugin_name" => &self.plugin().name,
            "plugin_root_id" => &self.plugin().root_id,
            "plugin_vm_id" => &self.plugin().vm_id,
            _ => return None,
        };
        Some(text.clone().into_bytes())
    }
}

fn own_key(dotted: &str) -> String {
    let name = dotted.strip_prefix("filter_state.wasm.").unwrap_or(dotted);
    format!("wasm.{name}")
}

fn stream_property(http: &Http, dotted: &str) -> Option<Vec<u8>> {
    if let Some(rest) = dotted.strip_prefix("request.") {
        return request_property(http, rest);
    }
    if let Some(rest) = dotted.strip_prefix("response.") {
        return response_property(http, rest);
    }
    None
}

fn request_property(http: &Http, name: &str) -> Option<Vec<u8>> {
    let headers = &http.request.headers;
    let header = |key: &str| headers.first(key.as_bytes()).map(<[u8]>::to_vec);
    if let Some(key) = name.strip_prefix("headers.") {
        return header(key);
    }
    match name {
        "headers" => Some(encode_map(headers.pairs().iter().cloned())),
        "path" => header(":path"),
        "url_path" => Some(split_path(headers)?.0.into_bytes()),
        "query" => Some(split_path(headers)?.1.into_bytes()),
        "host" => header(":authority"),
        "scheme" => header(":scheme"),
        "method" => header(":method"),
        "id" => header("x-request-id"),
        "useragent" => header("user-agent"),
        "referer" => header("referer"),
        "protocol" => Some(b"HTTP/1.1".to_vec()),
        _ => None,
    }
}

/// Before there is a response there is no such property.
fn response_property(http: &Http, name: &str) -> Option<Vec<u8>> {
    let headers = &http.response.headers;
    if let Some(key) = name.strip_prefix("headers.") {
        return headers.first(key.as_bytes()).map(<[u8]>::to_vec);
    }
    match name {
        "headers" if http.response.started => Some(encode_map(headers.pairs().iter().cloned())),
        "code" => {
            let code: u64 = headers.text(":status")?.parse().ok()?;
            Some(code.to_le_bytes().to_vec())
        }
        "code_details" => {
            Some(http.details.clone().into_bytes()).filter(|details| !details.is_empty())
        }
        _ => None,
    }
}

fn split_path(headers: &HeaderMap) -> Option<(String, String)> {
    let path = headers.text(":path")?;
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    Some((path.to_owned(), query.to_owned()))
}
