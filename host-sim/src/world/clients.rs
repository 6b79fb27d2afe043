//! What clients do to the world: requests open, bodies come in pieces, connections break. It must not know upstreams.

use super::crew::Job;
use super::run::{Place, World};
use super::timeline::ClientAct;
use crate::host::headers::HeaderMap;
use crate::host::process::Process;
use crate::host::stream::{CLIENT_LEFT, Http, StreamId};
use crate::host::wire::request_arrived;

impl World<'_> {
    /// What a client's act does to the process that has its exchange.
    pub(super) fn client(&mut self, exchange: usize, act: ClientAct) -> Job {
        let id = StreamId(exchange);
        match act {
            ClientAct::Headers { headers, end } => self.open(id, headers, end),
            ClientAct::Data { bytes, end } => {
                Box::new(move |process| process.request_data(id, bytes, end))
            }
            ClientAct::Trailers(trailers) => {
                Box::new(move |process| process.request_trailers(id, trailers))
            }
            ClientAct::Disconnect => {
                if let Some(result) = self.exchanges.get(id.0) {
                    self.trace("client", &result.client, || "disconnects".to_owned());
                }
                Box::new(move |process| disconnect(process, id))
            }
        }
    }

    fn open(&mut self, id: StreamId, mut headers: HeaderMap, end: bool) -> Job {
        let now_ns = self.now_ns();
        let Some(announced) = self.timeline.announced.get(id.0) else {
            return Box::new(|_| {});
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
        request_arrived(&mut headers, || self.request_ids.uuid());
        let http = Http { properties: announced.properties.clone(), ..Http::default() };
        self.open_count += 1;
        let worker = announced.worker;
        Box::new(move |process| process.open(id, worker, http, headers, end))
    }
}

fn disconnect(process: &mut Process, id: StreamId) {
    if !process.is_gone(id) {
        process.with_http(id, |http| {
            http.is_disconnected = true;
            http.flags |= CLIENT_LEFT;
            // Whatever was told of the response before.
            http.details.clear();
        });
        process.reset(id, "downstream_remote_disconnect");
    }
}
