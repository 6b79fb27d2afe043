//! Owns the one table of every table and field of the document. The reader takes the names that it
//! knows from here, and the JSON Schema (policy/config.schema.json) and docs/configuration.md are made
//! from it, so that a field which does not stand here can neither be read nor be used undocumented.
//!
//! # How to add a field
//!
//! 1. Add its line to the shape of its table, below:
//!
//!    ```text
//!    "burst" => may(WHOLE, "equal to `limit`", "20", "How many units may be used at once.").unit("units");
//!     name      need: must(kind, example, doc)   may(kind, in words what holds without it, example, doc)
//!                     with_default(kind, default, example, doc)   one_of and any_of(kind, example, doc)
//!    ```
//!
//!    Examples and defaults are JSON. `one_of`: exactly one of the fields marked so stands in the
//!    table; `any_of`: at least one. Kinds are those of `shape`; one that is used twice is named at the top. A new kind of
//!    table is a new shape (`/// doc`, `CONSTANT "name" { fields }`).
//! 2. Read it: `table.get("burst")` after `at.table(shapes::RATE_LIMIT.known, ..)`.
//! 3. `BLESS=1 cargo test -p tidegate-policy --test authoring` writes schema and reference anew. That
//!    test also reads every example, writes out every default, and goes one past the ends of every
//!    range; what the reader and this table say differently fails there.
//!
//! The doc strings cost the shipped filter nothing: it uses `known` only, and these are constants.

use super::shape::Kind::{
    Bool, Duration, Either, List, Map, Percentage, Table, Text, True, Whole, Word,
};
use super::shape::{Field, Known, Shape, any_of, may, must, one_of, some, with_default};
use kinds::*;

/// Makes a constant of each shape, and `HERE` of all of them.
macro_rules! shapes {
    ($( $(#[doc = $doc:literal])+ $ID:ident $shape:literal { $( $name:literal => $field:expr; )* } )*) => {
        $(
            $(#[doc = $doc])+
            pub const $ID: Shape = Shape {
                name: $shape,
                doc: concat!($($doc),+),
                known: Known(&[$($name),*]),
                fields: &[$( Field { name: $name, ..$field } ),*],
            };
        )*

        pub(super) const HERE: &[Shape] = &[$($ID),*];
    };
}

mod breakers;
mod homes;
mod kinds;

pub use breakers::{
    ADAPTIVE, BREAKER, CALLS, CIRCUIT_BREAKER, FALLBACK, HEADER_FIELD, HOLD, SAYS, SLOW,
    STATIC_ANSWER,
};
pub use homes::{HOME, HOMES};

/// Every shape, the document's first.
pub fn all() -> impl Iterator<Item = &'static Shape> {
    HERE.iter().chain(breakers::HERE).chain(homes::HERE)
}

shapes! {
    /// The document.
    DOCUMENT "document" {
        "version" => must(Whole { min: 1, max: 1 }, "1", "The version of this format.");
        "strict" => with_default(Bool, "false", "true",
            "Whether a field that is not known is an error. Otherwise it is a warning, so that a document for a newer filter does not take the mesh down.");
        "gateway" => must(Table(&GATEWAY), r#"{"cluster": "tidegate"}"#, "How the filter reaches the gateway.");
        "homes" => may(Table(&HOMES), "every region keeps the records of the keys that it is asked for", r#"{"regions": {"north": {"cluster": "tidegate-north"}}, "default": "north"}"#,
            "Home regions of tenants: whichever region a request comes to, its idempotency key is asked of its tenant's home, and of no other region (docs/idempotency.md). Limits stay with the request's own region.");
        "apply" => with_default(Word(&["all", "first"]), "\"all\"", "\"first\"",
            "Which of the policies that match a request apply: all of them, their limits adding up, or the first in order of priority.");
        "problems" => may(Table(&PROBLEMS), "the project's base for every type", r#"{"base": "https://api.example.com/problems/"}"#,
            "What the problem types in answers begin with.");
        "rate_limit_fields" => with_default(Word(&["off", "x-draft-03", "draft-10"]), "\"draft-10\"", "\"x-draft-03\"",
            "How clients are told what is left: `RateLimit-Policy` and `RateLimit` with every limit (`draft-10`), `X-RateLimit-Limit`, `-Remaining` and `-Reset` of the limit closest to its end (`x-draft-03`), or nothing (`off`).");
        "route_opt_out" => with_default(Bool, "false", "true",
            "Whether a route may take itself out by its metadata: `filter_metadata: {tidegate: {disabled: true}}`, or `disabled_policies: [...]` for some. Costs every request that a policy matches one call of the host. A route that needs no policy at all is cheaper off by Envoy's own `FilterConfig.disabled`.");
        "hash_subjects" => may(Table(&SECRET), "subjects are stored as they are", r#"{"env": "SUBJECT_KEY"}"#,
            "Stores HMAC-SHA256 of every subject in place of the subject, so that no personal data is stored. The key has at least 32 bytes; another key starts every limit anew. A tenant's name stays readable.");
        "identities" => may(Map { key: &IDENTITY_NAME, value: &BY, min: 0, max: 256 }, "every identity is written where it is used", r#"{"client": {"ip": {"v6_prefix": 56}}}"#,
            "Identities by name, for use in `by`, in `missing_identity` and in one another. The one called `tenant` names the tenant.");
        "tenant" => may(ONE, "the identity called `tenant`, if there is one", r#"{"jwt": {"provider": "main", "claim": "org_id"}}"#,
            "Which identity names the tenant: 1 to 64 of `a-z A-Z 0-9 . _ -`, from a trusted source. Limits by `tenant` keep their keys under its name.");
        "local_share" => with_default(Table(&LOCAL_SHARE), r#"{"fraction": "50%", "envoys": 10}"#, r#"{"envoys": 3}"#,
            "How much one Envoy admits by itself where `on_unavailable` says `local_share`.");
        "limits" => may(Map { key: &NAME, value: &Table(&LIMIT), min: 0, max: 256 }, "every limit is written in its policy", r#"{"per-client": {"by": "ip", "limit": 60, "per": "minute"}}"#,
            "Rate limits by name: a policy's `rate_limits` takes the name in place of the table.");
        "circuit_breakers" => may(Map { key: &NAME, value: &Table(&CIRCUIT_BREAKER), min: 0, max: 10_000 }, "every circuit breaker is written in its policy", r#"{"payments": {"failure_rate": "50%", "open": "10s"}}"#,
            "Circuit breakers by name: a policy's `circuit_breaker` takes the name in place of the table. Policies that take the same name share it.");
        "audit" => may(Table(&AUDIT), "the filter hands over no events of its own", r#"{"allows": "1%"}"#,
            "Hands what only the filter knows to the gateway's audit chain (docs/audit.md): denials decided without the gateway, rungs of `on_unavailable`, configurations that came into force, and a share of what was admitted. An empty table does. A policy's `audit` does the same for the whole document.");
        "policies" => must(List { item: &Table(&POLICY), min: 0, max: 10_000 }, "[]", "The policies. An empty list decides nothing.");
    }

    /// What problem types (RFC 9457) begin with.
    PROBLEMS "problems" {
        "base" => with_default(Text { what: "an absolute URI that ends in `/`, `#`, `:` or `=`", pattern: "^(https?://|urn:|tag:)[!-~]+$" },
            "\"https://tidegate.dev/problems/\"", "\"https://api.example.com/problems/\"",
            "A reason such as `quota-exceeded` follows it.");
        "registered" => with_default(Bool, "false", "true",
            "Whether the quota types have the base that draft-ietf-httpapi-ratelimit-headers asks IANA to register. It is not registered yet.");
    }

    /// How the filter reaches the gateway.
    GATEWAY "gateway" {
        "cluster" => must(Text { what: "1 to 255 visible ASCII characters", pattern: "^[!-~]{1,255}$" }, "\"tidegate\"",
            "The Envoy cluster that leads to the gateway. Istio's names (`outbound|10080||tidegate.ns.svc.cluster.local`) are fine.");
        "timeout" => with_default(Duration { min_ms: 1, max_ms: 60_000 }, "\"45ms\"", "\"100ms\"",
            "How long one callout may take before the policy's `on_unavailable` decides. Keep it above the gateway's own deadline (30 ms by default) and below the route's timeout.");
        "token" => may(Table(&SECRET), "no token is sent", r#"{"env": "TIDEGATE_TOKEN"}"#,
            "The bearer token that the gateway asks for.");
        "breaker" => with_default(Table(&BREAKER), r#"{"failures": 5, "open": "10s", "successes": 3}"#, r#"{"open": "5s"}"#,
            "When the filter stops asking a gateway that fails, so that no request waits for it: `on_unavailable` then decides at once.");
    }

    /// One Envoy's part of every limit while the gateway cannot be asked.
    LOCAL_SHARE "local_share" {
        "fraction" => with_default(Percentage, "\"50%\"", "\"80%\"", "What all Envoys together may admit of a limit.");
        "envoys" => with_default(Whole { min: 1, max: 100_000 }, "10", "3", "How many Envoy processes share it. Too small a number admits too much. Each process admits at least one unit.").unit("processes");
    }

    /// A secret, which stays out of the document.
    SECRET "secret" {
        "env" => must(Text { what: "the name of an environment variable", pattern: "^[A-Za-z_][A-Za-z0-9_]*$" }, "\"TIDEGATE_TOKEN\"",
            "The environment variable that holds it. Envoy passes it only if `vm_config.environment_variables` names it.");
    }

    /// One policy: which requests, and what holds for them.
    POLICY "policy" {
        "name" => must(NAME, "\"api\"", "Unique among the policies; part of metric names, log lines and keys.");
        "priority" => with_default(Whole { min: 0, max: 1_000_000 }, "0", "10",
            "Policies of a higher priority come first; equals stay in the order of the document. It decides with `apply: first`, and which policy a denial names first.");
        "match" => must(Table(&MATCH), r#"{"path": "/v1/orders/{id}"}"#, "Which requests fall under the policy.");
        "mode" => with_default(Either(&[MODE, Table(&ROLLOUT)]), "\"enforce\"", "\"shadow\"",
            "Whether the policy acts: `off` does nothing, `shadow` decides and counts and never acts, `enforce` acts. As a table, for a share of the callers or for one mechanism.");
        "missing_identity" => with_default(Either(&[IDENTITY_NAME, STEPS, Map { key: &IDENTITY_NAME, value: &INSTEAD, min: 0, max: 256 }]), "\"deny\"", "[\"ip\", \"shared\"]",
            "What becomes of a request that lacks an identity it is counted by: `deny` (403), `shared` (one bucket for all such requests), or a list of identities that are tried in order, with `deny` or `shared` last. As a table, for each identity by its name in `by`.");
        "rate_limits" => any_of(some(&NAMED_OR_WRITTEN, 8), r#"[{"name": "per-client", "by": "ip", "limit": 60, "per": "minute"}]"#,
            "The limits. Every one has to admit; a request that one of them refuses is charged to none.");
        "idempotency" => any_of(Table(&IDEMPOTENCY), r#"{"key": "required", "tenant": {"jwt": {"provider": "main", "claim": "org_id"}}, "upstream_timeout": "10s"}"#,
            "One run for one `Idempotency-Key`, and the same answer for everyone who asks again. Of several policies that match, the first that has it decides. The listener's filter needs `allow_on_headers_stop_iteration: true`.");
        "circuit_breaker" => any_of(Either(&[NAME, Table(&CIRCUIT_BREAKER)]), r#"{"failure_rate": "50%", "open": "10s"}"#,
            "Keeps calls back from an upstream that fails: in this process at once, in all of the region's as soon as enough of them agree, and then lets one request at a time test it. A table is a breaker of the policy's own, under its name. Of several policies the first that matches and has one applies. A request that it refuses gets 503 `circuit-open` and is charged to no limit. In a policy whose `mode` is not `enforce` it counts and refuses nobody.");
        "denied" => may(Table(&DENIED), "the usual answers", r#"{"content_type": "text/plain", "body": "come back in {{retry_after}} s"}"#,
            "Answers in words of your own.");
        "audit" => may(Table(&POLICY_AUDIT), "the document's", r#"{"allows": "100%"}"#, "What of this policy the audit chain is told.");
        "on_unavailable" => with_default(Either(&[RUNG, List { item: &RUNG, min: 1, max: 3 }]),
            "[\"lease\", \"local_share\", \"deny\"]", "[\"local_share\", \"allow\"]",
            "What becomes of a request when no verdict can be had, step by step: `lease` spends what is leased for as long as it lives (limits with `decide: lease`), `local_share` spends this Envoy's part of each limit (see `local_share` of the document), `allow` lets the request go on, `deny` answers 503. Behind the last step stands `deny`. Each is counted.");
    }

    /// What the audit chain is told.
    AUDIT "audit" {
        "allows" => with_default(Percentage, "\"0%\"", "\"1%\"",
            "The share of admitted requests that become events, drawn by the decision's id. Denials need no share: the first of a limit, subject and minute is an event, the rest is counted.");
        "sync" => may(List { item: &Word(&["deny", "rung", "allow"]), min: 1, max: 3 }, "no decision waits for its event", r#"["deny"]"#, "The decisions inside Envoy whose event has to be on record before they take effect: denials, admissions by a rung of `on_unavailable`, admissions that `allows` draws. Each of them costs a callout. What is only counted, since the like of it was told in that minute, waits for nothing. What the gateway decides waits by the gateway's `--audit-sync`.");
        "timeout" => with_default(Duration { min_ms: 50, max_ms: 5_000 }, "\"250ms\"", "\"1s\"", "How long such a decision waits. It may be shorter than `gateway.timeout` and than the gateway's deadline, which are of questions.");
        "unrecorded" => with_default(Word(&["proceed", "refuse"]), "\"proceed\"", "\"refuse\"", "What becomes of an admission whose event is not on record by then: it goes on (`proceed`; the event is handed over later), or it gets 503 `policy-store-unavailable` and nothing stays charged (`refuse`). A denial stays one either way. Both are counted in `tidegate_audit_unrecorded_total`.");
    }

    /// What the audit chain is told of one policy.
    POLICY_AUDIT "policy_audit" {
        "allows" => with_default(Percentage, "\"0%\"", "\"1%\"", "The same for this policy alone.");
    }

    /// What a policy says of its own denials.
    DENIED "denied" {
        "content_type" => with_default(Text { what: "a media type", pattern: "^[!-~]+/[ -~]+$" }, "\"text/plain; charset=utf-8\"", "\"application/json\"",
            "The type of `body`. It also says how variables are escaped: in JSON and in HTML or XML no value can leave its place.");
        "body" => may(Text { what: "text of at most 16 KiB", pattern: "[^ ]" }, "the problem document is sent", r#""{\"error\": \"{{reason}}\"}""#,
            "The body of every denial of this policy, with `{{reason}}`, `{{retry_after}}`, `{{policy}}`, `{{limit}}`, `{{decision_id}}` and `{{status}}` filled in. gRPC clients read none and get none.");
        "status" => may(Table(&STATUS), "the usual statuses", r#"{"service-overloaded": 503}"#,
            "Statuses other than the usual.");
    }

    /// The denials whose status a policy may choose.
    STATUS "status" {
        "service-overloaded" => with_default(Whole { min: 429, max: 503 }, "429", "503",
            "The gateway is at its bound: 429 or 503.").unit("HTTP status");
        "temporary-reduced-capacity" => with_default(Whole { min: 429, max: 503 }, "429", "503",
            "A limit that is lowered for the time being is used up: 429 or 503.").unit("HTTP status");
        "client-identity-required" => with_default(Whole { min: 400, max: 403 }, "403", "400",
            "The request names no identity: 403 or 400.").unit("HTTP status");
        "idempotency-conflict" => with_default(Whole { min: 400, max: 422 }, "422", "409",
            "An idempotency key was used for another request: 422, 409 or 400.").unit("HTTP status");
    }

    /// Which requests fall under a policy: those that fulfil all fields that are there.
    MATCH "match" {
        "host" => may(Either(&[HOST, some(&HOST, 1_000)]), "every host", "[\"api.example.com\", \"*.example.org\"]",
            "The hosts, without port. `*.example.org` takes in every name below example.org and not example.org itself.");
        "path" => one_of(Text { what: "a path", pattern: "^/[!-\"$->@-~]*$" }, "\"/v1/orders/{id}\"",
            "An exact path (`/login`), a prefix (`/api/**`, which takes in `/api` and all below), or a template (`/v1/orders/{id}`, where `{id}` is one segment). Paths are normalised before they are compared.");
        "path_regex" => one_of(REGEX, "\"/v[0-9]+/orders\"", "A regular expression for the whole path, in place of `path`.");
        "methods" => may(some(&Text { what: "a method in capitals", pattern: "^[A-Z-]{1,32}$" }, 64), "every method", "[\"POST\"]",
            "The methods. GET does not take in HEAD.");
        "headers" => may(Map { key: &HEADER, value: &CONDITIONS, min: 1, max: 16 }, "no condition", r#"{"x-tier": "gold"}"#,
            "Conditions on request headers, all of which hold: a value that must be equal, or a table.");
        "query" => may(Map { key: &PARAMETER, value: &CONDITIONS, min: 1, max: 16 }, "no condition", r#"{"version": {"prefix": "2"}}"#,
            "Conditions on query parameters, all of which hold.");
        "route" => may(Table(&ROUTE), "every route", r#"{"name": "orders"}"#,
            "Conditions on the route that Envoy chose, all of which hold. Costs one call of the host for each.");
    }

    /// Conditions on Envoy's route.
    ROUTE "route" {
        "name" => may(CONDITIONS, "every name", "\"orders\"", "The route's `name`.");
        "metadata" => may(Map { key: &WORD, value: &Map { key: &WORD, value: &CONDITIONS, min: 0, max: 16 }, min: 0, max: 16 }, "no condition", r#"{"com.example": {"tier": "gold"}}"#,
            "Conditions on the route's `filter_metadata`, by namespace and key. Numbers and truth values are compared by their text: `\"5\"`, `\"true\"`.");
    }

    /// A condition on a header, on a query parameter or on a route.
    CONDITION "condition" {
        "present" => one_of(True, "true", "It stands in the request.");
        "absent" => one_of(True, "true", "It does not stand in the request.");
        "prefix" => one_of(VALUE, "\"v2\"", "Its value begins so.");
        "regex" => one_of(REGEX, "\"v[0-9]+\"", "Its whole value matches.");
    }

    /// A mode for a share of the callers, sticky: the same caller is always on the same side.
    ROLLOUT "rollout" {
        "shadow" => one_of(Percentage, "\"10%\"", "This share is in shadow, the rest is off.");
        "enforce" => one_of(Percentage, "\"10%\"", "This share is enforced, the rest is in shadow.");
        "rate_limits" => one_of(Either(&[MODE, Table(&SHARE)]), "\"shadow\"", "The mode of the rate limits alone.");
        "by" => may(BY, "the identity of the first limit", "\"ip\"", "Who is one caller: the same one is always on the same side. Those who lack it are taken in last, at 100%. Keys always go by idempotency's `tenant`, and beside idempotency nothing else may stand here.");
    }

    /// A mode of one mechanism for a share of the callers.
    SHARE "share" {
        "shadow" => one_of(Percentage, "\"10%\"", "This share is in shadow, the rest is off.");
        "enforce" => one_of(Percentage, "\"10%\"", "This share is enforced, the rest is in shadow.");
        "by" => may(BY, "the identity of the first limit", "\"ip\"", "Who is one caller.");
    }

    /// One run for one `Idempotency-Key` (docs/idempotency.md).
    IDEMPOTENCY "idempotency" {
        "key" => must(Word(&["off", "optional", "required"]), "\"optional\"",
            "Whether a request needs a key: `required` answers 400 to one without, `optional` lets it pass unprotected, `off` looks at none.");
        "tenant" => must(ONE, r#"{"jwt": {"provider": "main", "claim": "org_id"}}"#,
            "Whose keys they are: an identity of one source that no client chooses. Where the document has a tenant, this one. A request with a key and without a tenant is denied (403).");
        "upstream_timeout" => must(Duration { min_ms: 100, max_ms: 3_600_000 }, "\"10s\"",
            "How long the upstream may take, retries included: not shorter than the route's timeout. A claim is locked that long and 5 s; if there is no answer by then its outcome is unknown.");
        "mode" => may(MODE, "the policy's mode", "\"shadow\"",
            "The mode of idempotency alone. In `shadow` claims and answers are recorded, and what would have been replayed or denied is counted; every request goes on.");
        "methods" => with_default(some(&Text { what: "a method in capitals", pattern: "^[A-Z-]{1,32}$" }, 64), "[\"POST\", \"PATCH\"]", "[\"POST\"]",
            "The methods that it is for. GET, HEAD, OPTIONS and TRACE need none.");
        "key_syntax" => with_default(Word(&["lenient", "strict"]), "\"lenient\"", "\"strict\"",
            "`lenient` takes a String (`\"8e03978e\"`) and bare visible ASCII, and both mean one key; `strict` takes the String alone. 1 to 255 characters.");
        "endpoint" => may(Text { what: "a path, with `{name}` for what varies", pattern: "^/[!-)+->@-~]*$" }, "the path of match if it is exact or a template; else ids in the request's path are recognised by their looks", "\"/v1/orders/{id}/refund\"",
            "The endpoint that keys are recorded under. Another one begins new records: keys of the last `keep_for` are not found under it. The words in braces count for nothing.");
        "keep_for" => with_default(Duration { min_ms: 60_000, max_ms: 30 * 86_400_000 }, "\"24h\"", "\"7d\"", "How long a record lives, from the claim and again from the answer.");
        "hash" => with_default(Table(&HASH), r#"{"host": true, "max": "256KiB", "over": "refuse"}"#, r#"{"max": "64KiB"}"#,
            "What tells two requests apart, beside method, path, query and `content-type`.");
        "wait" => may(Duration { min_ms: 1, max_ms: 60_000 }, "409 at once", "\"2s\"",
            "How long a request whose key is in flight waits for the first one's answer before it gets 409.");
        "waiting_max" => with_default(Whole { min: 1, max: 10_000 }, "100", "20",
            "How many requests of the policy wait so in one worker. Those beyond get 409 at once.").unit("requests");
        "takeover" => may(Bool, "`true` for PUT and DELETE, `false` for every other method", "false",
            "Whether a retry runs once a claim's lock has ended without an answer. If not, it gets 409 `idempotency-unknown-outcome`.");
        "response" => may(Word(&["durable", "fast"]), "`durable` where a key is required, else `fast`", "\"fast\"",
            "`durable` holds the answer until it is stored, `fast` stores it behind the answer's back.");
        "store" => with_default(Table(&STORED), r#"{"answers": "standard", "body": "64KiB", "not_stored": "refuse"}"#, r#"{"headers": ["x-order-id"]}"#,
            "What of an answer is stored.");
        "on_unavailable" => with_default(Word(&["deny", "allow"]), "\"deny\"", "\"allow\"",
            "What becomes of a request with a key when nobody can be asked: 503, or it runs unprotected. `allow` does not go with `required`.");
        "wait_replicas" => with_default(Whole { min: 0, max: 8 }, "0", "1",
            "On how many replicas of its Redis a claim has to be before the request runs, whether or not the answer is `durable`. The gateway waits with WAIT.").unit("replicas");
        "replicas_within" => with_default(Duration { min_ms: 1, max_ms: 2_000 }, "\"100ms\"", "\"50ms\"",
            "How long is waited for them. The filter waits that much longer than `gateway.timeout`.");
        "on_too_few_replicas" => with_default(Word(&["deny", "allow"]), "\"deny\"", "\"allow\"",
            "What becomes of a request whose claim is on fewer by then: 503 and the claim is given back, or it runs, counted as `too_few_replicas`.");
        "ephemeral" => with_default(Bool, "false", "true",
            "Whether a store that forgets everything when the gateway ends will do. For tests.");
        "legacy_keys" => with_default(Word(&["off", "read"]), "\"off\"", "\"read\"",
            "`read` looks first under the older name of a key, without a tenant, for a migration: there another tenant's record would be found, too.");
    }

    /// What of a request is hashed, beside method, path, query and `content-type`.
    HASH "hash" {
        "host" => with_default(Bool, "true", "false",
            "Whether requests to two hosts are two: a key that was used at one gets 422 at the other. `false` where clients retry under another name of the same service.");
        "max" => with_default(SIZE, "\"256KiB\"", "\"64KiB\"", "The most bytes of a body that are hashed; up to 16MiB. The request is held meanwhile, so keep it below `per_connection_buffer_limit_bytes` of the listener (1 MiB by default).");
        "over" => with_default(Word(&["refuse", "beginning"]), "\"refuse\"", "\"beginning\"",
            "What becomes of a longer one: 413, or its beginning and its `content-length` are hashed, and two that differ only behind it count as one. The request is asked about once its beginning is there, and nothing behind it is held longer than that takes.");
    }

    /// What of an answer is stored. Never credentials, cookies, or what belongs to one connection.
    STORED "stored" {
        "answers" => with_default(Word(&["standard", "store_5xx", "stripe"]), "\"standard\"", "\"store_5xx\"",
            "`standard`: 2xx, 3xx and 4xx but 401, 403, 408, 425 and 429, which release the key as does 503 with `Retry-After`; every other 5xx keeps it claimed. `store_5xx`: these are stored, too. `stripe`: every answer is.");
        "headers" => may(List { item: &HEADER, min: 0, max: 32 }, "none", "[\"x-order-id\"]",
            "Headers beside Content-Type, -Encoding, -Language, -Disposition, ETag, Last-Modified, Link and Location.");
        "body" => with_default(SIZE, "\"64KiB\"", "\"16KiB\"", "The most bytes of a body that are stored; up to 64KiB. Of a longer one, of a stream of events and of gRPC only the status is.");
        "not_stored" => with_default(Word(&["refuse", "status_only"]), "\"refuse\"", "\"status_only\"",
            "What a retry gets when only the status is stored: 409 `idempotency-result-not-stored`, or the status and headers without a body.");
    }

    /// One rate limit.
    RATE_LIMIT "rate_limit" {
        "name" => must(NAME, "\"per-client\"", "Unique within its policy. Clients see it in the answer; keep it when you change numbers, since it is part of the key.");
"by" => LIMIT_BY;
        "limit" => LIMIT_LIMIT;
        "per" => LIMIT_PER;
        "burst" => LIMIT_BURST;
        "cost" => LIMIT_COST;
        "soft" => LIMIT_SOFT;
        "algorithm" => LIMIT_ALGORITHM;
        "decide" => LIMIT_DECIDE;
    }

    /// A rate limit under a name, for use in policies. Each policy that names it counts for itself.
    LIMIT "limit" {
        "by" => LIMIT_BY;
        "limit" => LIMIT_LIMIT;
        "per" => LIMIT_PER;
        "burst" => LIMIT_BURST;
        "cost" => LIMIT_COST;
        "soft" => LIMIT_SOFT;
        "algorithm" => LIMIT_ALGORITHM;
        "decide" => LIMIT_DECIDE;
    }

    /// Where a cost is told: by the request, or only by its answer. An admitted request costs at least one unit.
    COST "cost" {
        "header" => one_of(HEADER, "\"x-cost\"", "A request header, in digits. Have something before the filter set it: a client that chooses its cost chooses 1. What cannot be read, or stands twice, costs `max`.");
        "query" => one_of(PARAMETER, "\"n\"", "A query parameter, in digits. Clients choose it, so use it where asking for more costs more. What cannot be read, or stands twice, costs `max`.");
        "body_bytes" => one_of(SIZE, "\"1KiB\"", "One unit for each begun piece of this size, by the announced `content-length`.");
        "response_header" => one_of(HEADER, "\"x-tokens\"", "A header of the upstream's response. Until it is there `reserve` is charged, then the difference. What cannot be read changes nothing and is counted.");
        "response_trailer" => one_of(HEADER, "\"x-tokens\"", "The same with a trailer of the response.");
        "response_metadata" => one_of(Table(&COST_METADATA), r#"{"namespace": "io.envoy.ai_gateway", "key": "llm_total_token"}"#,
            "The same with Envoy's dynamic metadata, as it is when the response has ended.");
        "default" => with_default(QUANTITY, "1", "2", "What a request costs that says nothing (`header`, `query`).").unit("units");
        "max" => may(QUANTITY, "equal to `burst`; a body costs what it is, even if that never fits", "50", "The most; what is above it costs this much.").unit("units");
        "unknown" => may(QUANTITY, "equal to `burst`", "30", "What a body costs whose length nobody announces (`body_bytes`).").unit("units");
        "reserve" => with_default(QUANTITY, "1", "10", "What is charged until the response tells, and stays if it says nothing (`response_header`, `response_trailer`, `response_metadata`).").unit("units");
    }

    /// A value of Envoy's dynamic metadata.
    COST_METADATA "cost_metadata" {
        "namespace" => must(WORD, "\"io.envoy.ai_gateway\"", "The filter's namespace.");
        "key" => must(WORD, "\"llm_total_token\"", "The key: a number, or digits.");
    }

    /// Who is counted, by one source. `jwt`, `mtls`, `ip` and `signed` are trusted by nature.
    IDENTITY "identity" {
        "ip" => one_of(Table(&IP), r#"{"v6_prefix": 64}"#, "The client's address as Envoy trusts it (`use_remote_address`, `xff_num_trusted_hops`).");
        "header" => one_of(HEADER, "\"x-api-key\"", "A request header's value. One that is repeated names nobody.");
        "cookie" => one_of(COOKIE, "\"session\"", "A cookie's value. One that is repeated names nobody.");
        "query" => one_of(PARAMETER, "\"api_key\"", "A query parameter's decoded value. One that is repeated names nobody.");
        "path" => one_of(Text { what: "a name in the template", pattern: "^[a-z0-9_]{1,32}$" }, "\"id\"", "A part of the path: the name of a `{part}` in the `path` of the policy's match.");
        "jwt" => one_of(Table(&JWT), r#"{"provider": "main", "claim": "sub"}"#, "A claim that Envoy's `jwt_authn` verified: text or a whole number.");
        "mtls" => one_of(Word(&["subject", "uri_san", "dns_san", "sha256"]), "\"uri_san\"", "What the client's certificate says: its subject, its first URI or DNS name, or the SHA-256 of the certificate. Only as good as the listener's validation of client certificates.");
        "filter_state" => one_of(WORD, "\"tidegate.ja4\"", "What an earlier filter noted under this key (Envoy's `set_filter_state`). A lone `-` is nothing.");
        "signed" => one_of(Table(&SIGNED), r#"{"cookie": "did", "key": {"env": "DEVICE_KEY"}}"#, "An id that carries a signature.");
        "fingerprint" => one_of(Table(&FINGERPRINT), r#"{"device_id": {"signed": {"cookie": "did", "key": {"env": "DEVICE_KEY"}}}}"#,
            "The stable fingerprint of a client: device, user agent and TLS, without the address. Without its device there is none.");
        "trusted" => may(Bool, "as the source is by nature", "true",
            "That no client can choose this at will, because something before the filter sets or verifies it. You vouch for it.");
    }

    /// A claim of a verified token.
    JWT "jwt" {
        "provider" => must(WORD, "\"main\"", "What `payload_in_metadata` of the provider in `jwt_authn` says.");
        "claim" => must(Either(&[WORD, List { item: &WORD, min: 1, max: 4 }]), "\"org_id\"", "The claim; a list is the way to one that lies deeper.");
    }

    /// An id with a signature: `ID.MAC`, where MAC is HMAC-SHA256 over `tidegate-id-v1:ID` in hexadecimal digits.
    SIGNED "signed" {
        "cookie" => one_of(COOKIE, "\"did\"", "The cookie that holds it.");
        "header" => one_of(HEADER, "\"x-device-id\"", "The header that holds it.");
        "key" => must(Either(&[Table(&SECRET), some(&Table(&SECRET), 4)]), r#"{"env": "DEVICE_KEY"}"#, "The key, at least 32 bytes; several while one takes over from another.");
    }

    /// What a fingerprint is made of, besides the user agent.
    FINGERPRINT "fingerprint" {
        "device_id" => must(Either(&[IDENTITY_NAME, Table(&DEVICE)]), r#"{"signed": {"cookie": "did", "key": {"env": "DEVICE_KEY"}}}"#, "The device's id, from a trusted source.");
        "tls" => may(Either(&[IDENTITY_NAME, Table(&TLS)]), "`-` stands in its place", "\"ja4\"", "What TLS says of the client: JA3 or JA4.");
    }

    /// Where a device's id stands.
    DEVICE "device" {
        "signed" => one_of(Table(&SIGNED), r#"{"cookie": "did", "key": {"env": "DEVICE_KEY"}}"#, "An id that carries a signature.");
        "jwt" => one_of(Table(&JWT), r#"{"provider": "main", "claim": "device"}"#, "A claim of a verified token.");
        "mtls" => one_of(Word(&["subject", "uri_san", "dns_san", "sha256"]), "\"sha256\"", "What the client's certificate says.");
    }

    /// Where the fingerprint of the client's TLS stands.
    TLS "tls" {
        "filter_state" => one_of(WORD, "\"tidegate.ja4\"", "What an earlier filter noted under this key.");
        "header" => one_of(HEADER, "\"x-ja4\"", "A header that something before the filter overwrites.");
    }

    /// The client's address.
    IP "ip" {
        "v6_prefix" => with_default(Whole { min: 1, max: 128 }, "64", "56", "How much of an IPv6 address names one client: its owner has a whole network. IPv4 addresses count whole.").unit("bits");
    }
}
