//! Owns the versions of the document's form: which are read, and how an older one is brought to the
//! form that the reader knows.
//!
//! Version 1 is the first that was ever published, so there is no step yet. A version that renames or
//! moves a field comes with its step in [`STEPS`]: it changes the tree before it is read, values keep
//! their places, and so every message still points at what the author wrote.

use alloc::format;
use alloc::string::String;

use super::reader::At;
use super::tree::{Kind, Node};

/// The version that the reader knows.
pub(super) const CURRENT: u32 = 1;

/// What makes a document of one version one of the next.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// The version it takes.
    pub from: u32,
    /// The change.
    pub change: fn(&mut Node<'_>),
}

/// In rising order, one for each version before [`CURRENT`].
const STEPS: &[Step] = &[];

/// Brings a tree to the current form, as far as it says a version that there is.
pub(super) fn bring_up(root: &mut Node<'_>) {
    bring_up_by(root, STEPS);
}

fn bring_up_by(root: &mut Node<'_>, steps: &[Step]) {
    let Some(written) = said(root) else { return };
    for step in steps.iter().filter(|step| step.from >= written) {
        (step.change)(root);
    }
}

fn said(root: &Node<'_>) -> Option<u32> {
    let Kind::Table(fields) = &root.kind else { return None };
    let (_, version) = fields.iter().find(|(name, _)| name == "version")?;
    matches!(version.kind, Kind::Number).then(|| version.raw.parse().ok())?
}

/// The version, or an error noted.
pub(super) fn version(at: &At<'_, '_>) -> Option<u32> {
    match at.number() {
        Some(newer) if newer > CURRENT => {
            at.wrong(
                format!("{newer} is newer than this filter, which reads {}", readable()),
                "deploy the newer filter first, or write a version that this one reads",
            );
            None
        }
        Some(known) if known > 0 => Some(known),
        _ => {
            at.is_no("version", format!("write {CURRENT}, a whole number without quotes"));
            None
        }
    }
}

fn readable() -> String {
    match CURRENT {
        1 => "version 1".into(),
        last => format!("versions 1 to {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;

    /// Version 2 calls `limits` `rate_limits`, version 3 `rate_limits` `quotas`.
    const STEPS: &[Step] = &[
        Step { from: 1, change: |root| rename(root, "limits", "rate_limits") },
        Step { from: 2, change: |root| rename(root, "rate_limits", "quotas") },
    ];

    fn rename(node: &mut Node<'_>, old: &str, new: &'static str) {
        match &mut node.kind {
            Kind::Table(fields) => {
                for (name, value) in fields {
                    if name == old {
                        *name = new.into();
                    }
                    rename(value, old, new);
                }
            }
            Kind::List(items) => items.iter_mut().for_each(|item| rename(item, old, new)),
            _ => {}
        }
    }

    #[test]
    fn each_older_version_takes_the_steps_that_it_lacks_and_keeps_its_places() {
        for (version, old) in [(1, "limits"), (2, "rate_limits"), (3, "quotas")] {
            let document = format!(r#"{{"version": {version}, "policies": [{{"{old}": [7]}}]}}"#);
            let mut root = parse(&document).expect("a document");
            bring_up_by(&mut root, STEPS);
            let Kind::Table(fields) = &root.kind else { panic!("a table") };
            let Kind::List(policies) = &fields[1].1.kind else { panic!("a list") };
            let Kind::Table(policy) = &policies[0].kind else { panic!("a table") };
            assert_eq!(policy[0].0, "quotas", "{document}");
            assert_eq!(&document[policy[0].1.span.clone()], "[7]");
        }
    }

    #[test]
    fn what_says_no_version_is_left_as_it_is() {
        for document in
            [r#"{"limits": 1}"#, r#"{"version": "1", "limits": 1}"#, r#"[{"limits": 1}]"#]
        {
            let mut root = parse(document).expect("a document");
            bring_up_by(&mut root, STEPS);
            assert!(format!("{root:?}").contains("\"limits\""), "{document}");
        }
    }

    #[test]
    fn there_is_a_step_for_each_version_before_the_current_one() {
        let from: std::vec::Vec<u32> = super::STEPS.iter().map(|step| step.from).collect();
        assert_eq!(from, (1..CURRENT).collect::<std::vec::Vec<u32>>());
    }
}
