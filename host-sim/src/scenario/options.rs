//! The `host` part of a scenario and its meaning. It must not know timelines or checks.

use crate::host::properties::Properties;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::RawPlugin;
use super::interleavings::RawInterleavings;
use super::units::{Size, Span, parse_span};
use super::values::from_hex;
use crate::abi::codes::LogLevel;
use crate::abi::values::Value;
use crate::host::lints::{HOST_CALLS_MAX, LintMode, LintOptions};
use crate::host::settings::{Contended, FailPolicy, ListenerSettings, PluginSettings};
use crate::host::threads::ThreadOptions;
use crate::world::options::HostOptions;

/// The host, as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHost {
    pub(crate) workers: usize,
    pub(crate) main: bool,
    pub(crate) canary: bool,
    pub(crate) seed: u64,
    pub(crate) start_unix_s: u64,
    /// Moments at which the plugin's clock is set, and by how many milliseconds. Timers and services do not see it.
    pub(crate) clock_steps: Vec<(Span, i64)>,
    /// When writing shared data with a compare-and-swap number comes too late each time, as if others were faster.
    pub(crate) contended: Vec<RawContended>,
    /// Timers run until here.
    pub(crate) until: Option<Span>,
    pub(crate) allow_on_headers_stop_iteration: bool,
    pub(crate) fail_policy: FailPolicy,
    pub(crate) reload_base_interval: Span,
    /// Envoy's `per_connection_buffer_limit_bytes`; 0 for no limit.
    pub(crate) buffer_limit: Size,
    /// Clients speak HTTP/3: `proxy_on_log` comes for requests that were reset, and for no others.
    pub(crate) http3: bool,
    /// How long the roots of a replaced configuration live on.
    pub(crate) drain: Span,
    pub(crate) memory_max: Size,
    /// Instructions, roughly, per callback.
    pub(crate) fuel: u64,
    pub(crate) log_level: LogLevel,
    /// Which orders of the threads are run.
    pub(crate) interleavings: Option<RawInterleavings>,
    pub(crate) lints: LintMode,
    /// Host calls of one request that are too many for `too-many-host-calls`.
    pub(crate) host_calls_lint: u64,
    /// Dotted paths, e.g. `xds.node.locality.region`.
    pub(crate) properties: BTreeMap<String, serde_json::Value>,
}

/// When shared data is contended, as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawContended {
    pub(crate) from: Span,
    pub(crate) to: Span,
    /// Of keys that begin so; by default of all.
    #[serde(default)]
    pub(crate) keys: String,
}

/// More workers than any test needs; each one is a VM.
const WORKERS_MAX: usize = 64;

impl Default for RawHost {
    fn default() -> Self {
        Self {
            workers: 1,
            main: true,
            canary: true,
            seed: 1,
            // 2026-01-01: round, and later than any certificate or token a test would carry.
            start_unix_s: 1_767_225_600,
            clock_steps: Vec::new(),
            contended: Vec::new(),
            until: None,
            allow_on_headers_stop_iteration: false,
            fail_policy: FailPolicy::Closed,
            reload_base_interval: Span { ns: 1_000_000_000 },
            // Envoy's defaults, and its own limit of memory.
            buffer_limit: Size { bytes: 1 << 20 },
            http3: false,
            drain: Span { ns: 600_000_000_000 },
            memory_max: Size { bytes: 1 << 30 },
            fuel: 1_000_000_000,
            log_level: LogLevel::Info,
            interleavings: None,
            lints: LintMode::Report,
            host_calls_lint: HOST_CALLS_MAX,
            properties: BTreeMap::new(),
        }
    }
}

impl RawHost {
    /// The options a world needs; the text of a problem names the field.
    pub(crate) fn plan(&self, plugins: Vec<(&RawPlugin, Vec<u8>)>) -> Result<HostOptions, String> {
        if self.workers == 0 || self.workers > WORKERS_MAX {
            return Err(format!(
                "host.workers: {} is not between 1 and {WORKERS_MAX}",
                self.workers
            ));
        }
        let start_unix_ns = self
            .start_unix_s
            .checked_mul(1_000_000_000)
            .ok_or("host.start_unix_s: too late to count in nanoseconds")?;
        let properties = properties(&self.properties)?;
        let plugins =
            plugins.into_iter().map(|(raw, config)| self.plugin(raw, config, &properties));
        Ok(HostOptions {
            plugins: plugins.collect(),
            threads: ThreadOptions {
                workers: 0..self.workers,
                seat: 0,
                has_main: self.main,
                has_canary: self.canary,
                drain_ns: self.drain.ns,
                tracing: false,
            },
            interleavings: self.interleavings.clone().map(|raw| raw.0),
            start_unix_ns,
            until_ns: self.until.map(|until| until.ns),
            listener: ListenerSettings {
                buffer_bytes_max: usize::try_from(self.buffer_limit.bytes).unwrap_or(usize::MAX),
                is_http3: self.http3,
            },
            lints: LintOptions { mode: self.lints, host_calls_max: self.host_calls_lint },
        })
    }

    fn plugin(&self, raw: &RawPlugin, config: Vec<u8>, properties: &Properties) -> PluginSettings {
        let interval = raw.reload_base_interval.unwrap_or(self.reload_base_interval);
        PluginSettings {
            name: raw.name.clone(),
            root_id: raw.root_id.clone(),
            vm_id: raw.vm_id.clone(),
            config,
            vm_config: raw.vm_config.as_ref().map(value_bytes).unwrap_or_default(),
            env: raw.env.clone(),
            log_level: self.log_level,
            allow_on_headers_stop_iteration: raw
                .allow_on_headers_stop_iteration
                .unwrap_or(self.allow_on_headers_stop_iteration),
            fail_policy: raw.fail_policy.unwrap_or(self.fail_policy),
            reload_base_interval_ns: interval.ns,
            is_disabled: raw.disabled,
            capabilities: raw.capabilities.clone(),
            fuel_per_callback: self.fuel,
            memory_bytes_max: usize::try_from(self.memory_max.bytes).unwrap_or(usize::MAX),
            seed: self.seed,
            clock_steps: self
                .clock_steps
                .iter()
                .map(|(at, by_ms)| (at.ns, by_ms.saturating_mul(1_000_000)))
                .collect(),
            contended: self
                .contended
                .iter()
                .map(|raw| Contended { within_ns: raw.from.ns..raw.to.ns, keys: raw.keys.clone() })
                .collect(),
            properties: properties.clone(),
        }
    }
}

/// Text as it is, anything else as JSON.
pub(crate) fn value_bytes(value: &serde_json::Value) -> Vec<u8> {
    match value {
        serde_json::Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

/// Properties in Envoy's encoding: text raw, numbers and times 8 bytes little-endian, a truth 1 byte. A map can be read
/// whole and by longer paths.
pub(crate) fn properties(raw: &BTreeMap<String, serde_json::Value>) -> Result<Properties, String> {
    let mut all = Properties::new();
    for (path, value) in raw {
        spell_out(path, value, &mut all)?;
    }
    Ok(all)
}

fn spell_out(path: &str, value: &serde_json::Value, all: &mut Properties) -> Result<(), String> {
    let bytes = if value.is_null() { None } else { Some(property_bytes(path, value)?) };
    all.insert(path.to_owned(), bytes);
    for (name, part) in value.as_object().into_iter().flatten() {
        spell_out(&format!("{path}.{name}"), part, all)?;
    }
    Ok(())
}

fn property_bytes(path: &str, value: &serde_json::Value) -> Result<Vec<u8>, String> {
    property_value(value).map(|value| value.encode()).map_err(|why| {
        format!(
            "properties.{path}: {why}; a property is text, a number, true, false, null, a list, a map, \
             {{double: 5}}, {{duration: 5ms}} or {{hex: 61ff}}"
        )
    })
}

fn property_value(value: &serde_json::Value) -> Result<Value, String> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::String(text) => Value::Bytes(text.clone().into_bytes()),
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => number_value(number),
        Json::Array(items) => {
            Value::List(items.iter().map(property_value).collect::<Result<_, _>>()?)
        }
        Json::Object(fields) => match typed(fields)? {
            Some(value) => value,
            None => {
                let field = |(key, value): (&String, &Json)| {
                    Ok::<_, String>((key.clone().into_bytes(), property_value(value)?))
                };
                Value::Map(fields.iter().map(field).collect::<Result<_, _>>()?)
            }
        },
        Json::Null => return Err("null is no value".to_owned()),
    })
}

/// A kind that YAML has no form for is a map of one key.
fn typed(fields: &serde_json::Map<String, serde_json::Value>) -> Result<Option<Value>, String> {
    if fields.len() != 1 {
        return Ok(None);
    }
    let text = |key: &str| fields.get(key).and_then(serde_json::Value::as_str);
    if let Some(number) = fields.get("double").and_then(serde_json::Value::as_f64) {
        return Ok(Some(Value::Double(number)));
    }
    if let Some(length) = text("duration") {
        let ns = parse_span(length)?.ns;
        return Ok(Some(Value::DurationNs(i64::try_from(ns).unwrap_or(i64::MAX))));
    }
    text("hex").map(|hex| from_hex(hex).map(Value::Bytes)).transpose()
}

fn number_value(number: &serde_json::Number) -> Value {
    if let Some(whole) = number.as_i64() {
        Value::Int(whole)
    } else if let Some(whole) = number.as_u64() {
        Value::Uint(whole)
    } else {
        Value::Double(number.as_f64().unwrap_or(0.0))
    }
}
