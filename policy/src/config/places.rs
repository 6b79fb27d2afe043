//! Owns where the fields of a document stand, for what is found out about a whole configuration after
//! it was read.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::tree::{Kind, Node, parse};

/// A document whose fields can be pointed at.
pub(crate) struct Places<'d> {
    root: Node<'d>,
    /// The policies' names in the order of the document; those of a configuration are ranked.
    policies: Vec<&'d str>,
}

// === impl Places ===

impl<'d> Places<'d> {
    /// `None` for what is no document at all.
    pub(crate) fn of(document: &'d str) -> Option<Self> {
        let root = parse(document).ok()?;
        let policies = match child(&root, "policies").map(|node| &node.kind) {
            Some(Kind::List(items)) => items.iter().map(name).collect(),
            _ => Vec::new(),
        };
        Some(Self { root, policies })
    }

    /// The path to a policy: `policies[3]`.
    pub(crate) fn policy(&self, name: &str) -> String {
        let quoted = format!("\"{name}\"");
        let index = self.policies.iter().position(|own| *own == quoted).unwrap_or_default();
        format!("policies[{index}]")
    }

    /// Where the value at a path stands, or the nearest value around it.
    pub(crate) fn span(&self, path: &str) -> Range<usize> {
        let mut node = &self.root;
        let mut rest = path;
        while let Some((next, left)) = step(node, rest) {
            node = next;
            rest = left;
        }
        node.span.clone()
    }
}

fn child<'n, 'd>(node: &'n Node<'d>, name: &str) -> Option<&'n Node<'d>> {
    let Kind::Table(fields) = &node.kind else { return None };
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// A policy's name as written; names need no escapes.
fn name<'d>(policy: &Node<'d>) -> &'d str {
    child(policy, "name").map_or("", |name| name.raw)
}

/// One step along a path, and what is left of the path.
fn step<'n, 'd, 'p>(node: &'n Node<'d>, path: &'p str) -> Option<(&'n Node<'d>, &'p str)> {
    if let Some(rest) = path.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        let Kind::List(items) = &node.kind else { return None };
        return Some((items.get(index.parse::<usize>().ok()?)?, rest));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let Kind::Table(fields) = &node.kind else { return None };
    // A name may hold dots itself, so the names decide where it ends.
    fields.iter().find_map(|(key, value)| {
        let rest = path.strip_prefix(key.as_ref())?;
        let ends = rest.is_empty() || rest.starts_with(['.', '[']);
        (ends && !key.is_empty()).then_some((value, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_value_or_as_near_as_there_is_something() {
        let document =
            r#"{"a.b": {"c": [1, {"d": "x"}]}, "policies": [{"name": "p"}, {"name": "q"}]}"#;
        let places = Places::of(document).expect("a document");
        let found = |path: &str| &document[places.span(path)];
        assert_eq!(found("a.b.c[1].d"), "\"x\"");
        assert_eq!(found("a.b.c[1].e"), r#"{"d": "x"}"#);
        assert_eq!(found("a.b.c[7]"), r#"[1, {"d": "x"}]"#);
        assert_eq!(found(&places.policy("q")), r#"{"name": "q"}"#);
    }
}
