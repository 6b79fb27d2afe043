//! Expectations as written, and the one subject each must have. It must not look at results.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::{Check, ClientWants, CountWants, LogWants, RequestWants, Side};
use super::matchers::{NumberMatcher, TextMatcher};
use super::rules::Pattern;
use super::units::Moments;
use crate::abi::codes::LogLevel;
use crate::host::lints::LintName;

/// One expectation. Exactly one of `client`, `upstream`, `callouts`, `upstream_request`, `callout`, `metric`,
/// `shared_data`, `log`, `no_log_at`, `lint` says what it is about.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawExpect {
    client: Option<String>,
    upstream: Option<Requests>,
    callouts: Option<Requests>,
    upstream_request: Option<usize>,
    callout: Option<usize>,
    metric: Option<String>,
    shared_data: Option<String>,
    log: Option<RawLog>,
    no_log_at: Option<LogLevel>,
    lint: Option<LintName>,

    /// Of a client: its first, second, ... request; the first without it.
    request: Option<usize>,
    status: Option<u16>,
    /// Of a client: when its response was complete. Of a request: when it was sent.
    at: Option<Moments>,
    #[serde(default)]
    headers: BTreeMap<String, TextMatcher>,
    body: Option<TextMatcher>,
    details: Option<TextMatcher>,
    reset: Option<bool>,
    /// The client still waits when the run ends.
    waiting: Option<bool>,
    host_calls_max: Option<u64>,
    host_bytes_max: Option<u64>,
    sent_callouts: Option<u64>,

    /// Of requests: only those that fit.
    on: Option<Pattern>,
    cluster: Option<String>,
    value: Option<TextMatcher>,
    /// Of a metric: the plugin never defined it.
    absent: Option<bool>,
    equals: Option<u64>,
    min: Option<u64>,
    max: Option<u64>,
}

/// The word `requests`, which makes the file read as a sentence.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Requests {
    Requests,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawLog {
    contains: String,
    level: Option<LogLevel>,
}

const SUBJECTS: &str = "client, upstream, callouts, upstream_request, callout, metric, shared_data, log, no_log_at or lint";

impl RawExpect {
    pub(crate) fn plan(&self) -> Result<Check, String> {
        let subjects = [
            self.client.is_some(),
            self.upstream.is_some(),
            self.callouts.is_some(),
            self.upstream_request.is_some(),
            self.callout.is_some(),
            self.metric.is_some(),
            self.shared_data.is_some(),
            self.log.is_some(),
            self.no_log_at.is_some(),
            self.lint.is_some(),
        ];
        if subjects.iter().filter(|is_there| **is_there).count() != 1 {
            return Err(format!("an expectation is about exactly one of {SUBJECTS}"));
        }
        let check = self.check();
        self.refuse_foreign_fields(&check)?;
        Ok(check)
    }

    fn check(&self) -> Check {
        if let Some(client) = &self.client {
            return Check::Client(Box::new(self.client_wants(client)));
        }
        for (side, requests) in [(Side::Upstream, self.upstream), (Side::Callouts, self.callouts)] {
            if requests.is_some() {
                return Check::Count(CountWants {
                    side,
                    on: self.on.clone(),
                    cluster: self.cluster.clone(),
                    count: self.number(),
                });
            }
        }
        for (side, nth) in [(Side::Upstream, self.upstream_request), (Side::Callouts, self.callout)]
        {
            if let Some(nth) = nth {
                return Check::Request(Box::new(self.request_wants(side, nth)));
            }
        }
        if let Some(name) = &self.metric {
            if self.absent.is_some() {
                return Check::NoMetric(name.clone());
            }
            return Check::Metric { name: name.clone(), value: self.number() };
        }
        if let Some(key) = &self.shared_data {
            return Check::SharedData {
                key: key.clone(),
                value: self.value.clone().unwrap_or_default(),
            };
        }
        if let Some(log) = &self.log {
            return Check::Log(LogWants { contains: log.contains.clone(), level: log.level });
        }
        if let Some(name) = self.lint {
            return Check::Lint { name, count: self.number() };
        }
        Check::NoLogAt(self.no_log_at.unwrap_or(LogLevel::Error))
    }

    fn client_wants(&self, client: &str) -> ClientWants {
        ClientWants {
            client: client.to_owned(),
            nth: self.request.unwrap_or(1),
            status: self.status,
            at: self.at,
            headers: self.headers.clone(),
            body: self.body.clone(),
            details: self.details.clone(),
            is_reset: self.reset,
            is_waiting: self.waiting,
            host_calls_max: self.host_calls_max,
            host_bytes_max: self.host_bytes_max,
            callouts: self.sent_callouts,
        }
    }

    fn request_wants(&self, side: Side, nth: usize) -> RequestWants {
        RequestWants {
            side,
            nth,
            on: self.on.clone(),
            cluster: self.cluster.clone(),
            at: self.at,
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }

    fn number(&self) -> NumberMatcher {
        NumberMatcher { equals: self.equals, min: self.min, max: self.max }
    }

    /// A field that its subject has no use for would be an expectation nobody checks.
    fn refuse_foreign_fields(&self, check: &Check) -> Result<(), String> {
        let is_client = matches!(check, Check::Client(_));
        let is_request = matches!(check, Check::Request(_));
        let is_count = matches!(check, Check::Count(_));
        let is_lint = matches!(check, Check::Lint { .. });
        let is_number = is_count || matches!(check, Check::Metric { .. });
        let is_shared = matches!(check, Check::SharedData { .. });
        let is_absent = matches!(check, Check::NoMetric(_));
        let client_only = [
            ("request", self.request.is_some()),
            ("status", self.status.is_some()),
            ("details", self.details.is_some()),
            ("reset", self.reset.is_some()),
            ("waiting", self.waiting.is_some()),
            ("host_calls_max", self.host_calls_max.is_some()),
            ("host_bytes_max", self.host_bytes_max.is_some()),
            ("sent_callouts", self.sent_callouts.is_some()),
        ];
        let of_messages = [
            ("at", self.at.is_some()),
            ("headers", !self.headers.is_empty()),
            ("body", self.body.is_some()),
        ];
        let of_requests = [("on", self.on.is_some()), ("cluster", self.cluster.is_some())];
        let of_numbers = [
            ("equals", self.equals.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
        ];
        let groups: [(&[(&str, bool)], bool); 6] = [
            (&client_only, is_client),
            (&of_messages, is_client || is_request),
            (&of_requests, is_request || is_count),
            (&of_numbers, is_number || is_lint),
            (&[("value", self.value.is_some())], is_shared),
            (&[("absent", self.absent.is_some())], is_absent),
        ];
        for (fields, is_allowed) in groups {
            if let Some((field, _)) = fields.iter().find(|(_, is_there)| *is_there && !is_allowed) {
                return Err(format!("{field} does not belong to this expectation's subject"));
            }
        }
        if self.absent == Some(false) {
            return Err(
                "absent: write true; a metric that is there has equals, min or max".to_owned()
            );
        }
        if is_number && self.number().is_empty() {
            return Err("a number needs equals, min or max".to_owned());
        }
        Ok(())
    }
}
