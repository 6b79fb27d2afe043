//! Owns the fields of a policy's `idempotency`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::cost::size;
use super::identities::Names;
use super::matcher::methods;
use super::missing::Missing;
use super::read::{duration_ms, truth};
use super::reader::{At, Table};
use super::rollout::{Said, mode};
use super::shapes;
use super::suggest::nearest;
use crate::idempotency::finalise::Rule;
use crate::idempotency::fingerprint::{HashRule, LongBody};
use crate::idempotency::key::KeySyntax;
use crate::idempotency::stored::{BODY_LEN_MAX, HeaderRule};
use crate::idempotency::terms::{Replicas, Stored, Terms};
use crate::identity::Identity;
use crate::matching::{Matcher, PathPattern, Segment};
use crate::wire::{REPLICAS_WITHIN_MS_MAX, ReplicaCall};

const REMEDY: &str =
    "write {\"key\": \"required\", \"tenant\": \"tenant\", \"upstream_timeout\": \"10s\"}";
/// What changes nothing needs no key (RFC 9110 §9.2.1).
const SAFE: [&str; 4] = ["GET", "HEAD", "OPTIONS", "TRACE"];
const HASH_LEN_MAX: u32 = 16 * 1024 * 1024;
const LIFE_S_DEFAULT: u32 = 86_400;
const HEADERS_MAX: usize = 32;
const REPLICAS_WITHIN_MS: u32 = 100;
const WAITING_MAX: u32 = 100;

/// What the field says; `None` within if it is off.
pub(super) fn idempotency(
    at: &At<'_, '_>,
    names: &Names<'_, '_>,
    matcher: Option<&Matcher>,
    (policys, said): (Option<At<'_, '_>>, Option<&Said>),
) -> Option<Option<Terms>> {
    let table = at.table(shapes::IDEMPOTENCY.known, REMEDY)?;
    let key = table
        .must("key", "write \"required\", \"optional\" or \"off\"")
        .and_then(|at| word(&at, "need of a key", &["off", "optional", "required"]));
    let tenant = table
        .must("tenant", "write \"tenant\": keys of one tenant never meet another's")
        .and_then(|at| tenant(&at, names, matcher));
    let upstream_timeout_ms = table
        .must("upstream_timeout", "write how long the upstream may take, such as \"10s\"")
        .and_then(|at| ms(&at, 100, 3_600_000));
    let own_mode = optional(&table, "mode", mode);
    let methods =
        with(&table, "methods", || ["POST", "PATCH"].map(ToOwned::to_owned).into(), unsafe_methods);
    let syntax = with(
        &table,
        "key_syntax",
        || "lenient",
        |at| word(at, "syntax of keys", &["lenient", "strict"]),
    );
    let endpoint = match table.get("endpoint") {
        None => Some(matcher.and_then(|matcher| written(&matcher.path))),
        Some(at) => endpoint(&at).map(Some),
    };
    let life_s = with(&table, "keep_for", || LIFE_S_DEFAULT, life_s);
    let hash = with(&table, "hash", HashRule::default, hash);
    let wait_ms = with(&table, "wait", || 0, |at| ms(at, 1, 60_000));
    let waiting_max = with(&table, "waiting_max", || WAITING_MAX, |at| at.whole(1, 10_000));
    let takeover = optional(&table, "takeover", truth);
    let response =
        optional(&table, "response", |at| word(at, "way to answer", &["durable", "fast"]));
    let stored = with(&table, "store", Stored::default, stored);
    let unavailable =
        with(&table, "on_unavailable", || "deny", |at| word(at, "way out", &["deny", "allow"]));
    let replicas = replicas(&table);
    let ephemeral = with(&table, "ephemeral", || false, truth);
    let older =
        with(&table, "legacy_keys", || "off", |at| word(at, "use of older keys", &["off", "read"]));
    let (key, upstream_timeout_ms, life_s) = (key?, upstream_timeout_ms?, life_s?);
    let required = key == "required";
    let response = response?;
    let terms = Terms {
        required,
        syntax: if syntax? == "strict" { KeySyntax::Strict } else { KeySyntax::Lenient },
        mode: own_mode?,
        methods: methods?,
        tenant: tenant?,
        endpoint: endpoint?,
        upstream_timeout_ms,
        life_s,
        hash: hash?,
        wait_ms: wait_ms?,
        waiting_max: waiting_max?,
        takeover: takeover?,
        durable: response.map_or(required, |word| word == "durable"),
        stored: stored?,
        allows_unasked: unavailable? == "allow",
        replicas: replicas?,
        ephemeral: ephemeral?,
        older_keys: older? == "read",
    };
    goes_together(at, &table, &terms)?;
    stays_on_one_side(policys.as_ref().zip(said), &terms)?;
    doubt_idle(at, &terms, matcher);
    Some((key != "off").then_some(terms))
}

/// What is right by itself and wrong beside another.
fn goes_together(at: &At<'_, '_>, table: &Table<'_, '_>, terms: &Terms) -> Option<()> {
    if terms.required && terms.allows_unasked {
        table.get("on_unavailable").unwrap_or_else(|| at.clone()).wrong(
            "\"allow\" would run requests without the key's protection, and a key is required",
            "write \"deny\", or \"key\": \"optional\"",
        );
        return None;
    }
    if terms.ephemeral && terms.replicas.is_some() {
        table.get("ephemeral").unwrap_or_else(|| at.clone()).wrong(
            "a store that forgets will do, and it has no replicas to wait for",
            "leave it out, or \"wait_replicas\"",
        );
        return None;
    }
    if u64::from(terms.life_s) * 1_000 <= u64::from(terms.lock_ms()) {
        table.get("keep_for").unwrap_or_else(|| at.clone()).wrong(
            "a record would be gone before its claim's lock has ended",
            "write more than upstream_timeout and 5s",
        );
        return None;
    }
    Some(())
}

/// A retry on the other side of a share than the first request is in shadow, and runs again.
fn stays_on_one_side(mode: Option<(&At<'_, '_>, &Said)>, terms: &Terms) -> Option<()> {
    let Some((mode, said)) = mode.filter(|(_, said)| said.others.share_bp < 10_000) else {
        return Some(());
    };
    let goes_by_another = said.by.as_ref().is_some_and(|by| *by != terms.tenant);
    if !goes_by_another || terms.mode.is_some() {
        return Some(());
    }
    let by = mode.table(shapes::ROLLOUT.known, REMEDY).and_then(|table| table.get("by"));
    by.unwrap_or_else(|| mode.clone()).is_no(
        "identity that a key's requests share: a retry that comes with another one would be in shadow, and run again",
        "leave \"by\" out, and it is idempotency's tenant; or roll out the limits alone: {\"rate_limits\": {\"enforce\": \"10%\", \"by\": \"ip\"}}",
    );
    None
}

fn doubt_idle(at: &At<'_, '_>, terms: &Terms, matcher: Option<&Matcher>) {
    let never = |methods: &Vec<String>| !methods.iter().any(|m| terms.is_for(m.as_bytes()));
    if matcher.and_then(|matcher| matcher.methods.as_ref()).is_some_and(never) {
        at.doubt(
            format!("match.methods has none of {}, so it never applies", terms.methods.join(", ")),
            "name the same methods in both, or leave match.methods out",
        );
    }
}

/// The whole of an optional table's field: its value, or `default`.
fn with<T>(
    table: &Table<'_, '_>,
    name: &str,
    default: impl FnOnce() -> T,
    read: impl FnOnce(&At<'_, '_>) -> Option<T>,
) -> Option<T> {
    table.get(name).map_or_else(|| Some(default()), |at| read(&at))
}

fn optional<T>(
    table: &Table<'_, '_>,
    name: &str,
    read: impl FnOnce(&At<'_, '_>) -> Option<T>,
) -> Option<Option<T>> {
    table.get(name).map_or(Some(None), |at| read(&at).map(Some))
}

fn word(at: &At<'_, '_>, what: &str, words: &[&'static str]) -> Option<&'static str> {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let remedy = format!("write {}", quoted.join(" or "));
    let text = at.text(&remedy)?;
    let found = words.iter().copied().find(|word| *word == text);
    if found.is_none() {
        let near = nearest(text, words).map(|word| format!("did you mean {word:?}?"));
        at.is_no(what, near.unwrap_or(remedy));
    }
    found
}

fn ms(at: &At<'_, '_>, min_ms: u64, max_ms: u64) -> Option<u32> {
    let ms = duration_ms(at, min_ms, max_ms, "write a duration such as \"10s\"")?;
    u32::try_from(ms).ok()
}

fn replicas(table: &Table<'_, '_>) -> Option<Option<Replicas>> {
    let count = with(table, "wait_replicas", || 0, |at| at.whole(0, 8));
    let within_ms = with(
        table,
        "replicas_within",
        || REPLICAS_WITHIN_MS,
        |at| ms(at, 1, REPLICAS_WITHIN_MS_MAX.into()),
    );
    let otherwise =
        with(table, "on_too_few_replicas", || "deny", |at| word(at, "way out", &["deny", "allow"]));
    let (count, within_ms, allows) = (count?, within_ms?, otherwise? == "allow");
    let count = u8::try_from(count).ok()?;
    let replicas = Replicas { asked: ReplicaCall { count, within_ms }, allows_fewer: allows };
    for name in ["replicas_within", "on_too_few_replicas"] {
        if count == 0
            && let Some(at) = table.get(name)
        {
            at.doubt("no replica is waited for", "write \"wait_replicas\": 1, or leave it out");
        }
    }
    Some((count > 0).then_some(replicas))
}

fn life_s(at: &At<'_, '_>) -> Option<u32> {
    let ms = duration_ms(at, 60_000, 30 * 86_400_000, "write a duration such as \"24h\"")?;
    u32::try_from(ms / 1_000).ok()
}

fn tenant(at: &At<'_, '_>, names: &Names<'_, '_>, matcher: Option<&Matcher>) -> Option<Identity> {
    let atom = names.tenant(at)?;
    Missing::default().bind(at, &[atom], matcher.map(|matcher| &matcher.path))
}

fn unsafe_methods(at: &At<'_, '_>) -> Option<Vec<String>> {
    let methods = methods(at)?;
    if let Some(safe) = methods.iter().find(|method| SAFE.contains(&method.as_str())) {
        at.wrong(
            format!("{safe} changes nothing, and needs no key"),
            "name methods that change something, such as \"POST\"",
        );
        return None;
    }
    Some(methods)
}

fn endpoint(at: &At<'_, '_>) -> Option<String> {
    const REMEDY: &str = "write a path such as \"/v1/orders/{id}/refund\"";
    let text = at.text(REMEDY)?;
    match PathPattern::parse(text) {
        Ok(PathPattern::Segments { below: false, .. }) => Some(text.to_owned()),
        Ok(_) | Err(_) => {
            at.is_no("endpoint", REMEDY);
            None
        }
    }
}

/// A pattern of one endpoint, as it is written. One below which there are others is none.
fn written(path: &PathPattern) -> Option<String> {
    let PathPattern::Segments { segments, below: false } = path else {
        return None;
    };
    let mut text = String::new();
    for segment in segments {
        text.push('/');
        match segment {
            Segment::Literal(literal) => text.push_str(literal),
            Segment::Named(name) => text.push_str(&format!("{{{name}}}")),
        }
    }
    Some(text)
}

fn hash(at: &At<'_, '_>) -> Option<HashRule> {
    let table = at.table(shapes::HASH.known, "write {\"max\": \"256KiB\"}")?;
    let default = HashRule::default();
    let host = with(&table, "host", || default.host, truth);
    let len_max = with(&table, "max", || default.len_max, |at| size_to(at, HASH_LEN_MAX, "16MiB"));
    let over = with(
        &table,
        "over",
        || "refuse",
        |at| word(at, "rule for long bodies", &["refuse", "beginning"]),
    );
    let long = if over? == "beginning" { LongBody::Beginning } else { LongBody::Refuse };
    Some(HashRule { host: host?, len_max: len_max?, long })
}

fn size_to(at: &At<'_, '_>, max: u32, written: &str) -> Option<u32> {
    let bytes = size(at)?;
    if bytes > max {
        at.wrong(format!("more than {written}"), format!("write at most {written:?}"));
        return None;
    }
    Some(bytes)
}

fn stored(at: &At<'_, '_>) -> Option<Stored> {
    let table = at.table(shapes::STORED.known, "write {\"headers\": [\"x-order-id\"]}")?;
    let default = Stored::default();
    let rule = match table.get("answers") {
        None => Some(default.rule),
        Some(at) => {
            let words = Rule::ALL.map(Rule::as_str);
            let word = word(&at, "rule for answers", &words)?;
            Rule::ALL.into_iter().find(|rule| rule.as_str() == word)
        }
    };
    let headers = with(&table, "headers", HeaderRule::default, headers);
    let most = u32::try_from(BODY_LEN_MAX).unwrap_or(u32::MAX);
    let body = with(&table, "body", || most, |at| size_to(at, most, "64KiB"));
    let not_stored = with(
        &table,
        "not_stored",
        || "refuse",
        |at| word(at, "rule for what is not stored", &["refuse", "status_only"]),
    );
    Some(Stored {
        rule: rule?,
        headers: headers?,
        body_len_max: usize::try_from(body?).ok()?,
        status_only: not_stored? == "status_only",
    })
}

fn headers(at: &At<'_, '_>) -> Option<HeaderRule> {
    const REMEDY: &str = "write a list of header names, such as [\"x-order-id\"]";
    let items = at.list(REMEDY)?;
    if items.len() > HEADERS_MAX {
        at.wrong(format!("{} headers", items.len()), format!("write at most {HEADERS_MAX}"));
        return None;
    }
    let mut names = Vec::new();
    for item in &items {
        let name = item.text(REMEDY)?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if !((1..=128).contains(&name.len()) && name.bytes().all(token)) {
            item.is_no("header's name", REMEDY);
            return None;
        }
        if HeaderRule::with(&[name]).is_err() {
            item.wrong(
                format!("{name:?} is never stored: it belongs to one client, one connection or one answer"),
                "leave it out",
            );
            return None;
        }
        names.push(name);
    }
    HeaderRule::with(&names).ok()
}
