//! Properties a plugin can ask for: what the stream tells, what the scenario sets, what the plugin sets. It must not change streams.

use std::collections::BTreeMap;

use super::attributes::Attributes;
use super::vm_state::VmState;
use crate::abi::codes::Status;
use crate::abi::path;

/// Dotted path to bytes; `None` is a null, which is there and has none.
pub(crate) type Properties = BTreeMap<String, Option<Vec<u8>>>;

impl VmState {
    /// A property's bytes. What a client or the host was given wins over what the stream itself tells.
    pub(crate) fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        let dotted = path::dotted(path);
        let http = self.stream().map(|stream| stream.http.borrow());
        let http = http.as_deref();
        let set_by_plugin = || http?.properties.get(&own_key(&dotted)).cloned().flatten();
        let is_own = dotted.starts_with("wasm.");
        let set_for_client =
            || http?.properties.get(&dotted).filter(|_| !is_own).cloned().flatten();
        let is_told = self.stream().is_some() || is_of_roots(&dotted);
        let set_for_host =
            || self.base.properties.get(&dotted).filter(|_| is_told).cloned().flatten();
        let told_by_plugin = || self.plugin_property(&dotted);
        let told_by_stream = || Attributes::of(self.stream()?, http?).get(&dotted);
        set_for_client()
            .or_else(set_for_host)
            .or_else(told_by_plugin)
            .or_else(told_by_stream)
            .or_else(set_by_plugin)
    }

    /// A group of properties is there but has no bytes of its own, and neither has a null; so it is with no path at all.
    pub(crate) fn status_of_missing_property(&self, path: &[u8]) -> Status {
        const GROUPS: [&str; 6] =
            ["request", "response", "connection", "source", "destination", "upstream"];
        let dotted = path::dotted(path);
        let is_group =
            dotted == "xds" || (self.stream().is_some() && GROUPS.contains(&dotted.as_str()));
        if path.is_empty() || is_group || self.is_null(&dotted) {
            Status::SerializationFailure
        } else {
            Status::NotFound
        }
    }

    fn is_null(&self, dotted: &str) -> bool {
        let of_client = self.stream().and_then(|s| s.http.borrow().properties.get(dotted).cloned());
        let of_host = || self.base.properties.get(dotted).cloned();
        of_client.or_else(of_host) == Some(None)
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
        http.properties.insert(key, Some(value));
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

/// What a scenario says of a node holds for roots, too; the rest is about streams.
fn is_of_roots(dotted: &str) -> bool {
    dotted.starts_with("xds.node.")
}
