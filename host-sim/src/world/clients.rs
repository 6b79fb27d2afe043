//! What clients do to the world: requests open, bodies come in pieces, connections break. It must not know upstreams.

use super::exchange::Place;
use super::run::World;
use super::timeline::Action;
use crate::host::headers::HeaderMap;
use crate::host::stream::Direction;

impl World<'_> {
    pub(super) fn client(&mut self, step: usize) {
        let Some(step) = self.timeline.steps.get(step) else {
            return;
        };
        let exchange = step.exchange;
        match step.action.clone() {
            Action::Headers { headers, end } => self.open(exchange, headers, end),
            Action::Data { bytes, end } => {
                if let Some((vm, context)) = self.open_stream(exchange) {
                    vm.arrive_data(context, Direction::Request, bytes, end);
                }
            }
            Action::Trailers(trailers) => {
                if let Some((vm, context)) = self.open_stream(exchange) {
                    vm.arrive_trailers(context, Direction::Request, trailers);
                }
            }
            Action::Disconnect => self.disconnect(exchange),
        }
    }

    fn open(&mut self, exchange: usize, headers: HeaderMap, end: bool) {
        let now_ns = self.shared.borrow().now_ns;
        let Some(announced) = self.timeline.announced.get(exchange) else {
            return;
        };
        let text = |key| headers.text(key).unwrap_or_default();
        self.trace(
            "client",
            &announced.client,
            format!("sends {} {}", text(":method"), text(":path")),
        );
        let admitted = self.workers.admit(announced.worker, self.options, now_ns);
        let (Some(result), Some(place)) =
            (self.exchanges.get_mut(exchange), self.places.get_mut(exchange))
        else {
            return;
        };
        result.sent_at_ns = now_ns;
        let Some((id, root)) = admitted else {
            *place = Place::Over;
            result.fail(now_ns);
            return;
        };
        let Some(vm) = self.workers.vm(id) else {
            return;
        };
        let context = vm.open_stream(root, announced.properties.clone());
        self.open.insert(exchange);
        *place = Place::Open { vm: id, context, is_upstream_called: false };
        vm.arrive_headers(context, Direction::Request, headers, end);
    }

    fn disconnect(&mut self, exchange: usize) {
        let now_ns = self.shared.borrow().now_ns;
        let Some((vm, context)) = self.open_stream(exchange) else {
            return;
        };
        if let Some(stream) = vm.stream(context) {
            stream.reset(now_ns, "downstream_remote_disconnect");
        }
        if let Some(result) = self.exchanges.get_mut(exchange) {
            result.is_disconnected = true;
            let client = result.client.clone();
            self.trace("client", &client, "disconnects".to_owned());
        }
    }
}
