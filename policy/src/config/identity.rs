//! Owns the fields of one identity: where it stands in a request, and whether it is trusted.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::identities::Names;
use super::reader::{At, Table};
use super::shape::Known;
use super::shapes;
use super::suggest::nearest;
use crate::identity::{Carrier, Fingerprint, PathPart, Place, Source, V6_PREFIX};

pub(super) const REMEDY: &str = "write \"ip\", {\"header\": \"x-api-key\"}, the name of one of the identities, or a list of them";

/// The places that an identity can have; exactly one of them stands in its table.
const PLACES: [&str; 10] = [
    "ip",
    "header",
    "cookie",
    "query",
    "path",
    "jwt",
    "mtls",
    "filter_state",
    "signed",
    "fingerprint",
];
/// Where a device's id can stand that no client chooses.
const OF_DEVICE: [&str; 3] = ["signed", "jwt", "mtls"];
const OF_TLS: [&str; 2] = ["filter_state", "header"];
const NAME_LEN_MAX: usize = 128;
/// Of a header that no request has here.
pub(super) const NO_HOST: &str =
    "a request reaches the filter without \"host\": Envoy makes :authority of it";
/// A key, the one before it, and two that are on their way.
const KEYS_MAX: usize = 4;
/// Where the shortcuts look; envoy/identities.yaml puts both there.
const JA3: &str = "tidegate.ja3";
const JA4: &str = "tidegate.ja4";

/// The shortcuts that need no table.
pub(super) fn shortcut(word: &str) -> Option<Source> {
    match word {
        "ip" => Some(trusted_by_nature(Place::Ip { v6_prefix: V6_PREFIX })),
        "ja3" => Some(of_client(filter_state(JA3))),
        "ja4" => Some(of_client(filter_state(JA4))),
        _ => None,
    }
}

/// An identity written out as a table.
pub(super) fn inline(at: &At<'_, '_>, names: &Names<'_, '_>) -> Option<Source> {
    let table = at.table(shapes::IDENTITY.known, REMEDY)?;
    vouched(source(at, &table, &PLACES, names)?, &table)
}

fn source(
    at: &At<'_, '_>,
    table: &Table<'_, '_>,
    places: &[&str],
    names: &Names<'_, '_>,
) -> Option<Source> {
    let mut given = places.iter().filter_map(|name| Some((*name, table.get(name)?)));
    let (Some((place, at)), None) = (given.next(), given.next()) else {
        at.wrong(
            "an identity has exactly one source",
            format!("write one of {}", places.join(", ")),
        );
        return None;
    };
    Some(match place {
        "ip" => trusted_by_nature(ip(&at)?),
        "jwt" => trusted_by_nature(jwt(&at)?),
        "mtls" => trusted_by_nature(mtls(&at)?),
        "signed" => trusted_by_nature(signed(&at, names)?),
        "header" => of_client(Place::Header(header_name(&at)?)),
        "cookie" => of_client(Place::Cookie(cookie_name(&at)?)),
        "query" => of_client(Place::Query(plain_name(&at, "parameter name", "api_key")?)),
        "path" => of_client(path(&at)?),
        "filter_state" => {
            of_client(filter_state(&plain_name(&at, "filter state key", "tidegate.ja4")?))
        }
        _ => of_client(fingerprint(&at, names)?),
    })
}

fn trusted_by_nature(place: Place) -> Source {
    Source { place, trusted: true, is_tenant: false }
}

fn of_client(place: Place) -> Source {
    Source { place, trusted: false, is_tenant: false }
}

fn filter_state(key: &str) -> Place {
    Place::FilterState { property: format!("filter_state\0{key}") }
}

/// `trusted` as the author says it.
fn vouched(mut source: Source, table: &Table<'_, '_>) -> Option<Source> {
    let Some(at) = table.get("trusted") else {
        return Some(source);
    };
    if !at.is_bool() {
        at.is_no("truth value", "write true or false");
        return None;
    }
    match (&source.place, at.is_true()) {
        (Place::Fingerprint(_), true) => {
            at.wrong(
                "a fingerprint holds the user agent, which every client chooses",
                "leave trusted out; what must not be chosen is counted by the device id alone",
            );
            None
        }
        (_, true) => {
            source.trusted = true;
            Some(source)
        }
        (_, false) if source.trusted => {
            at.wrong("this source is trusted by nature", "leave trusted out");
            None
        }
        (_, false) => Some(source),
    }
}

fn ip(at: &At<'_, '_>) -> Option<Place> {
    let inner = at.table(shapes::IP.known, "write {\"v6_prefix\": 64}, or {}")?;
    let v6_prefix = match inner.get("v6_prefix") {
        None => Some(V6_PREFIX),
        Some(at) => at.whole(1, 128).and_then(|n| u8::try_from(n).ok()),
    };
    Some(Place::Ip { v6_prefix: v6_prefix? })
}

/// Where Envoy's `jwt_authn` puts a verified token: under `payload_in_metadata` of its provider.
fn jwt(at: &At<'_, '_>) -> Option<Place> {
    const REMEDY: &str = "write {\"provider\": \"main\", \"claim\": \"sub\"}";
    let table = at.table(shapes::JWT.known, REMEDY)?;
    let provider = table
        .must("provider", "name what payload_in_metadata of jwt_authn's provider says")
        .and_then(|at| plain_name(&at, "provider", "main"));
    let claim = table.must("claim", REMEDY).and_then(|at| claim(&at));
    let (provider, claim) = (provider?, claim?);
    let property =
        format!("metadata\0filter_metadata\0envoy.filters.http.jwt_authn\0{provider}\0{claim}");
    Some(Place::Jwt { property })
}

/// A claim's name, or the way to one that lies deeper.
fn claim(at: &At<'_, '_>) -> Option<String> {
    const DEPTH_MAX: usize = 4;
    if !at.is_list() {
        return plain_name(at, "claim", "sub");
    }
    let items = at.list("write a list of names")?;
    if items.is_empty() || items.len() > DEPTH_MAX {
        at.wrong(format!("{} names", items.len()), format!("write 1 to {DEPTH_MAX}"));
        return None;
    }
    let names: Vec<Option<String>> =
        items.iter().map(|at| plain_name(at, "claim", "sub")).collect();
    Some(names.into_iter().collect::<Option<Vec<_>>>()?.join("\0"))
}

fn mtls(at: &At<'_, '_>) -> Option<Place> {
    const WORDS: [&str; 4] = ["subject", "uri_san", "dns_san", "sha256"];
    const REMEDY: &str = "write \"subject\", \"uri_san\", \"dns_san\" or \"sha256\"";
    let property = match at.text(REMEDY)? {
        "subject" => "connection\0subject_peer_certificate",
        "uri_san" => "connection\0uri_san_peer_certificate",
        "dns_san" => "connection\0dns_san_peer_certificate",
        "sha256" => "connection\0sha256_peer_certificate_digest",
        other => {
            let remedy = match nearest(other, &WORDS) {
                Some(word) => format!("did you mean {word:?}?"),
                None => REMEDY.to_owned(),
            };
            at.is_no("part of a certificate", remedy);
            return None;
        }
    };
    Some(Place::Mtls { property: property.to_owned() })
}

fn path(at: &At<'_, '_>) -> Option<Place> {
    let name = plain_name(at, "part of a path", "id")?;
    if name.contains(['{', '}', '/']) {
        at.is_no(
            "part of a path",
            "write the name in the template without braces, \"id\" for {id}",
        );
        return None;
    }
    // Which segment that is, the policy's match says.
    Some(Place::Path(PathPart { name, segment: 0 }))
}

fn fingerprint(at: &At<'_, '_>, names: &Names<'_, '_>) -> Option<Place> {
    const REMEDY: &str = "write {\"device_id\": {\"signed\": {\"cookie\": \"did\", \"key\": {\"env\": \"DEVICE_KEY\"}}}}";
    let table = at.table(shapes::FINGERPRINT.known, REMEDY)?;
    let device_at = table.must("device_id", REMEDY);
    let device = device_at.as_ref().and_then(|at| {
        part(at, names, |table| source(at, table, &OF_DEVICE, names), shapes::DEVICE.known)
    });
    if let (Some(at), Some(device)) = (&device_at, &device)
        && !device.trusted
    {
        at.wrong(
            "a client chooses this device id, so it could take a new one for every request",
            "use a signed one, or write \"trusted\": true in identities where something before the filter validates it",
        );
        return None;
    }
    let tls = match table.get("tls") {
        None => Some(None),
        Some(at) => part(&at, names, |table| source(&at, table, &OF_TLS, names), shapes::TLS.known)
            .map(|source| Some(source.place)),
    };
    let (device, tls) = (device?.place, tls?);
    let changes =
        |place: &Place| matches!(place, Place::Ip { .. } | Place::Path(_) | Place::Fingerprint(_));
    if changes(&device) || tls.as_ref().is_some_and(changes) {
        at.wrong(
            "a fingerprint is made of neither addresses, parts of a path nor other fingerprints",
            "it has to stay the same wherever the client goes",
        );
        return None;
    }
    Some(Place::Fingerprint(Box::new(Fingerprint { device, tls })))
}

/// A part of a fingerprint: the name of an identity, or a table of fewer places.
fn part(
    at: &At<'_, '_>,
    names: &Names<'_, '_>,
    read: impl FnOnce(&Table<'_, '_>) -> Option<Source>,
    known: Known,
) -> Option<Source> {
    if at.is_text() {
        return names.one(at);
    }
    read(&at.table(known, "name one of the identities, or write it out")?)
}

/// An id with its signature, `ID.MAC`, in a cookie or a header.
fn signed(at: &At<'_, '_>, names: &Names<'_, '_>) -> Option<Place> {
    const REMEDY: &str = "write {\"cookie\": \"did\", \"key\": {\"env\": \"DEVICE_KEY\"}}";
    let table = at.table(shapes::SIGNED.known, REMEDY)?;
    let carrier = match (table.get("cookie"), table.get("header")) {
        (Some(at), None) => cookie_name(&at).map(Carrier::Cookie),
        (None, Some(at)) => header_name(&at).map(Carrier::Header),
        _ => {
            at.wrong("a signed id stands in exactly one place", REMEDY);
            None
        }
    };
    let keys = keys(&table, names);
    Some(Place::Signed { carrier: carrier?, keys: keys? })
}

/// `{"env": "NAME"}`, or a list of them while keys are exchanged.
fn keys(table: &Table<'_, '_>, names: &Names<'_, '_>) -> Option<Vec<String>> {
    const REMEDY: &str = "write {\"env\": \"DEVICE_KEY\"}: keys stay out of the document";
    let at = table.must("key", REMEDY)?;
    let items = if at.is_list() { at.list(REMEDY)? } else { [at.clone()].into() };
    if items.is_empty() || items.len() > KEYS_MAX {
        at.wrong(format!("{} keys", items.len()), format!("write 1 to {KEYS_MAX}"));
        return None;
    }
    let read: Vec<Option<String>> = items
        .iter()
        .map(|at| {
            let name = environment_variable(at, REMEDY)?;
            names.needs_key(&name, &at.path);
            Some(name)
        })
        .collect();
    read.into_iter().collect()
}

/// `{"env": "NAME"}`.
pub(super) fn environment_variable(at: &At<'_, '_>, remedy: &str) -> Option<String> {
    if at.is_text() {
        // Not shown: messages go to logs.
        at.wrong("a secret is written out", remedy);
        return None;
    }
    let table = at.table(shapes::SECRET.known, remedy)?;
    let env = table.must("env", remedy)?;
    let name = env.text("name an environment variable")?;
    let sound = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !sound {
        env.is_no("name of an environment variable", "write letters, digits and _");
    }
    sound.then(|| name.to_owned())
}

/// 1 to 128 bytes without control characters: no such name can break a property's path.
fn plain_name(at: &At<'_, '_>, what: &str, example: &str) -> Option<String> {
    let text = at.text(&format!("write a {what} such as {example:?}"))?;
    let sound = (1..=NAME_LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if !sound {
        at.is_no(what, format!("write 1 to {NAME_LEN_MAX} bytes without control characters"));
    }
    sound.then(|| text.to_owned())
}

fn token(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn cookie_name(at: &At<'_, '_>) -> Option<String> {
    let text = at.text("name a cookie")?;
    if !token(text) {
        at.is_no("cookie name", "write a cookie's name such as \"did\"");
        return None;
    }
    Some(text.to_owned())
}

fn header_name(at: &At<'_, '_>) -> Option<String> {
    let text = at.text("name a header")?;
    let sound = token(text);
    if !sound {
        at.is_no(
            "header name",
            "write a header's name such as \"x-api-key\"; :path and the like are no identity",
        );
    }
    if text.eq_ignore_ascii_case("host") {
        at.wrong(NO_HOST, "count by another header");
        return None;
    }
    if text.eq_ignore_ascii_case("cookie") {
        at.wrong("a whole cookie header changes with every cookie", "write {\"cookie\": \"NAME\"}");
        return None;
    }
    if text.contains('_') {
        at.doubt(
            "Envoy may refuse or drop headers with an underscore",
            "write the name with -, or see headers_with_underscores_action of Envoy",
        );
    }
    sound.then(|| text.to_ascii_lowercase())
}
