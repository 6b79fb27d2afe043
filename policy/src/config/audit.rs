//! Owns the field `audit`, of the document and of a policy.

use super::read::duration_ms;
use super::reader::{At, Table};
use super::rollout::share_bp;
use super::shapes;
use super::suggest::nearest;
use crate::audit::Action;

/// How long a decision waits for its event, in ms, where nothing is said.
const TIMEOUT_MS: u32 = 250;

/// The actions that a request of the filter's own causes, as they stand in `sync`.
const SYNC: &[&str] = &["deny", "rung", "allow"];

/// Which of the filter's events are on record before their decision takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncEvents {
    /// Denials.
    deny: bool,
    /// Requests that go on by a rung of their policies' ladder.
    rung: bool,
    /// Admissions that are drawn by their share.
    allow: bool,
    /// How long the decision waits, in ms.
    pub timeout_ms: u32,
    /// Whether an admission whose event is not on record by then is refused.
    pub refuses: bool,
}

/// What the document says of audit events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Audit {
    /// The share of admitted requests that become events, in hundredths of a percent.
    pub allows_bp: u16,
    /// What waits, if anything.
    pub sync: Option<SyncEvents>,
}

// === impl SyncEvents ===

impl SyncEvents {
    /// Whether an event of this action is waited for.
    pub fn includes(&self, action: Action) -> bool {
        match action {
            Action::Deny => self.deny,
            Action::Rung => self.rung,
            Action::Allow => self.allow,
            _ => false,
        }
    }
}

/// What holds for the whole document.
pub(super) fn audit(at: &At<'_, '_>) -> Option<Audit> {
    let table = at.table(shapes::AUDIT.known, "write {} or {\"allows\": \"1%\"}")?;
    let (allows_bp, sync) = (allows(&table), sync(&table));
    Some(Audit { allows_bp: allows_bp?, sync: sync? })
}

/// What holds for one policy: the share alone.
pub(super) fn of_policy(at: &At<'_, '_>) -> Option<u16> {
    // Ignored as an unknown field, it would be believed.
    for name in ["sync", "timeout", "unrecorded"] {
        if let Some(foreign) = at.foreign(name) {
            foreign.wrong(
                "what waits for its event is not a policy's to say",
                "write it in the document's `audit`, for all policies (docs/audit.md)",
            );
            return None;
        }
    }
    let remedy = "write {} or {\"allows\": \"1%\"}";
    allows(&at.table(shapes::POLICY_AUDIT.known, remedy)?)
}

fn allows(table: &Table<'_, '_>) -> Option<u16> {
    match table.get("allows") {
        None => Some(0),
        Some(at) => share_bp(&at),
    }
}

fn sync(table: &Table<'_, '_>) -> Option<Option<SyncEvents>> {
    const WITHIN: &str = "write 250ms, or another duration from 50ms to 5s";
    const UNRECORDED: &str = "write \"proceed\" or \"refuse\"";
    let timeout_ms = match table.get("timeout") {
        None => Some(TIMEOUT_MS),
        Some(at) => duration_ms(&at, 50, 5_000, WITHIN).and_then(|ms| u32::try_from(ms).ok()),
    };
    let refuses = match table.get("unrecorded") {
        None => Some(false),
        Some(at) => match at.text(UNRECORDED) {
            Some("proceed") => Some(false),
            Some("refuse") => Some(true),
            Some(_) => {
                at.is_no("way to go on without a record", UNRECORDED);
                None
            }
            None => None,
        },
    };
    let named = match table.get("sync") {
        None => Some(None),
        Some(at) => actions(&at).map(Some),
    };
    let (timeout_ms, refuses, named) = (timeout_ms?, refuses?, named?);
    Some(named.map(|[deny, rung, allow]| SyncEvents { deny, rung, allow, timeout_ms, refuses }))
}

/// Which of [`SYNC`] are named.
fn actions(at: &At<'_, '_>) -> Option<[bool; 3]> {
    const REMEDY: &str = "write some of \"deny\", \"rung\" and \"allow\" in a list, or leave `sync` out; what the gateway decides waits by its --audit-sync";
    let items = at.list(REMEDY)?;
    if items.is_empty() {
        at.wrong("an empty list names nothing", REMEDY);
        return None;
    }
    let mut named = [false; 3];
    let mut sound = true;
    for item in items {
        let Some(text) = item.text(REMEDY) else {
            sound = false;
            continue;
        };
        match SYNC.iter().position(|name| *name == text).and_then(|place| named.get_mut(place)) {
            Some(true) => {
                sound = false;
                item.wrong("it stands twice", REMEDY);
            }
            Some(place) => *place = true,
            None => {
                sound = false;
                match nearest(text, SYNC) {
                    Some(near) => item.is_no(
                        "action of a request",
                        alloc::format!("did you mean \"{near}\"? ({REMEDY})"),
                    ),
                    None => item.is_no("action of a request", REMEDY),
                }
            }
        }
    }
    sound.then_some(named)
}

#[cfg(test)]
mod tests {
    use crate::audit::Action;
    use crate::config::{Config, Reading};
    use std::format;
    use std::string::{String, ToString};
    use std::vec;
    use std::vec::Vec;

    fn read(document: &str, policy: &str) -> Reading {
        let limit = r#""rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}]"#;
        let audit = |value: &str| match value {
            "" => String::new(),
            value => format!(r#", "audit": {value}"#),
        };
        Config::read(&format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}{}, "policies": [
                {{"name": "a", "match": {{"path": "/a"}}, {limit}{}}},
                {{"name": "b", "match": {{"path": "/b"}}, {limit}}}]}}"#,
            audit(document),
            audit(policy)
        ))
    }

    #[test]
    fn a_policy_says_it_for_itself_and_the_document_for_the_others() {
        let rows = [
            ("", "", false, [0, 0]),
            ("{}", "", true, [0, 0]),
            ("null", "", false, [0, 0]),
            (r#"{"allows": "1%"}"#, "", true, [100, 100]),
            (r#"{"allows": "1%"}"#, "{}", true, [0, 100]),
            (r#"{"allows": "1%"}"#, r#"{"allows": "12.34%"}"#, true, [1_234, 100]),
            ("", r#"{"allows": "100%"}"#, true, [10_000, 0]),
        ];
        for (document, policy, audits, shares) in rows {
            let config = read(document, policy).config.expect("sound");
            assert_eq!(config.audits, audits, "{document} {policy}");
            let said: Vec<u16> = config.policies.iter().map(|p| p.audited_allows_bp).collect();
            assert_eq!(said, shares, "{document} {policy}");
        }
    }

    #[test]
    fn nothing_waits_unless_it_is_named() {
        let all = [Action::Deny, Action::Rung, Action::Allow, Action::Config, Action::Breaker];
        let rows = [
            ("{}", None),
            (r#"{"timeout": "1s"}"#, None),
            (r#"{"sync": ["deny"]}"#, Some((vec![Action::Deny], 250, false))),
            (
                r#"{"sync": ["allow", "rung"], "timeout": "5s", "unrecorded": "refuse"}"#,
                Some((vec![Action::Rung, Action::Allow], 5_000, true)),
            ),
        ];
        for (document, expected) in rows {
            let config = read(document, "").config.expect("sound");
            let found = config.sync_events.map(|sync| {
                let named = all.into_iter().filter(|action| sync.includes(*action)).collect();
                (named, sync.timeout_ms, sync.refuses)
            });
            assert_eq!(found, expected, "{document}");
        }
    }

    #[test]
    fn what_cannot_wait_is_told_with_field_and_remedy() {
        let rows = [
            (
                r#"{"sync": ["config"]}"#,
                "audit.sync[0]",
                "\"config\" is no action of a request",
                "\"deny\", \"rung\"",
            ),
            (
                r#"{"sync": ["alow"]}"#,
                "audit.sync[0]",
                "is no action of a request",
                "did you mean \"allow\"?",
            ),
            (r#"{"sync": []}"#, "audit.sync", "names nothing", "--audit-sync"),
            (r#"{"sync": "deny"}"#, "audit.sync", "\"deny\"", "in a list"),
            (r#"{"timeout": "6s"}"#, "audit.timeout", "6s", "from 50ms to 5s"),
            (r#"{"timeout": "soon"}"#, "audit.timeout", "is no duration", "250ms"),
            (r#"{"unrecorded": "deny"}"#, "audit.unrecorded", "is no way to go on", "\"refuse\""),
        ];
        for (document, path, problem, remedy) in rows {
            let reading = read(document, "");
            let [told] = reading.diagnostics.as_slice() else { panic!("one: {reading:?}") };
            assert_eq!((reading.config, told.path.as_str()), (None, path));
            assert!(told.problem.contains(problem), "{told}");
            assert!(told.remedy.contains(remedy), "{told}");
        }
        for name in ["sync", "timeout", "unrecorded"] {
            let reading = read("", &format!("{{\"{name}\": [\"deny\"]}}"));
            let [told] = reading.diagnostics.as_slice() else { panic!("one: {reading:?}") };
            assert_eq!(told.path, format!("policies[0].audit.{name}"));
            assert!(told.remedy.contains("the document's `audit`"), "{told}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_with_field_and_remedy() {
        let rows = [
            (r#"{"allows": 0.01}"#, "audit.allows", "0.01 is no text", "\"0%\" to \"100%\""),
            (r#"{"allows": "1"}"#, "audit.allows", "\"1\" is no percentage", "\"0%\" to \"100%\""),
            (r#"{"allows": "101%"}"#, "audit.allows", "is no percentage", "\"0%\" to \"100%\""),
            ("true", "audit", "true is no table", "{\"allows\": \"1%\"}"),
            ("\"1%\"", "audit", "\"1%\" is no table", "{\"allows\": \"1%\"}"),
        ];
        for (value, path, problem, remedy) in rows {
            let cases = vec![
                (read(value, ""), path.to_string()),
                (read("", value), format!("policies[0].{path}")),
            ];
            for (reading, path) in cases {
                assert_eq!(reading.config, None, "{value}");
                let [told] = reading.diagnostics.as_slice() else { panic!("one: {reading:?}") };
                assert_eq!(told.path, path);
                assert!(told.problem.contains(problem), "{told}");
                assert!(told.remedy.contains(remedy), "{told}");
            }
        }
    }
}
