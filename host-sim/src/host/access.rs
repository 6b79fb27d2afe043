//! Which header map and which buffer a plugin may read or write at this moment. It must not move anything on.

use std::cell::{Ref, RefMut};
use std::ops::Deref;

use super::callouts::CalloutAnswer;
use super::headers::HeaderMap;
use super::stream::{Direction, Http, Message, Stream};
use super::vm_state::VmState;
use crate::abi::codes::{BufferType, MapType, Status};

/// A map or a buffer, of the exchange or of the VM itself.
pub(crate) enum Seen<'a, T: ?Sized> {
    Shared(Ref<'a, T>),
    Own(&'a T),
}

impl<T: ?Sized> Deref for Seen<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Shared(shared) => shared,
            Self::Own(own) => own,
        }
    }
}

impl VmState {
    pub(crate) fn map(&self, map: MapType) -> Option<Seen<'_, HeaderMap>> {
        match map {
            MapType::RequestHeaders => self.headers(Direction::Request),
            MapType::ResponseHeaders => self.headers(Direction::Response),
            MapType::RequestTrailers => {
                let stream = self.stream().filter(|stream| stream.request.trailers_open)?;
                shared(stream, |http| http.request.trailers.as_ref())
            }
            MapType::ResponseTrailers => {
                let stream = self.stream()?;
                if !(stream.response.trailers_open || stream.logging) {
                    return None;
                }
                shared(stream, |http| http.response.trailers.as_ref())
            }
            MapType::CalloutHeaders => {
                self.callout_answer().map(|(headers, ..)| Seen::Own(headers))
            }
            MapType::CalloutTrailers => {
                self.callout_answer().map(|(.., trailers)| Seen::Own(trailers))
            }
            MapType::GrpcInitialMetadata => self.grpc.initial.as_ref().map(Seen::Own),
            MapType::GrpcTrailingMetadata => self.grpc.trailing.as_ref().map(Seen::Own),
        }
    }

    fn headers(&self, direction: Direction) -> Option<Seen<'_, HeaderMap>> {
        let stream = self.stream()?;
        let side = match direction {
            Direction::Request => &stream.request,
            Direction::Response => &stream.response,
        };
        if !(side.headers_open || stream.logging) {
            return None;
        }
        shared(stream, |http| {
            let message = message(http, direction);
            message.started.then_some(&message.headers)
        })
    }

    pub(crate) fn map_mut(&mut self, map: MapType) -> Option<RefMut<'_, HeaderMap>> {
        let stream = self.stream_mut()?;
        let (direction, is_trailers) = match map {
            MapType::RequestHeaders => (Direction::Request, false),
            MapType::ResponseHeaders => (Direction::Response, false),
            MapType::RequestTrailers => (Direction::Request, true),
            MapType::ResponseTrailers => (Direction::Response, true),
            _ => return None,
        };
        if !is_trailers {
            if !stream.side(direction).headers_open {
                let has_gone_on = stream.http.borrow_mut().message(direction).started;
                stream.watch.refused = has_gone_on.then_some(direction);
                return None;
            }
            return Some(RefMut::map(stream.http.borrow_mut(), |http| {
                &mut http.message(direction).headers
            }));
        }
        // In the body callback that ends the stream, writing a trailer creates the map.
        let side = stream.side(direction);
        let ends_body = side.is_end && (side.chunk.is_some() || side.sees_buffer);
        if !(side.trailers_open || ends_body) {
            return None;
        }
        side.trailers_open = true;
        Some(RefMut::map(stream.http.borrow_mut(), |http| {
            http.message(direction).trailers.get_or_insert_default()
        }))
    }

    /// In `on_log` a map that is not there reads as if the header were missing.
    pub(crate) fn status_of_missing_map(&self) -> Status {
        if self.stream().is_some_and(|stream| stream.logging) {
            Status::NotFound
        } else {
            Status::BadArgument
        }
    }

    pub(crate) fn buffer(&self, buffer: BufferType) -> Option<Seen<'_, [u8]>> {
        match buffer {
            BufferType::RequestBody => self.body(Direction::Request),
            BufferType::ResponseBody => self.body(Direction::Response),
            BufferType::CalloutBody => self.callout_answer().map(|(_, body, _)| Seen::Own(body)),
            BufferType::VmConfig => Some(Seen::Own(&self.plugin().vm_config)),
            BufferType::PluginConfig => {
                self.config_open.then(|| Seen::Own(self.plugin().config.as_slice()))
            }
            BufferType::GrpcMessage => self.grpc.message.as_deref().map(Seen::Own),
            BufferType::CallData => Some(Seen::Own(self.call_data.as_slice())),
            BufferType::DownstreamData | BufferType::UpstreamData => None,
        }
    }

    fn body(&self, direction: Direction) -> Option<Seen<'_, [u8]>> {
        let stream = self.stream()?;
        let side = match direction {
            Direction::Request => &stream.request,
            Direction::Response => &stream.response,
        };
        if side.is_buffering || (side.sees_buffer && !side.is_body_hidden) {
            return shared(stream, |http| message(http, direction).buffered.as_deref());
        }
        side.chunk.as_deref().filter(|_| !side.is_body_hidden).map(Seen::Own)
    }

    /// Works on a body's bytes; nothing comes back where there are none.
    pub(crate) fn with_body<R>(
        &mut self,
        buffer: BufferType,
        work: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> Option<R> {
        let direction = match buffer {
            BufferType::RequestBody => Direction::Request,
            BufferType::ResponseBody => Direction::Response,
            _ => return None,
        };
        let stream = self.stream_mut()?;
        let side = stream.side(direction);
        if side.is_buffering || (side.sees_buffer && !side.is_body_hidden) {
            return stream.http.borrow_mut().message(direction).buffered.as_mut().map(work);
        }
        side.chunk.as_mut().filter(|_| !side.is_body_hidden).map(work)
    }

    fn callout_answer(&self) -> Option<(&HeaderMap, &[u8], &HeaderMap)> {
        match self.callouts.current.as_ref()? {
            CalloutAnswer::Answered { headers, body, trailers } => Some((headers, body, trailers)),
            CalloutAnswer::Reset => None,
        }
    }
}

fn shared<T: ?Sized>(
    stream: &Stream,
    pick: impl FnOnce(&Http) -> Option<&T>,
) -> Option<Seen<'_, T>> {
    Ref::filter_map(stream.http.borrow(), pick).ok().map(Seen::Shared)
}

fn message(http: &Http, direction: Direction) -> &Message {
    match direction {
        Direction::Request => &http.request,
        Direction::Response => &http.response,
    }
}
