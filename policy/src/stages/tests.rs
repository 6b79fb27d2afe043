//! The table of all combinations of stage outcomes: 2 x 4 x 5 x 3 of them, each of which exactly one
//! row takes in.

use super::*;
use std::format;
use std::vec::Vec;

const IDENTITIES: [(&str, Identity); 2] =
    [("known", Identity::Known), ("missing", Identity::Missing)];
const LIMITS: [(&str, Limits); 4] = [
    ("none", Limits::NotAsked),
    ("charged", Limits::Charged),
    ("waived", Limits::Waived),
    ("denied", Limits::Denied),
];
const IDEMPOTENCY: [(&str, Idempotency); 5] = [
    ("none", Idempotency::NotAsked),
    ("claimed", Idempotency::Claimed),
    ("replay", Idempotency::Replay),
    ("refused", Idempotency::Refused),
    ("unavailable", Idempotency::Unavailable),
];
const PERMITS: [(&str, Permit); 3] =
    [("none", Permit::NotAsked), ("granted", Permit::Granted), ("refused", Permit::Refused)];

/// Identity, limits, idempotency, permit; the verdict; of what was taken, what is kept. `|` is or, `*`
/// is any. What is taken and not kept is given back.
const TABLE: [(&str, &str, &str, &str, Verdict, &str); 8] = [
    ("missing", "*", "*", "*", Verdict::Deny(Stage::Identity), ""),
    ("known", "denied", "*", "*", Verdict::Deny(Stage::Limits), ""),
    ("known", "none|charged|waived", "refused", "*", Verdict::Deny(Stage::Idempotency), "budget"),
    ("known", "none|charged|waived", "unavailable", "*", Verdict::Deny(Stage::Idempotency), ""),
    ("known", "none|charged|waived", "replay", "*", Verdict::Replay, "budget"),
    ("known", "none|charged|waived", "none|claimed", "refused", Verdict::Deny(Stage::Permit), ""),
    (
        "known",
        "none|charged|waived",
        "none|claimed",
        "granted",
        Verdict::Admit,
        "budget claim permit",
    ),
    ("known", "none|charged|waived", "none|claimed", "none", Verdict::Admit, "budget claim permit"),
];

#[test]
fn every_combination_has_its_row() {
    let takes_in =
        |pattern: &str, word: &str| pattern == "*" || pattern.split('|').any(|p| p == word);
    let mut count = 0;
    for (who, identity) in IDENTITIES {
        for (much, limits) in LIMITS {
            for (again, idempotency) in IDEMPOTENCY {
                for (upstream, permit) in PERMITS {
                    count += 1;
                    let case = format!("{who} {much} {again} {upstream}");
                    let rows: Vec<_> = TABLE
                        .iter()
                        .filter(|row| {
                            takes_in(row.0, who)
                                && takes_in(row.1, much)
                                && takes_in(row.2, again)
                                && takes_in(row.3, upstream)
                        })
                        .collect();
                    let [(.., verdict, kept)] = rows[..] else { panic!("{case}: {rows:?}") };
                    let keeps = |what: &str| kept.split(' ').any(|word| word == what);
                    let outcomes = Outcomes { identity, limits, idempotency, permit };
                    assert_eq!(outcomes.verdict(), *verdict, "{case}");
                    let expected = GiveBack {
                        refund: limits == Limits::Charged && !keeps("budget"),
                        abandon: idempotency == Idempotency::Claimed && !keeps("claim"),
                        permit: permit == Permit::Granted && !keeps("permit"),
                    };
                    assert_eq!(outcomes.give_back(), expected, "{case}");
                }
            }
        }
    }
    assert_eq!(count, 120);
}

#[test]
fn what_was_never_taken_is_never_given_back() {
    assert_eq!(Outcomes::NONE.verdict(), Verdict::Admit);
    assert_eq!(Outcomes::NONE.give_back(), GiveBack::default());
    let missing = Outcomes { identity: Identity::Missing, ..Outcomes::NONE };
    assert_eq!(missing.give_back(), GiveBack::default());
}
