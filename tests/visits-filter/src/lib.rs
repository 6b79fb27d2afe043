//! A plugin for the simulator's tests: counts a user's visits in data that all workers share, and says the number in a header.
#![allow(missing_docs, reason = "the SDK's macro exports undocumented symbols")]

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel, Status};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_http_context(|_, _| Box::new(Visit { count: 0 }));
}}

struct Visit {
    count: u64,
}

impl Context for Visit {}

impl Visit {
    /// Another worker may have counted between reading and writing; then the number is read again.
    fn count(&self, key: &str) -> u64 {
        const TRIES_MAX: usize = 10;
        for _ in 0..TRIES_MAX {
            let (value, version) = self.get_shared_data(key);
            let known = value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
            match self.set_shared_data(key, Some(&(known + 1).to_le_bytes()), version) {
                Ok(()) => return known + 1,
                Err(Status::CasMismatch) => {}
                Err(status) => log::warn!("shared data: {status:?}"),
            }
        }
        0
    }
}

impl HttpContext for Visit {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(user) = self.get_http_request_header("x-user") else {
            self.send_http_response(400, vec![("x-why", "no user")], Some(b"who are you?"));
            return Action::Pause;
        };
        self.count = self.count(&format!("visits.{user}"));
        self.set_http_request_header("x-visits", Some(&self.count.to_string()));
        self.set_http_request_header("x-user", None);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.add_http_response_header("x-visits", &self.count.to_string());
        Action::Continue
    }
}
