//! The benchmarks' two baselines, which decide nothing: without a configuration a filter that sets
//! one response header; with one, that names a cluster, also a callout that every request waits
//! for, whatever it is answered: what no callout can cost less than.
#![allow(missing_docs, reason = "the SDK's macro exports undocumented symbols")]

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(Root { cluster: None }));
}}

struct Root {
    cluster: Option<Rc<str>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let cluster = self.get_plugin_configuration().and_then(|text| String::from_utf8(text).ok());
        self.cluster = cluster.filter(|name| !name.is_empty()).map(Rc::from);
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Noop { cluster: self.cluster.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Noop {
    cluster: Option<Rc<str>>,
}

impl Context for Noop {
    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        self.resume_http_request();
    }
}

impl HttpContext for Noop {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(cluster) = &self.cluster else { return Action::Continue };
        let headers = vec![(":method", "POST"), (":path", "/"), (":authority", "floor")];
        match self.dispatch_http_call(cluster, headers, None, vec![], Duration::from_secs(5)) {
            Ok(_) => Action::Pause,
            Err(_) => {
                // What calls nobody would look like a callout that costs nothing.
                self.send_http_response(500, vec![], None);
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header("x-noop", Some("1"));
        Action::Continue
    }
}
