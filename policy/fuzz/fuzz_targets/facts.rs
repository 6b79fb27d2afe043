//! Any octets as what a client sends: nothing of it breaks the matching, the identities or the exchange.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate_policy::config::Config;
use tidegate_policy::exchange::{Event, Exchange};
use tidegate_policy::identity::Facts;
use tidegate_policy::mode::Overrides;
use tidegate_policy::scope::{CallerScope, Environment, KeyFormat, Tenant};
use tidegate_policy::wire::DecisionId;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let reading = Config::read(include_str!("../seeds/document/clients.json"));
    reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics))
});

fuzz_target!(|octets: &[u8]| {
    // Fields are parted by NUL: path, host, method, source, then names and values in turn.
    let mut fields = octets.split(|octet| *octet == 0);
    let mut next = || fields.next().unwrap_or_default();
    let (path, host, method, source) = (next(), next(), next(), next());
    let rest: Vec<&[u8]> = fields.collect();
    let pairs = rest.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    let head = [(b":path".as_slice(), path), (b":authority", host), (b":method", method)];
    let facts = Facts {
        source_address: Some(source.to_vec()),
        headers: head.into_iter().chain(pairs).collect(),
        target: Some(path),
        has_body: false,
        ..Facts::default()
    };
    let matched = CONFIG
        .on_path(Some(path))
        .on_host(&CONFIG, Some(host))
        .on_method(&CONFIG, Some(method))
        .applying(&CONFIG);
    let caller = CallerScope {
        region: None,
        environment: Environment::default(),
        tenant: Tenant::None,
        key_format: KeyFormat::V1,
    };
    let id = DecisionId::new(1);
    let event = Event::Request { matched, facts: &facts, caller: &caller, id, shut: &[] };
    let mut exchange = Exchange::default();
    let effects = exchange.on(&CONFIG, &Overrides::default(), event);
    if let Some(note) = effects.note {
        // One line of the access log stays one line.
        assert!(!note.to_string().chars().any(char::is_control));
    }
});
