//! Owns the fields of a policy's `match`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::identity::NO_HOST;
use super::reader::{At, Table};
use super::route::route;
use super::shapes;
use super::suggest::nearest;
use crate::canonical::canonical;
use crate::matching::{
    BadHost, BadPattern, FieldMatch, HostPattern, Matcher, PathPattern, Regex, RouteMatch, Want,
    canonical_host,
};

const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// Conditions on headers or parameters of one policy: each is looked for in every header.
const FIELDS_MAX: usize = 16;
/// Hosts of one policy: more than this want a pattern.
const HOSTS_MAX: usize = 1_000;
/// More methods than anyone has defined.
const METHODS_MAX: usize = 64;
const VALUE_LEN_MAX: usize = 1_024;

pub(super) fn matcher(at: &At<'_, '_>) -> Option<Matcher> {
    let table = at.table(shapes::MATCH.known, "write {\"path\": \"/api/**\"}")?;
    let path = path(at, &table);
    let hosts = match table.get("host") {
        None => Some(None),
        Some(at) => hosts(&at).map(Some),
    };
    let methods = match table.get("methods") {
        None => Some(None),
        Some(at) => methods(&at).map(Some),
    };
    let headers = fields(&table, "headers", header_name);
    let query = fields(&table, "query", parameter_name);
    let route = match table.get("route") {
        None => Some(RouteMatch::default()),
        Some(at) => route(&at),
    };
    Some(Matcher {
        hosts: hosts?,
        path: path?,
        methods: methods?,
        headers: headers?,
        query: query?,
        route: route?,
    })
}

fn path(at: &At<'_, '_>, table: &Table<'_, '_>) -> Option<PathPattern> {
    match (table.get("path"), table.get("path_regex")) {
        (Some(_), Some(_)) => {
            at.wrong("path and path_regex stand side by side", "keep one of them");
            None
        }
        (None, Some(at)) => regex(&at).map(PathPattern::Regex),
        _ => table.must("path", "write \"/**\" for every path").and_then(|at| pattern(&at)),
    }
}

fn pattern(at: &At<'_, '_>) -> Option<PathPattern> {
    let text = at.text("write a path such as \"/api/**\"")?;
    let spelling = String::from_utf8_lossy(&canonical(text.as_bytes())).into_owned();
    let normalised = format!(
        "requests are normalised before they are compared; write {spelling:?}, without ; and encoded slashes"
    );
    let remedy = match PathPattern::parse(text) {
        Ok(pattern) => return Some(pattern),
        Err(BadPattern::NotCanonical) => &normalised,
        Err(BadPattern::NoSlash) => "begin with /",
        Err(BadPattern::Star) => "write * only in a closing /**",
        Err(BadPattern::Template) => {
            "a template is a whole segment, {name} of a-z 0-9 _, and each name stands once"
        }
        Err(BadPattern::Character) => {
            "write visible ASCII without ? and #; percent-encode the rest"
        }
    };
    at.is_no("path pattern", remedy);
    None
}

fn regex(at: &At<'_, '_>) -> Option<Regex> {
    let text = at.text("write a regular expression such as \"/v[0-9]+/orders\"")?;
    match Regex::parse(text) {
        Ok(regex) => Some(regex),
        Err(bad) => {
            at.is_no("regular expression that can be used", bad.0);
            None
        }
    }
}

fn hosts(at: &At<'_, '_>) -> Option<Vec<HostPattern>> {
    const REMEDY: &str = "write \"api.example.com\", \"*.example.com\", or a list of them";
    if !at.is_list() {
        return host(at).map(|host| [host].into());
    }
    let items = at.list(REMEDY)?;
    if items.is_empty() {
        at.wrong("no host, so the policy would never match", REMEDY);
        return None;
    }
    few(at, "hosts", items.len(), HOSTS_MAX)?;
    let read: Vec<Option<HostPattern>> = items.iter().map(host).collect();
    read.into_iter().collect()
}

fn few(at: &At<'_, '_>, what: &str, count: usize, max: usize) -> Option<()> {
    if count > max {
        at.wrong(format!("{count} {what}"), format!("write at most {max}"));
        return None;
    }
    Some(())
}

fn host(at: &At<'_, '_>) -> Option<HostPattern> {
    let text = at.text("write a host such as \"api.example.com\"")?;
    let spelled = canonical_host(text.as_bytes());
    let normalised = if text.is_ascii() {
        let spelled = String::from_utf8_lossy(&spelled);
        format!("hosts are compared in lower case, without port and scheme; write {spelled:?}")
    } else {
        "clients send the ASCII form of a name; write that, such as \"xn--mnchen-3ya.de\""
            .to_owned()
    };
    let remedy = match HostPattern::parse(text) {
        Ok(host) => return Some(host),
        Err(BadHost::Star) => "write * only in a leading *.",
        Err(BadHost::Port) => "hosts are compared without their port; leave it out",
        Err(BadHost::NotCanonical) => &normalised,
    };
    at.is_no("host pattern", remedy);
    None
}

pub(super) fn methods(at: &At<'_, '_>) -> Option<Vec<String>> {
    let items = at.list("write [\"GET\", \"POST\"], or leave it out for every method")?;
    if items.is_empty() {
        at.wrong(
            "no method, so the policy would never match",
            "name some, or leave the field out for every method",
        );
        return None;
    }
    few(at, "methods", items.len(), METHODS_MAX)?;
    let read: Vec<Option<String>> = items.iter().map(method).collect();
    read.into_iter().collect()
}

fn method(at: &At<'_, '_>) -> Option<String> {
    let text = at.text("write a method such as \"GET\"")?;
    let token = !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if !token {
        let upper = text.to_ascii_uppercase();
        let remedy = match nearest(&upper, METHODS) {
            Some(word) => format!("did you mean {word:?}? Methods are written in capitals"),
            None => "write a method in capitals, such as \"GET\"".to_owned(),
        };
        at.is_no("method", remedy);
    } else if !METHODS.contains(&text)
        && let Some(word) = nearest(text, METHODS)
    {
        at.doubt(format!("{text:?} is an uncommon method"), format!("did you mean {word:?}?"));
    }
    token.then(|| text.to_owned())
}

fn fields(
    table: &Table<'_, '_>,
    field: &str,
    name: impl Fn(&At<'_, '_>, &str) -> Option<String>,
) -> Option<Vec<FieldMatch>> {
    const REMEDY: &str = "write {\"name\": \"value\"}";
    let Some(at) = table.get(field) else {
        return Some(Vec::new());
    };
    let entries = at.entries(REMEDY)?;
    if entries.is_empty() || entries.len() > FIELDS_MAX {
        at.wrong(
            format!("{} conditions", entries.len()),
            format!("write 1 to {FIELDS_MAX}, or leave the field out"),
        );
        return None;
    }
    let mut read: Vec<Option<FieldMatch>> = Vec::new();
    for (key, at) in &entries {
        let (name, want) = (name(at, key), want(at));
        let before = |one: &FieldMatch| Some(&one.name) == name.as_ref();
        if read.iter().flatten().any(before) {
            at.wrong(format!("{key:?} stands here twice"), "write one condition for each name");
            return None;
        }
        read.push(name.zip(want).map(|(name, want)| FieldMatch { name, want }));
    }
    read.into_iter().collect()
}

fn header_name(at: &At<'_, '_>, key: &str) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let sound = (1..=128).contains(&key.len()) && key.bytes().all(token);
    if !sound {
        at.wrong(
            format!("{key:?} is no header name"),
            "write a header's name such as \"x-tier\"; host, path and methods have fields of their own",
        );
    }
    if key.eq_ignore_ascii_case("host") {
        at.wrong(NO_HOST, "write {\"host\": \"api.example.com\"} in match");
        return None;
    }
    sound.then(|| key.to_ascii_lowercase())
}

fn parameter_name(at: &At<'_, '_>, key: &str) -> Option<String> {
    let sound = (1..=128).contains(&key.len());
    if !sound {
        at.wrong(
            format!("{key:?} is no parameter name"),
            "write a parameter's name of 1 to 128 bytes, decoded",
        );
    }
    sound.then(|| key.to_owned())
}

pub(super) fn want(at: &At<'_, '_>) -> Option<Want> {
    const REMEDY: &str = "write a value, {\"present\": true}, {\"absent\": true}, {\"prefix\": \"v\"} or {\"regex\": \"v[0-9]+\"}";
    if at.is_text() {
        return value(at).map(Want::Equals);
    }
    let table = at.table(shapes::CONDITION.known, REMEDY)?;
    let wants = [
        table.get("present").map(|at| holds(&at).map(|()| Want::Present)),
        table.get("absent").map(|at| holds(&at).map(|()| Want::Absent)),
        table.get("prefix").map(|at| value(&at).map(Want::Prefix)),
        table.get("regex").map(|at| regex(&at).map(Want::Regex)),
    ];
    let mut given = wants.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(want), None) => want,
        _ => {
            at.wrong("not exactly one condition", REMEDY);
            None
        }
    }
}

fn value(at: &At<'_, '_>) -> Option<String> {
    let text = at.text("write the value as text")?;
    if text.len() > VALUE_LEN_MAX {
        at.wrong(format!("{} bytes", text.len()), format!("write at most {VALUE_LEN_MAX}"));
        return None;
    }
    Some(text.to_owned())
}

fn holds(at: &At<'_, '_>) -> Option<()> {
    if at.is_true() {
        return Some(());
    }
    at.is_no("condition", "write true");
    None
}
