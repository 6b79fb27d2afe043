//! Owns the question that benchmarks put to a gateway, as bytes of HTTP. Knows no load.

use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::{CallerScope, Environment, KeyFormat, Tenant};
use tidegate_policy::wire::{self, DecideRequest, DecisionId, LimitCall};

use crate::gateway::TOKEN;

/// One limit that is never used up, of one caller.
pub fn body(caller: u32) -> Vec<u8> {
    let name = SubjectName::from_bytes(format!("caller-{caller}").as_bytes());
    wire::encode(&DecideRequest {
        claim: None,
        leases: Vec::new(),
        v: wire::VERSION,
        id: DecisionId::new(u128::from(caller)),
        scope: CallerScope {
            region: None,
            environment: Environment::default(),
            tenant: Tenant::None,
            key_format: KeyFormat::default(),
        },
        // Longer than any deadline that a benchmark gives the gateway.
        timeout_ms: 5_000,
        traceparent: None,
        request_id: None,
        limits: vec![LimitCall {
            id: "load.caller".to_owned(),
            subject: Subject { kind: SubjectKind::Header, name },
            limit: 1_000_000,
            period_us: 1_000_000,
            burst: 1_000_000,
            algorithm: Algorithm::Gcra,
            cost: 1,
            shadow: false,
        }],
    })
}

/// The whole request over HTTP/1.
pub fn http1(caller: u32) -> Vec<u8> {
    let body = body(caller);
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: load\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        wire::DECIDE_PATH,
        body.len()
    );
    [head.into_bytes(), body].concat()
}
