//! A plugin for the simulator's tests: every second its root asks a service for flags, and requests carry the last answer.
#![allow(missing_docs, reason = "the SDK's macro exports undocumented symbols")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Refresher::default()));
}}

#[derive(Default)]
struct Refresher {
    flags: Rc<RefCell<Option<String>>>,
    asked: u32,
}

struct Request {
    flags: Rc<RefCell<Option<String>>>,
}

impl Context for Refresher {
    fn on_http_call_response(&mut self, _: u32, headers: usize, size: usize, _: usize) {
        let status = self.get_http_call_response_header(":status");
        let body = self.get_http_call_response_body(0, size).unwrap_or_default();
        match (status.as_deref(), String::from_utf8(body)) {
            (Some("200"), Ok(flags)) => *self.flags.borrow_mut() = Some(flags),
            (status, _) => log::warn!("no flags: {status:?}, {headers} headers"),
        }
    }
}

impl RootContext for Refresher {
    fn on_vm_start(&mut self, _: usize) -> bool {
        self.set_tick_period(Duration::from_secs(1));
        true
    }

    fn on_tick(&mut self) {
        self.asked += 1;
        let path = format!("/flags?n={}", self.asked);
        let headers = vec![(":method", "GET"), (":path", path.as_str()), (":authority", "flags")];
        let timeout = Duration::from_millis(200);
        if let Err(status) = self.dispatch_http_call("flags", headers, None, vec![], timeout) {
            log::warn!("flags cannot be asked for: {status:?}");
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { flags: Rc::clone(&self.flags) }))
    }
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let flags = self.flags.borrow();
        self.set_http_request_header("x-flags", Some(flags.as_deref().unwrap_or("unknown")));
        Action::Continue
    }
}
