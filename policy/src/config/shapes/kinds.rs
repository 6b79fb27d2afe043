//! Owns the kinds that several fields share, and the fields that two tables share.

use super::super::shape::Kind::{Bool, Duration, Either, List, Table, Text, Whole, Word};
use super::super::shape::{Field, Kind, may, must, some, with_default};
use super::{CONDITION, COST, IDENTITY, RATE_LIMIT};

pub(super) const NAME: Kind =
    Text { what: "1 to 63 of `a-z 0-9 _ -`", pattern: "^[a-z0-9_-]{1,63}$" };
pub(super) const REGION: Kind =
    Text { what: "a region: 1 to 64 of `a-z A-Z 0-9 . _ -`", pattern: "^[a-zA-Z0-9._-]{1,64}$" };
pub(super) const TENANT: Kind =
    Text { what: "a tenant: 1 to 64 of `a-z A-Z 0-9 . _ -`", pattern: "^[a-zA-Z0-9._-]{1,64}$" };
pub(super) const HEADER: Kind =
    Text { what: "a header's name", pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$" };
pub(super) const PARAMETER: Kind =
    Text { what: "a parameter's name, decoded", pattern: "^.{1,128}$" };
pub(super) const HOST: Kind = Text {
    what: "a host in lower case without port, or `*.` and a domain",
    pattern: "^(\\*\\.)?[^*/A-Z]+$",
};
pub(super) const REGEX: Kind = Text {
    what: "a regular expression that has to match the whole value, in the syntax of the Rust crate regex without Unicode classes",
    pattern: "^.",
};
pub(super) const VALUE: Kind = Text { what: "text of at most 1,024 bytes", pattern: "^.{0,1024}$" };
pub(super) const QUANTITY: Kind = Whole { min: 1, max: 1_000_000_000 };
/// The longest period: a leap year.
pub(super) const PERIOD: Kind = Duration { min_ms: 1, max_ms: 366 * 86_400_000 };
pub(super) const IDENTITY_NAME: Kind = Text {
    what: "`ip`, `ja3`, `ja4`, `tenant`, or the name of one of the identities",
    pattern: "^[a-z0-9_-]{1,63}$",
};
pub(super) const ONE: Kind = Either(&[IDENTITY_NAME, Table(&IDENTITY)]);
pub(super) const BY: Kind = Either(&[IDENTITY_NAME, Table(&IDENTITY), some(&ONE, 4)]);
pub(super) const STEPS: Kind = List { item: &ONE, min: 1, max: 5 };
pub(super) const INSTEAD: Kind = Either(&[IDENTITY_NAME, STEPS]);
pub(super) const COOKIE: Kind =
    Text { what: "a cookie's name", pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$" };
pub(super) const WORD: Kind =
    Text { what: "1 to 128 bytes without control characters", pattern: "^.{1,128}$" };
pub(super) const SIZE: Kind =
    Text { what: "a size from 1B to 1GiB", pattern: "^[0-9]{1,10}(B|KiB|MiB|GiB)$" };
pub(super) const MODE: Kind = Word(&["off", "shadow", "enforce"]);
pub(super) const RUNG: Kind = Word(&["lease", "local_share", "allow", "deny"]);
pub(super) const CONDITIONS: Kind = Either(&[VALUE, Table(&CONDITION)]);

/// What a limit says, whether it is defined once by name or written out in a policy.
pub(super) const LIMIT_BY: Field = must(
    BY,
    "\"ip\"",
    "Who is counted: an identity by its name or written out, or a list of up to four that count together. `ip` is the client's address as Envoy trusts it.",
);
pub(super) const LIMIT_LIMIT: Field =
    must(QUANTITY, "600", "How many units a period admits.").unit("units per period");
pub(super) const LIMIT_PER: Field = must(PERIOD, "\"minute\"", "The period.");
pub(super) const LIMIT_BURST: Field = may(
    QUANTITY,
    "equal to `limit`",
    "20",
    "How many units may be used at once after a pause. A `window` has none.",
)
.unit("units");
pub(super) const LIMIT_COST: Field = with_default(
    Either(&[QUANTITY, Table(&COST)]),
    "1",
    r#"{"header": "x-cost", "max": 50}"#,
    "What a request costs. As a table: where it is told.",
)
.unit("units");
pub(super) const LIMIT_SOFT: Field = with_default(
    Bool,
    "false",
    "true",
    "Whether it never denies: where it is used up the request goes on, and the upstream is told by the header `x-tidegate-soft-limit`.",
);
pub(super) const LIMIT_DECIDE: Field = with_default(
    Word(&["exact", "lease"]),
    "\"exact\"",
    "\"lease\"",
    "Who decides. `exact`: the gateway, asked by every request. `lease`: this Envoy, with units that it has taken out of the shared limit ahead of its requests, so that most of them ask nobody. The limit is never exceeded either way; what some Envoy holds is not there for the others for a moment. Not for `window`, `soft` or a cost that the response tells; a policy in shadow counts exactly.",
);
pub(super) const LIMIT_ALGORITHM: Field = with_default(
    Word(&["gcra", "window"]),
    "\"gcra\"",
    "\"window\"",
    "`gcra` is a bucket: at most `burst` at once, and then one unit each `per` / `limit`; in any time t at most burst + t x limit / per. `window` is strict: never more than `limit` in any period, and what was used comes back one period later.",
);
pub(super) const NAMED_OR_WRITTEN: Kind = Either(&[NAME, Table(&RATE_LIMIT)]);
