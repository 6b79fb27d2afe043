//! The benchmarks' baseline: a filter that sets one response header and decides nothing.
#![allow(missing_docs, reason = "the SDK's macro exports undocumented symbols")]

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_http_context(|_, _| Box::new(Noop));
}}

struct Noop;

impl Context for Noop {}

impl HttpContext for Noop {
    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header("x-noop", Some("1"));
        Action::Continue
    }
}
