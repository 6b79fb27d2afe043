//! Owns the tables of circuit breakers: of upstreams, and of the way to the gateway.

use super::super::shape::Kind::{Duration, Either, List, Percentage, Table, Text, Whole};
use super::super::shape::{Field, Kind, Known, Shape, may, must, one_of, with_default};
use super::kinds::{BY, HEADER, NAME};

const STATUSES: Kind =
    Text { what: "`503`, `500-504` or `5xx`", pattern: "^[1-5]([0-9]{2}(-[1-5][0-9]{2})?|xx)$" };

shapes! {
    /// A circuit breaker of upstreams. A failure is an answer that `failures` names (a 5xx), a reset, a refused connection, a timeout or no healthy host. What `ignored` names (429), Envoy's own overflow, answers of filters and clients that leave (but see `slow`) say nothing; all else is a success.
    CIRCUIT_BREAKER "circuit_breaker" {
        "window" => with_default(Either(&[Duration { min_ms: 1_000, max_ms: 3_600_000 }, Table(&CALLS)]), "\"10s\"", "\"1m\"", "What the rates look back on: a time, or as a table a number of calls.");
        "min_calls" => with_default(Whole { min: 1, max: 1_000_000 }, "20", "100", "Fewer calls than that in the window open nothing by their rate.").unit("calls");
        "failure_rate" => with_default(Percentage, "\"50%\"", "\"25%\"", "The share of failures in the window that opens it for the whole region. `0%`: no share does.");
        "slow" => may(Table(&SLOW), "slow calls do not matter", r#"{"after": "2s", "rate": "80%"}"#, "When slow calls open it.");
        "adaptive" => may(Table(&ADAPTIVE), "only `failure_rate` does", "{}", "Opens it before `failure_rate`, too: when more calls fail than usual. With a window by time. `{}`: with the numbers below.");
        "consecutive" => with_default(Whole { min: 1, max: 1_000_000 }, "5", "10", "Failures in a row in one worker that shut its whole Envoy at once, before the region agrees.").unit("failures");
        "trip_reporters" => with_default(Whole { min: 1, max: 255 }, "2", "3", "How many Envoys that shut by themselves open it for the region; all, if fewer report. One sick Envoy then does not close an upstream for all.").unit("processes");
        "open" => with_default(Duration { min_ms: 100, max_ms: 3_600_000 }, "\"10s\"", "\"30s\"", "How long it is open before a test, more or less a fifth.");
        "backoff" => with_default(Whole { min: 0, max: 5 }, "0", "3", "How often `open` doubles at most while tests fail.").unit("doublings");
        "successes" => with_default(Whole { min: 1, max: 255 }, "3", "1", "Good tests in a row that close it; one request at a time in the whole region is a test.").unit("tests");
        "ramp" => may(Duration { min_ms: 1_000, max_ms: 3_600_000 }, "all pass at once", "\"30s\"", "For how long after tests closed it only a share of the requests passes, growing from a tenth to all; the others get what a refused one gets.");
        "upstream_timeout" => with_default(Duration { min_ms: 1, max_ms: 3_540_000 }, "\"15s\"", "\"5s\"", "How long the upstream may take, retries included: the route's timeout. A test without an answer is given up one second after that.");
        "failures" => with_default(Table(&SAYS), r#"{"statuses": ["5xx"], "grpc": [2, 4, 13, 14, 15]}"#, r#"{"statuses": ["5xx", "404"]}"#, "The answers of the upstream that are failures.");
        "ignored" => with_default(Table(&SAYS), r#"{"statuses": ["429"], "grpc": [1, 8]}"#, r#"{"statuses": ["429", "501-505"]}"#, "The answers that say nothing of the upstream, also where `failures` names them.");
        "fallback" => may(Table(&FALLBACK), "503 `circuit-open`", r#"{"answer": {"body": "[]", "content_type": "application/json"}}"#, "What a request gets that it refuses.");
        "hold" => may(Table(&HOLD), "it is refused at once", r#"{"for": "500ms", "max": 64}"#, "How long a request is held before it is refused, while leave may come any moment: while a test is out, or the wait is nearly over.");
        "by" => may(BY, "one breaker for all requests", "\"cluster\"", "Whom there is one breaker for each of, with these numbers: `cluster` (the one that Envoy's route leads to), `route` (by its name), or identities as limits have them. Requests that name nobody, and those for whom there is no room, share one more.");
        "max" => with_default(Whole { min: 8, max: 10_000 }, "1000", "200", "With `by`: how many have one of their own in each Envoy at least; up to half as many again find room. Beyond that whoever was not seen for 10 s and is closed makes room, and then whoever is open and was not seen for a minute. All breakers of a document together are at most 10,000.").unit("breakers");
        "depends_on" => with_default(List { item: &NAME, min: 0, max: 8 }, "[]", "[]", "Other `circuit_breakers`, by name. While one of them is not closed this one refuses as well, makes no test, and counts nothing, unless nobody has tested that one for as long again as it was to be open.");
    }

    /// A window by count.
    CALLS "calls" {
        "calls" => must(Whole { min: 1, max: 1_000_000 }, "100", "The last so many calls, and what comes with the report that fills it.").unit("calls");
    }

    /// When slow calls open a circuit breaker.
    SLOW "slow" {
        "after" => must(Duration { min_ms: 1, max_ms: 3_600_000 }, "\"2s\"", "A call is slow whose answer begins later than that, or whose client left later than that without one.");
        "rate" => with_default(Percentage, "\"80%\"", "\"50%\"", "The share of slow calls in the window that opens it. `0%`: no share does.");
    }

    /// When failures open a circuit breaker that are fewer than its `failure_rate`: when the region's window holds more of them than usual, by six standard deviations and six. Usual is the share that failed while it was closed, learnt from what the window has left behind. Until 1,000 calls were learnt, and as many as the window holds, `failure_rate` alone decides.
    ADAPTIVE "adaptive" {
        "min" => with_default(Percentage, "\"5%\"", "\"1%\"", "A smaller share of failures never opens it, however rare failures are. Above 0% and below `failure_rate`.");
        "over" => with_default(Duration { min_ms: 60_000, max_ms: 86_400_000 }, "\"10m\"", "\"1h\"", "Over how long it learns; time without calls does not count. Not less than the window.");
    }

    /// Which answers a circuit breaker means.
    SAYS "says" {
        "statuses" => may(List { item: &STATUSES, min: 0, max: 32 }, "those of the default", "[\"5xx\"]", "HTTP statuses: `503`, `500-504`, or `5xx` for all of a hundred.");
        "grpc" => may(List { item: &Whole { min: 1, max: 16 }, min: 0, max: 16 }, "those of the default", "[14]", "gRPC statuses, of answers with the HTTP status 200.");
    }

    /// How requests are held that a circuit breaker would refuse.
    HOLD "hold" {
        "for" => must(Duration { min_ms: 1, max_ms: 60_000 }, "\"500ms\"", "How long at most. Keep it below the client's timeout and the route's.");
        "max" => with_default(Whole { min: 1, max: 10_000 }, "64", "16", "How many at once in one worker. Beyond that a request is refused at once.").unit("requests");
    }

    /// What a request gets that a circuit breaker refuses.
    FALLBACK "fallback" {
        "answer" => one_of(Table(&STATIC_ANSWER), r#"{"body": "[]", "content_type": "application/json"}"#, "An answer in the upstream's place, with `x-tidegate-reply: circuit-open`. gRPC clients get the usual refusal.");
        "header" => one_of(Table(&HEADER_FIELD), r#"{"name": "x-upstream", "value": "standby"}"#, "The request goes on with this header, and Envoy looks for its route anew: a route that matches it leads to another cluster. No client's own gets through. What limits charged stays charged, and the breaker is told nothing of the answer.");
    }

    /// An answer that is always the same.
    STATIC_ANSWER "static_answer" {
        "status" => with_default(Whole { min: 200, max: 599 }, "200", "203", "The HTTP status.").unit("HTTP status");
        "content_type" => with_default(Text { what: "a media type", pattern: "^[!-~]+/[ -~]+$" }, "\"text/plain; charset=utf-8\"", "\"application/json\"", "The type of `body`.");
        "body" => with_default(Text { what: "text of at most 16 KiB", pattern: "" }, "\"\"", "\"[]\"", "The body, as it is.");
    }

    /// A header.
    HEADER_FIELD "header_field" {
        "name" => must(HEADER, "\"x-upstream\"", "Its name.");
        "value" => must(Text { what: "1 to 128 visible ASCII characters", pattern: "^[!-~]{1,128}$" }, "\"standby\"", "Its value.");
    }

    /// The guard of the way to the gateway: closed, open after failures in a row, half-open to test.
    BREAKER "breaker" {
        "failures" => with_default(Whole { min: 1, max: 1_000_000 }, "5", "10", "Failures in a row that open it, in each worker. A failure is a timeout, a refused or reset call, or an answer that is not the gateway's.").unit("failures");
        "open" => with_default(Duration { min_ms: 100, max_ms: 3_600_000 }, "\"10s\"", "\"5s\"", "How long it stays open, more or less a fifth, so that instances do not move in step.");
        "successes" => with_default(Whole { min: 1, max: 255 }, "3", "1", "Successful tests in a row that close it; one request at a time is a test.").unit("tests");
    }
}
