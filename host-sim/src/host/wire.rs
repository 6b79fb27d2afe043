//! What Envoy's connection manager, router and codecs add to messages around the filters. It must not know filters.

use super::headers::HeaderMap;
use super::inline::{self, Kind};
use super::reply::LocalReply;
use super::service::Answer;

const NS_PER_MS: u64 = 1_000_000;

/// Before any filter sees a request: hop headers go, what Envoy knows of the connection comes.
pub(crate) fn request_arrived(headers: &mut HeaderMap, new_id: impl FnOnce() -> String) {
    inline::join(headers, Kind::Request);
    // A client from outside does not say that it is from inside.
    for name in ["connection", "x-envoy-internal"] {
        headers.remove(name.as_bytes());
    }
    match headers.text("x-forwarded-proto") {
        Some(scheme) => headers.overwrite(b":scheme", scheme),
        None => headers.add(b"x-forwarded-proto", "http"),
    }
    if headers.first(b"x-request-id").is_none() {
        headers.add(b"x-request-id", new_id());
    }
}

/// What the router answers in the upstream's place when a filter broke the request.
pub(crate) fn refused_by_router(headers: &HeaderMap) -> Option<LocalReply> {
    let is_missing = |name: &str| headers.first(name.as_bytes()).is_none();
    if is_missing(":path") || is_missing("x-forwarded-proto") {
        return Some(LocalReply::text(404, "", "route_not_found"));
    }
    let is_bad = |value: &[u8]| value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
    let bad = headers.pairs().iter().find(|(_, value)| is_bad(value));
    let text = match bad {
        Some((name, _)) => {
            format!("invalid header value for: {}", String::from_utf8_lossy(name))
        }
        None if is_missing(":method") => "missing required header: :method".to_owned(),
        None => return None,
    };
    let told = text.replace(' ', "_");
    let details = format!("filter_removed_required_request_headers{{{told}}}");
    Some(LocalReply::text(503, &text, &details))
}

/// A request without a body whose method may have one says so on HTTP/1.
pub(crate) fn request_on_the_wire(headers: &mut HeaderMap, is_without_body: bool) {
    const BODILESS: [&[u8]; 5] = [b"GET", b"HEAD", b"DELETE", b"TRACE", b"CONNECT"];
    let method = headers.first(b":method").unwrap_or_default();
    if is_without_body && !BODILESS.contains(&method) && headers.first(b"content-length").is_none()
    {
        headers.add(b"content-length", "0");
    }
}

/// An HTTP/1 answer's headers as a filter or a callout sees them; no time where the request was still under way.
pub(crate) fn answer_headers(answer: &Answer, after_ns: Option<u64>) -> HeaderMap {
    let mut headers = HeaderMap::default();
    headers.add(b":status", answer.status.to_string());
    for (key, value) in answer.headers.pairs() {
        inline::add(&mut headers, Some(Kind::Response), key, value.clone());
    }
    if !answer.chunks.is_empty() || answer.trailers.is_some() {
        headers.add(b"transfer-encoding", "chunked");
    } else if headers.first(b"content-length").is_none() && answer.status != 204 {
        headers.add(b"content-length", answer.body.len().to_string());
    }
    if let Some(after_ns) = after_ns {
        headers.replace(b"x-envoy-upstream-service-time", (after_ns / NS_PER_MS).to_string());
    }
    headers
}

/// After the last filter saw a response's headers.
pub(crate) fn response_left(headers: &mut HeaderMap, now_unix_ns: u64) {
    for name in ["connection", "transfer-encoding"] {
        headers.remove(name.as_bytes());
    }
    headers.overwrite(b"date", http_date(now_unix_ns / 1_000_000_000));
    headers.overwrite(b"server", "envoy");
}

/// A response of headers alone says on HTTP/1 that nothing follows.
pub(crate) fn response_on_the_wire(headers: &mut HeaderMap, is_to_head: bool) {
    let status = headers.text(":status").unwrap_or_default();
    let is_bodiless = status.starts_with('1') || status == "204" || status == "304";
    if !is_bodiless && !is_to_head && headers.first(b"content-length").is_none() {
        headers.add(b"content-length", "0");
    }
}

/// `Thu, 01 Jan 2026 00:00:00 GMT`.
fn http_date(unix_s: u64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let (mut days, second) = (unix_s / 86_400, unix_s % 86_400);
    let weekday = WEEKDAYS.into_iter().cycle().nth(usize::try_from(days % 7).unwrap_or(0));
    // Whole cycles of the calendar first, so that no number makes this long.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = "Jan";
    for (name, length) in MONTHS {
        month = name;
        let length = length + u64::from(name == "Feb" && is_leap(year));
        if days < length {
            break;
        }
        days -= length;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = weekday.unwrap_or_default();
    format!("{weekday}, {:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let rows = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (1_767_225_600, "Thu, 01 Jan 2026 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ];
        for (unix_s, expected) in rows {
            assert_eq!(http_date(unix_s), expected);
        }
        assert!(http_date(u64::MAX).ends_with("GMT"));
    }

    #[test]
    fn the_router_refuses_what_a_filter_broke() {
        let request = |leave_out: &str, value: &[u8]| {
            let mut headers = HeaderMap::default();
            for name in [":path", ":method", "x-forwarded-proto"] {
                headers.add(name.as_bytes(), "x");
            }
            headers.remove(leave_out.as_bytes());
            headers.add(b"x-a", value);
            refused_by_router(&headers).map(|reply| (reply.status, reply.details))
        };
        let rows = [
            (":path", b"a".as_slice(), 404, "route_not_found"),
            ("x-forwarded-proto", b"a", 404, "route_not_found"),
            (
                ":method",
                b"a",
                503,
                "filter_removed_required_request_headers{missing_required_header:_:method}",
            ),
            (
                "",
                b"a\0b",
                503,
                "filter_removed_required_request_headers{invalid_header_value_for:_x-a}",
            ),
            (
                "",
                b"a\nb",
                503,
                "filter_removed_required_request_headers{invalid_header_value_for:_x-a}",
            ),
        ];
        for (leave_out, value, status, details) in rows {
            assert_eq!(
                request(leave_out, value),
                Some((status, details.to_owned())),
                "{leave_out}"
            );
        }
        assert_eq!(request("", b"caf\xc3\xa9\xff"), None);
    }
}
