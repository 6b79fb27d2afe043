//! Owns the RateLimit fields that clients read: which limits they show, in which dialect, spelled to
//! the letter. Knows neither requests nor header maps.
//!
//! Drafts change, so each is a variant of [`Dialect`]: the next one is one more. Sources:
//! draft-ietf-httpapi-ratelimit-headers-10 over RFC 9651, draft-polli-ratelimit-headers-03.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::digits::push_number;

/// The field of draft-03 that says how many units are left; read to compare with an upstream's.
pub const X_REMAINING: &str = "x-ratelimit-remaining";
/// The most limits that are shown: 64 of them would fill the 8 KiB that many clients read of all
/// headers together. Those closest to their end are kept.
pub const SHOWN_MAX: usize = 16;
/// The largest Integer of RFC 9651.
const INTEGER_MAX: u64 = 999_999_999_999_999;
const SECOND_US: u64 = 1_000_000;
/// About what one limit takes, in bytes.
const LIMIT_LEN: usize = 64;

/// How limits are told to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Not at all.
    Off,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` of the limit that is closest to its end.
    XDraft03,
    /// `RateLimit-Policy` and `RateLimit`, with every limit.
    #[default]
    Draft10,
}

/// What is shown of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'c> {
    /// `policy.limit`.
    pub name: &'c str,
    /// Units per period that are in force.
    pub quota: u32,
    /// The period, in µs.
    pub period_us: u64,
    /// Units that may come at once.
    pub burst: u32,
    /// Whole units left.
    pub remaining: u64,
    /// µs until one more unit is there; 0 if full.
    pub next_us: u64,
    /// Whether it denies this request.
    pub denies: bool,
    /// Its name and its policy, spelled before, if the quota in force is the configured one.
    pub spelled: Option<&'c Spelled>,
}

/// What never changes of a limit's fields in [`Dialect::Draft10`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spelled {
    name: String,
    policy: String,
}

/// A header field: its name in lower case, its value.
pub type Field = (&'static str, String);

// === impl Dialect ===

impl Dialect {
    /// The fields that show these limits; none if there is nothing to show.
    ///
    /// `retry_after_s` is the reply's `Retry-After`: no limit that still admits is shown with a
    /// later time than that, or clients would read two answers to one question.
    pub fn fields(self, shown: &[Shown<'_>], retry_after_s: Option<u64>) -> Vec<Field> {
        match self {
            Self::Off => Vec::new(),
            Self::XDraft03 => match shown.iter().min_by(|a, b| rank(a, b)) {
                Some(closest) => x_draft_03(shown, closest),
                None => Vec::new(),
            },
            Self::Draft10 if shown.is_empty() => Vec::new(),
            Self::Draft10 if shown.len() <= SHOWN_MAX => draft_10(shown.iter(), retry_after_s),
            Self::Draft10 => draft_10(capped(shown).into_iter(), retry_after_s),
        }
    }
}

// === impl Spelled ===

impl Spelled {
    /// Of a limit with these numbers.
    pub fn new(name: &str, quota: u32, period_us: u64) -> Self {
        let mut spelled = Self { name: String::new(), policy: String::new() };
        push_string(&mut spelled.name, name);
        push_policy(&mut spelled.policy, name, quota, period_us);
        spelled
    }
}

// === impl Shown ===

impl Shown<'_> {
    /// Seconds until one more unit is there, never too early; nothing if the bucket is full.
    fn next_s(&self) -> Option<u64> {
        (self.next_us > 0).then(|| self.next_us.div_ceil(SECOND_US))
    }

    fn remaining(&self) -> u64 {
        self.remaining.min(INTEGER_MAX)
    }
}

/// Those that deny first, then by the share that is left.
fn rank(a: &Shown<'_>, b: &Shown<'_>) -> core::cmp::Ordering {
    let left = |of: &Shown<'_>, other: &Shown<'_>| {
        u128::from(of.remaining) * u128::from(other.burst.max(1))
    };
    Reverse(a.denies).cmp(&Reverse(b.denies)).then(left(a, b).cmp(&left(b, a)))
}

/// At most [`SHOWN_MAX`], in their order.
fn capped<'s, 'c>(shown: &'s [Shown<'c>]) -> Vec<&'s Shown<'c>> {
    if shown.len() <= SHOWN_MAX {
        return shown.iter().collect();
    }
    let mut places: Vec<(usize, &Shown<'c>)> = shown.iter().enumerate().collect();
    places.sort_by(|(_, a), (_, b)| rank(a, b));
    places.truncate(SHOWN_MAX);
    places.sort_by_key(|(place, _)| *place);
    places.into_iter().map(|(_, shown)| shown).collect()
}

fn draft_10<'s, 'c: 's>(
    shown: impl ExactSizeIterator<Item = &'s Shown<'c>>,
    retry_after_s: Option<u64>,
) -> Vec<Field> {
    let room = || String::with_capacity(shown.len().saturating_mul(LIMIT_LEN));
    let (mut policy, mut state) = (room(), room());
    for limit in shown {
        for list in [&mut policy, &mut state] {
            if !list.is_empty() {
                list.push_str(", ");
            }
        }
        match limit.spelled {
            Some(spelled) => {
                state.push_str(&spelled.name);
                policy.push_str(&spelled.policy);
            }
            None => {
                push_string(&mut state, limit.name);
                push_policy(&mut policy, limit.name, limit.quota, limit.period_us);
            }
        }
        push_parameter(&mut state, "r", limit.remaining());
        let sooner = |next_s: &u64| limit.denies || retry_after_s.is_none_or(|s| *next_s <= s);
        if let Some(next_s) = limit.next_s().filter(sooner) {
            push_parameter(&mut state, "t", next_s);
        }
    }
    [("ratelimit-policy", policy), ("ratelimit", state)].into()
}

fn push_policy(policy: &mut String, name: &str, quota: u32, period_us: u64) {
    push_string(policy, name);
    push_parameter(policy, "q", quota.into());
    if let Some(window_s) = window_s(period_us) {
        push_parameter(policy, "w", window_s);
    }
}

/// A period in s, if it is a whole number of them.
fn window_s(period_us: u64) -> Option<u64> {
    (period_us >= SECOND_US && period_us.is_multiple_of(SECOND_US))
        .then(|| period_us.div_euclid(SECOND_US))
}

/// As Envoy's own rate limit filter writes it: the closest limit's quota, then every quota.
fn x_draft_03(shown: &[Shown<'_>], closest: &Shown<'_>) -> Vec<Field> {
    let mut quota = closest.quota.to_string();
    for limit in capped(shown) {
        quota.push_str(", ");
        quota.push_str(&limit.quota.to_string());
        if let Some(window_s) = window_s(limit.period_us) {
            push_parameter(&mut quota, "w", window_s);
        }
        quota.push_str(";name=");
        push_string(&mut quota, limit.name);
    }
    let reset_s = closest.next_s().unwrap_or(0);
    [
        ("x-ratelimit-limit", quota),
        (X_REMAINING, closest.remaining().to_string()),
        ("x-ratelimit-reset", reset_s.to_string()),
    ]
    .into()
}

/// Whether draft-03 fields of ours may take the place of an upstream's: only where they say less is
/// left. Each of them may stand once only, so that they cannot be appended; and what cannot be read
/// is the upstream's word to its client and stays.
pub fn is_stricter(ours: &[Field], upstream_remaining: &[u8]) -> bool {
    let number = |text: &str| text.trim_ascii().parse::<u64>().ok();
    let ours = ours.iter().find(|(name, _)| *name == X_REMAINING);
    let theirs = core::str::from_utf8(upstream_remaining).ok().and_then(number);
    match (ours.and_then(|(_, value)| number(value)), theirs) {
        (Some(ours), Some(theirs)) => ours < theirs,
        _ => false,
    }
}

/// A String of RFC 9651. Names are `a-z 0-9 . _ -`; what no String may hold is left out all the same.
fn push_string(list: &mut String, text: &str) {
    list.push('"');
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        list.push_str(text);
        list.push('"');
        return;
    }
    for c in text.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(c, '"' | '\\') {
            list.push('\\');
        }
        list.push(c);
    }
    list.push('"');
}

fn push_parameter(list: &mut String, key: &str, value: u64) {
    list.push(';');
    list.push_str(key);
    list.push('=');
    push_number(list, value.min(INTEGER_MAX));
}

#[cfg(test)]
mod tests;
