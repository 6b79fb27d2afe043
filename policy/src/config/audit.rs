//! Owns the field `audit`, of the document and of a policy.

use super::reader::At;
use super::rollout::share_bp;
use super::shapes;

/// The share of admitted requests that become events, in hundredths of a percent.
pub(super) fn audit(at: &At<'_, '_>) -> Option<u16> {
    let remedy = "write {} or {\"allows\": \"1%\"}";
    // Ignored as an unknown field, it would be believed.
    if let Some(sync) = at.foreign("sync") {
        sync.wrong(
            "no request waits for an event of the filter",
            "leave it out; answers of the gateway wait for the actions that its --audit-sync names (docs/audit.md)",
        );
        return None;
    }
    let table = at.table(shapes::AUDIT.known, remedy)?;
    match table.get("allows") {
        None => Some(0),
        Some(at) => share_bp(&at),
    }
}

#[cfg(test)]
mod tests {
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
    fn what_cannot_be_is_told_with_field_and_remedy() {
        let rows = [
            (r#"{"allows": 0.01}"#, "audit.allows", "0.01 is no text", "\"0%\" to \"100%\""),
            (r#"{"allows": "1"}"#, "audit.allows", "\"1\" is no percentage", "\"0%\" to \"100%\""),
            (r#"{"allows": "101%"}"#, "audit.allows", "is no percentage", "\"0%\" to \"100%\""),
            ("true", "audit", "true is no table", "{\"allows\": \"1%\"}"),
            (r#"{"sync": ["deny"]}"#, "audit.sync", "no request waits", "--audit-sync"),
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
