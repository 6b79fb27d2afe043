//! What clients do to the world: requests open, bodies come in pieces, connections break. It must not know upstreams.

use super::run::{Place, World};
use super::timeline::ClientAct;
use crate::host::headers::HeaderMap;
use crate::host::stream::{Http, StreamId};

impl World<'_> {
    pub(super) fn client(&mut self, exchange: usize, act: ClientAct) {
        let id = StreamId(exchange);
        match act {
            ClientAct::Headers { headers, end } => self.open(id, headers, end),
            ClientAct::Data { bytes, end } => self.process.request_data(id, bytes, end),
            ClientAct::Trailers(trailers) => self.process.request_trailers(id, trailers),
            ClientAct::Disconnect => self.disconnect(id),
        }
    }

    fn open(&mut self, id: StreamId, mut headers: HeaderMap, end: bool) {
        let now_ns = self.now_ns();
        let Some(announced) = self.timeline.announced.get(id.0) else {
            return;
        };
        let text = |key| headers.text(key).unwrap_or_default();
        self.trace("client", &announced.client, || {
            format!("sends {} {}", text(":method"), text(":path"))
        });
        if let (Some(result), Some(place)) =
            (self.exchanges.get_mut(id.0), self.places.get_mut(id.0))
        {
            result.sent_at_ns = now_ns;
            *place = Place::Open { call: None };
        }
        self.complete(&mut headers);
        let http = Http { properties: announced.properties.clone(), ..Http::default() };
        self.open_count += 1;
        self.process.open(id, announced.worker, http, headers, end);
    }

    /// What Envoy's connection manager adds before any filter sees the request.
    fn complete(&mut self, headers: &mut HeaderMap) {
        if headers.first(b"x-forwarded-proto").is_none() {
            headers.add(b"x-forwarded-proto", "http");
        }
        if headers.first(b"x-request-id").is_none() {
            let id = self.request_ids.uuid();
            headers.add(b"x-request-id", id);
        }
    }

    fn disconnect(&mut self, id: StreamId) {
        if self.process.is_gone(id) {
            return;
        }
        self.process.reset(id, "downstream_remote_disconnect");
        if let Some(result) = self.exchanges.get_mut(id.0) {
            result.is_disconnected = true;
            let client = result.client.clone();
            self.trace("client", &client, || "disconnects".to_owned());
        }
    }
}
