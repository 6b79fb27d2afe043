//! The `timeline` part of a scenario, spelled out into steps. It must not run any.

use crate::host::properties::Properties;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_saphyr::Spanned;

use super::options::{properties, value_bytes};
use super::rules::RawChunk;
use super::units::Span;
use super::values::{Bytes, Headers};
use crate::host::headers::HeaderMap;
use crate::world::timeline::{Action, Announced, ClientAct, Step, Timeline};

/// What a client does at a moment, as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawStep {
    pub(crate) at: Span,
    #[serde(default)]
    pub(crate) client: String,
    #[serde(default)]
    pub(crate) worker: usize,
    /// `203.0.113.9`, `2001:db8::1`, or either with a port.
    pub(crate) address: Option<String>,
    #[serde(default)]
    pub(crate) properties: BTreeMap<String, serde_json::Value>,
    pub(crate) send: Option<RawSend>,
    #[serde(default)]
    pub(crate) disconnect: bool,
    /// A listener update with another plugin configuration.
    pub(crate) update: Option<RawUpdate>,
    /// Repeats the request.
    #[serde(default = "once")]
    pub(crate) times: usize,
    /// Between repetitions.
    #[serde(default)]
    pub(crate) every: Span,
}

/// Another configuration of a plugin, the only one without a name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawUpdate {
    plugin: Option<String>,
    config: serde_json::Value,
}

/// A request, or another client's again.
#[derive(Debug, Clone)]
pub(crate) enum RawSend {
    Request(Box<RawRequest>),
    SameAs(String),
}

/// A request as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRequest {
    #[serde(default = "get")]
    method: String,
    /// `/` by default; CONNECT has none unless it is written.
    path: Option<Bytes>,
    #[serde(default = "authority")]
    authority: String,
    #[serde(default)]
    headers: Headers,
    body: Option<Bytes>,
    #[serde(default)]
    chunks: Vec<RawChunk>,
    trailers: Option<Headers>,
    /// The client never ends its request.
    #[serde(default)]
    unfinished: bool,
    /// The last piece of the body ends the request, as HTTP/2 may bring it.
    #[serde(default)]
    last_piece_ends: bool,
}

/// Requests of one scenario, repetitions included.
const REQUESTS_MAX: usize = 200_000;
/// Headers, bodies and properties of all requests, repetitions included: a typing error must not eat the machine's memory.
const BYTES_MAX: usize = 256 * 1024 * 1024;
/// What a step takes beside its bytes, roughly.
const STEP_BYTES: usize = 200;

fn once() -> usize {
    1
}
fn get() -> String {
    "GET".to_owned()
}
fn authority() -> String {
    "example.com".to_owned()
}

/// The text of a problem names the step's line.
pub(crate) fn plan(
    raw: &[Spanned<RawStep>],
    workers: usize,
    plugins: &[&str],
) -> Result<Timeline, String> {
    let mut planner = Planner {
        timeline: Timeline::default(),
        requests: BTreeMap::new(),
        latest: BTreeMap::new(),
        workers,
        plugins,
        bytes: 0,
    };
    for step in raw {
        planner
            .step(&step.value)
            .map_err(|problem| format!("line {}: {problem}", step.referenced.line()))?;
    }
    // Stable: what is written first at one moment happens first.
    planner.timeline.steps.sort_by_key(|step| step.at_ns);
    Ok(planner.timeline)
}

struct Planner<'a> {
    timeline: Timeline,
    requests: BTreeMap<&'a str, &'a RawRequest>,
    latest: BTreeMap<&'a str, (usize, usize)>,
    workers: usize,
    plugins: &'a [&'a str],
    /// What the steps so far hold.
    bytes: usize,
}

impl<'a> Planner<'a> {
    fn step(&mut self, step: &'a RawStep) -> Result<(), String> {
        match (&step.send, step.disconnect, &step.update) {
            (Some(send), false, None) => self.send(step, send),
            (None, true, None) => self.disconnect(step),
            (None, false, Some(update)) => self.update(step, update),
            _ => Err("a step needs exactly one of send, disconnect: true and update".to_owned()),
        }
    }

    fn send(&mut self, step: &'a RawStep, send: &'a RawSend) -> Result<(), String> {
        if step.worker >= self.workers {
            return Err(format!(
                "worker: there is no worker {}, the host has {}",
                step.worker, self.workers
            ));
        }
        if step.times > REQUESTS_MAX - self.timeline.announced.len() {
            return Err(format!(
                "times: {} makes more than {REQUESTS_MAX} requests in all",
                step.times
            ));
        }
        let request: &'a RawRequest = match send {
            RawSend::Request(request) => request,
            RawSend::SameAs(other) => {
                self.requests.get(other.as_str()).copied().ok_or_else(|| {
                    format!("send: no request of {other:?} stands before this one")
                })?
            }
        };
        if step.client.is_empty() {
            return Err("client: who sends this? give the client a name".to_owned());
        }
        self.requests.insert(&step.client, request);
        let properties = client_properties(step)?;
        let each = request.byte_size()
            + properties
                .iter()
                .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
                .sum::<usize>();
        self.bytes = self.bytes.saturating_add(each.saturating_mul(step.times));
        if self.bytes > BYTES_MAX {
            return Err(format!("send: the requests are more than {BYTES_MAX} bytes in all"));
        }
        for repetition in 0..step.times {
            let delay_ns =
                step.every.ns.saturating_mul(u64::try_from(repetition).unwrap_or(u64::MAX));
            let at_ns = step.at.ns.saturating_add(delay_ns);
            let exchange = self.announce(step, properties.clone());
            request.spell_out(at_ns, exchange, &mut self.timeline.steps)?;
        }
        Ok(())
    }

    fn announce(&mut self, step: &'a RawStep, properties: Properties) -> usize {
        let exchange = self.timeline.announced.len();
        let nth = self.latest.get(step.client.as_str()).map_or(1, |(nth, _)| nth + 1);
        self.latest.insert(&step.client, (nth, exchange));
        self.timeline.announced.push(Announced {
            client: step.client.clone(),
            nth,
            worker: step.worker,
            properties,
        });
        exchange
    }

    fn disconnect(&mut self, step: &RawStep) -> Result<(), String> {
        let (_, exchange) = self
            .latest
            .get(step.client.as_str())
            .ok_or_else(|| format!("client {:?} has sent nothing before", step.client))?;
        let action = Action::Client { exchange: *exchange, act: ClientAct::Disconnect };
        self.timeline.steps.push(Step { at_ns: step.at.ns, action });
        Ok(())
    }

    fn update(&mut self, step: &RawStep, update: &RawUpdate) -> Result<(), String> {
        let name = update.plugin.as_deref();
        let plugin = match name {
            None if self.plugins.len() == 1 => Some(0),
            None => None,
            Some(name) => self.plugins.iter().position(|plugin| *plugin == name),
        };
        let plugin = plugin.ok_or_else(|| {
            let known = self.plugins.join(", ");
            format!("update.plugin: {:?} is none of {known}", name.unwrap_or_default())
        })?;
        let action = Action::Update { plugin, config: value_bytes(&update.config) };
        self.timeline.steps.push(Step { at_ns: step.at.ns, action });
        Ok(())
    }
}

impl RawRequest {
    /// As HTTP/1 brings it, if nothing else is said: each piece without the end, then an empty piece with it, or trailers instead.
    fn spell_out(&self, at_ns: u64, exchange: usize, steps: &mut Vec<Step>) -> Result<(), String> {
        if self.body.is_some() && !self.chunks.is_empty() {
            return Err("send: a request has body or chunks, not both".to_owned());
        }
        let whole = self.body.iter().filter(|body| !body.0.is_empty()).map(|body| (0, &body.0));
        let pieces: Vec<_> =
            whole.chain(self.chunks.iter().map(|chunk| (chunk.after.ns, &chunk.data.0))).collect();
        let ends_with_headers = pieces.is_empty() && self.trailers.is_none() && !self.unfinished;
        if self.last_piece_ends && (pieces.is_empty() || self.trailers.is_some() || self.unfinished)
        {
            return Err("send: last_piece_ends needs a body, and nothing behind it".to_owned());
        }
        let last = pieces.len().saturating_sub(1);
        let mut last_ns = at_ns;
        let mut push = |at_ns, act| {
            steps.push(Step { at_ns, action: Action::Client { exchange, act } });
        };
        push(at_ns, ClientAct::Headers { headers: self.headers(), end: ends_with_headers });
        for (nth, (after_ns, bytes)) in pieces.into_iter().enumerate() {
            let piece_ns = at_ns.saturating_add(after_ns);
            if piece_ns < last_ns {
                return Err("send: chunks must stand in order of time".to_owned());
            }
            last_ns = piece_ns;
            let end = self.last_piece_ends && nth == last;
            push(piece_ns, ClientAct::Data { bytes: bytes.clone(), end });
        }
        let end = match &self.trailers {
            Some(trailers) => ClientAct::Trailers(trailers.0.clone()),
            None => ClientAct::Data { bytes: Vec::new(), end: true },
        };
        if !ends_with_headers && !self.unfinished && !self.last_piece_ends {
            push(last_ns, end);
        }
        Ok(())
    }

    /// What one repetition keeps in memory.
    fn byte_size(&self) -> usize {
        let headers = self.headers.0.byte_size();
        let trailers = self.trailers.as_ref().map_or(0, |trailers| trailers.0.byte_size());
        let body = self.body.as_ref().map_or(0, |body| body.0.len());
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.data.0.len() + STEP_BYTES).sum();
        let line = self.path.as_ref().map_or(0, |path| path.0.len()) + self.authority.len();
        STEP_BYTES + line + headers + trailers + body + chunks
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::default();
        headers.add(b":authority", self.authority.as_str());
        match &self.path {
            Some(path) => headers.add(b":path", path.0.clone()),
            None if self.method == "CONNECT" => {}
            None => headers.add(b":path", "/"),
        }
        headers.add(b":method", self.method.as_str());
        headers.add(b":scheme", "http");
        for (key, value) in self.headers.0.pairs() {
            headers.add(key, value.clone());
        }
        if let (Some(body), None, None) =
            (&self.body, headers.first(b"content-length"), &self.trailers)
        {
            headers.add(b"content-length", body.0.len().to_string());
        }
        headers
    }
}

fn client_properties(step: &RawStep) -> Result<Properties, String> {
    const PORT: u16 = 50_000;
    let written = step.address.as_deref().unwrap_or("127.0.0.1");
    let address = written
        .parse::<SocketAddr>()
        .or_else(|_no_port| written.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)))
        .map_err(|_neither| {
            format!("address: {written:?} is no IP address; write 203.0.113.9 or [2001:db8::1]:443")
        })?;
    let mut all = Properties::from([
        ("source.address".to_owned(), Some(address.to_string().into_bytes())),
        ("source.port".to_owned(), Some(u64::from(address.port()).to_le_bytes().to_vec())),
    ]);
    all.extend(properties(&step.properties)?);
    Ok(all)
}

struct SendVisitor;

impl<'de> Visitor<'de> for SendVisitor {
    type Value = RawSend;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request {method, path, headers, body, ...}, or \"same as CLIENT\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawSend, E> {
        text.strip_prefix("same as ")
            .map(|other| RawSend::SameAs(other.trim().to_owned()))
            .ok_or_else(|| {
                E::custom(format!("{text:?} is no request; write {{...}} or \"same as CLIENT\""))
            })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawSend, A::Error> {
        RawRequest::deserialize(MapAccessDeserializer::new(map))
            .map(|request| RawSend::Request(Box::new(request)))
    }
}

impl<'de> Deserialize<'de> for RawSend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SendVisitor)
    }
}
