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
//!                     with_default(kind, default, example, doc)   one_of(kind, example, doc)
//!    ```
//!
//!    Examples and defaults are JSON. `one_of`: exactly one of the fields marked so stands in the
//!    table. Kinds are those of `shape`; one that is used twice is named at the top. A new kind of
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
use super::shape::{Field, Kind, Known, Shape, may, must, one_of, some, with_default};

/// Makes a constant of each shape, and `ALL`.
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

        /// Every shape, the document's first, each before those it is made of.
        pub const ALL: &[Shape] = &[$($ID),*];
    };
}

const NAME: Kind = Text { what: "1 to 63 of `a-z 0-9 _ -`", pattern: "^[a-z0-9_-]{1,63}$" };
const HEADER: Kind =
    Text { what: "a header's name", pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$" };
const PARAMETER: Kind = Text { what: "a parameter's name, decoded", pattern: "^.{1,128}$" };
const HOST: Kind = Text {
    what: "a host in lower case without port, or `*.` and a domain",
    pattern: "^(\\*\\.)?[^*/A-Z]+$",
};
const REGEX: Kind = Text {
    what: "a regular expression that has to match the whole value, in the syntax of the Rust crate regex without Unicode classes",
    pattern: "^.",
};
const VALUE: Kind = Text { what: "text of at most 1,024 bytes", pattern: "^.{0,1024}$" };
const QUANTITY: Kind = Whole { min: 1, max: 1_000_000_000 };
/// The longest period: a leap year.
const PERIOD: Kind = Duration { min_ms: 1, max_ms: 366 * 86_400_000 };
const CONDITIONS: Kind = Either(&[VALUE, Table(&CONDITION)]);

shapes! {
    /// The document.
    DOCUMENT "document" {
        "version" => must(Whole { min: 1, max: 1 }, "1", "The version of this format.");
        "gateway" => must(Table(&GATEWAY), r#"{"cluster": "tidegate"}"#, "How the filter reaches the gateway.");
        "apply" => with_default(Word(&["all", "first"]), "\"all\"", "\"first\"",
            "Which of the policies that match a request apply: all of them, their limits adding up, or the first in order of priority.");
        "problems" => may(Table(&PROBLEMS), "the project's base for every type", r#"{"base": "https://api.example.com/problems/"}"#,
            "What the problem types in answers begin with.");
        "rate_limit_fields" => with_default(Word(&["off", "x-draft-03", "draft-10"]), "\"draft-10\"", "\"x-draft-03\"",
            "How clients are told what is left: `RateLimit-Policy` and `RateLimit` with every limit (`draft-10`), `X-RateLimit-Limit`, `-Remaining` and `-Reset` of the limit closest to its end (`x-draft-03`), or nothing (`off`).");
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
        "match" => must(Table(&MATCH), r#"{"path": "/api/**"}"#, "Which requests fall under the policy.");
        "mode" => with_default(Either(&[Word(&["off", "shadow", "enforce"]), Table(&ROLLOUT)]), "\"enforce\"", "\"shadow\"",
            "Whether the policy acts: `off` does nothing, `shadow` decides and counts and never acts, `enforce` acts. As a table, for a share of the callers.");
        "rate_limits" => must(some(&Table(&RATE_LIMIT), 8), r#"[{"name": "per-client", "by": "ip", "limit": 60, "per": "minute"}]"#,
            "The limits. Every one has to admit; a request that one of them refuses is charged to none.");
        "on_unavailable" => with_default(Kind::List { item: &Word(&["allow", "deny"]), min: 1, max: 1 }, "[\"deny\"]", "[\"allow\"]",
            "What becomes of a request when no verdict can be had: `deny` answers 503, `allow` lets it go on. Both are counted under their reason.");
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
    }

    /// A condition on a header or on a query parameter.
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
    }

    /// One rate limit.
    RATE_LIMIT "rate_limit" {
        "name" => must(NAME, "\"per-client\"", "Unique within its policy. Clients see it in the answer; keep it when you change numbers, since it is part of the key.");
        "by" => must(Either(&[Word(&["ip"]), Table(&IDENTITY)]), "\"ip\"", "Who is counted. `ip` is the client's address as Envoy trusts it.");
        "limit" => must(QUANTITY, "600", "How many units a period admits.").unit("units per period");
        "per" => must(PERIOD, "\"minute\"", "The period.");
        "burst" => may(QUANTITY, "equal to `limit`", "20", "How many units may be used at once after a pause.").unit("units");
    }

    /// Who is counted, by one source.
    IDENTITY "identity" {
        "ip" => one_of(Table(&IP), r#"{"v6_prefix": 64}"#, "The client's address as Envoy trusts it (`use_remote_address`, `xff_num_trusted_hops`).");
        "header" => one_of(HEADER, "\"x-api-key\"", "A request header's value. The client chooses it, so let something before the filter verify it.");
    }

    /// The client's address.
    IP "ip" {
        "v6_prefix" => with_default(Whole { min: 1, max: 128 }, "64", "56", "How much of an IPv6 address names one client: its owner has a whole network. IPv4 addresses count whole.").unit("bits");
    }
}
