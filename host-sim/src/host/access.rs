//! Which header map and which buffer a plugin may read or write at this moment. It must not move anything on.

use super::callouts::CalloutAnswer;
use super::headers::HeaderMap;
use super::stream::Side;
use super::vm_state::VmState;
use crate::abi::codes::{BufferType, MapType, Status};

impl VmState {
    pub(crate) fn map(&self, map: MapType) -> Option<&HeaderMap> {
        let side = |side: &'_ Side, logging: bool| side.headers_open || (logging && side.started);
        let stream = self.stream();
        match map {
            MapType::RequestHeaders => {
                stream.filter(|s| side(&s.request, s.logging)).map(|s| &s.request.headers)
            }
            MapType::ResponseHeaders => {
                stream.filter(|s| side(&s.response, s.logging)).map(|s| &s.response.headers)
            }
            MapType::RequestTrailers => {
                stream.filter(|s| s.request.trailers_open).and_then(|s| s.request.trailers.as_ref())
            }
            MapType::ResponseTrailers => stream
                .filter(|s| s.response.trailers_open || s.logging)
                .and_then(|s| s.response.trailers.as_ref()),
            MapType::CalloutHeaders => self.callout_answer().map(|(headers, ..)| headers),
            MapType::CalloutTrailers => self.callout_answer().map(|(.., trailers)| trailers),
            MapType::GrpcInitialMetadata => self.grpc.initial.as_ref(),
            MapType::GrpcTrailingMetadata => self.grpc.trailing.as_ref(),
        }
    }

    pub(crate) fn map_mut(&mut self, map: MapType) -> Option<&mut HeaderMap> {
        let stream = self.stream_mut()?;
        match map {
            MapType::RequestHeaders => Some(&mut stream.request)
                .filter(|side| side.headers_open)
                .map(|side| &mut side.headers),
            MapType::ResponseHeaders => Some(&mut stream.response)
                .filter(|side| side.headers_open)
                .map(|side| &mut side.headers),
            MapType::RequestTrailers => stream.request.trailers_mut(),
            MapType::ResponseTrailers => stream.response.trailers_mut(),
            _ => None,
        }
    }

    /// In `on_log` a map that is not there reads as if the header were missing.
    pub(crate) fn status_of_missing_map(&self) -> Status {
        if self.stream().is_some_and(|stream| stream.logging) {
            Status::NotFound
        } else {
            Status::BadArgument
        }
    }

    pub(crate) fn buffer(&self, buffer: BufferType) -> Option<&[u8]> {
        match buffer {
            BufferType::RequestBody => self.stream()?.request.body.as_deref(),
            BufferType::ResponseBody => self.stream()?.response.body.as_deref(),
            BufferType::CalloutBody => self.callout_answer().map(|(_, body, _)| body),
            BufferType::VmConfig => Some(&self.plugin.vm_config),
            BufferType::PluginConfig => self.config_open.then_some(&self.plugin.config),
            BufferType::GrpcMessage => self.grpc.message.as_deref(),
            BufferType::CallData => Some(&self.call_data),
            BufferType::DownstreamData | BufferType::UpstreamData => None,
        }
    }

    pub(crate) fn body_mut(&mut self, buffer: BufferType) -> Option<&mut Vec<u8>> {
        match buffer {
            BufferType::RequestBody => self.stream_mut()?.request.body.as_mut(),
            BufferType::ResponseBody => self.stream_mut()?.response.body.as_mut(),
            _ => None,
        }
    }

    fn callout_answer(&self) -> Option<(&HeaderMap, &[u8], &HeaderMap)> {
        match self.callouts.current.as_ref()? {
            CalloutAnswer::Answered { headers, body, trailers } => Some((headers, body, trailers)),
            CalloutAnswer::Reset => None,
        }
    }
}

impl Side {
    fn trailers_mut(&mut self) -> Option<&mut HeaderMap> {
        if self.trailers_creatable && self.trailers.is_none() {
            self.trailers = Some(HeaderMap::default());
            self.trailers_open = true;
            self.trailers_done = true;
        }
        self.trailers.as_mut().filter(|_| self.trailers_open)
    }
}
