//! Owns `missing_identity`: what becomes of a request that does not have the identity it is
//! counted by.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::identities::{Atom, Names};
use super::reader::At;
use crate::identity::{Identity, Part, Place, Source, VALUES_MAX};
use crate::matching::PathPattern;

const REMEDY: &str = "write \"deny\", \"shared\", a list such as [\"client\", \"shared\"], or one of these by the identity's name";
/// Identities that stand in for one; a subject's spelling has one digit for the place.
const CHAIN_MAX: usize = 4;

/// What a policy says of missing identities.
#[derive(Default)]
pub(super) struct Missing<'r, 'd> {
    all: Rule,
    named: BTreeMap<String, (At<'r, 'd>, Rule)>,
}

/// What follows for one identity; denied if nothing else is said.
#[derive(Default, Clone)]
struct Rule {
    chain: Vec<Atom>,
    shared: bool,
}

/// Reads the field.
pub(super) fn missing<'r, 'd>(at: &At<'r, 'd>, names: &Names<'_, '_>) -> Option<Missing<'r, 'd>> {
    if at.is_text() || at.is_list() {
        return Some(Missing { all: rule(at, names)?, named: BTreeMap::new() });
    }
    let mut named = BTreeMap::new();
    let mut sound = true;
    for (name, at) in at.entries(REMEDY)? {
        match rule(&at, names) {
            Some(rule) => {
                named.insert(name.to_owned(), (at, rule));
            }
            None => sound = false,
        }
    }
    sound.then_some(Missing { all: Rule::default(), named })
}

fn rule(at: &At<'_, '_>, names: &Names<'_, '_>) -> Option<Rule> {
    let items = if at.is_list() { at.list(REMEDY)? } else { [at.clone()].into() };
    if items.is_empty() || items.len() > CHAIN_MAX.saturating_add(1) {
        at.wrong(
            format!("{} steps", items.len()),
            format!("write at most {CHAIN_MAX} identities, and \"deny\" or \"shared\" last"),
        );
        return None;
    }
    let mut rule = Rule::default();
    let last = items.len().saturating_sub(1);
    for (index, at) in items.iter().enumerate() {
        let word = if at.is_text() { at.text(REMEDY)? } else { "" };
        match word {
            "deny" | "shared" if index != last => {
                at.wrong("what follows is never reached", format!("write {word:?} last"));
                return None;
            }
            "deny" => {}
            "shared" => rule.shared = true,
            _ => {
                let atom = names.atom(at)?;
                if rule.chain.iter().any(|other| other.sources == atom.sources) {
                    at.wrong("it was tried before", "keep one of them");
                    return None;
                }
                rule.chain.push(atom);
            }
        }
    }
    if rule.chain.len() > CHAIN_MAX {
        at.wrong(format!("{} identities", rule.chain.len()), format!("write at most {CHAIN_MAX}"));
        return None;
    }
    Some(rule)
}

// === impl Missing ===

impl Missing<'_, '_> {
    /// Notes the names that no limit of the policy counts by: they change nothing.
    pub fn doubt_unused<'a>(&self, used: impl Iterator<Item = &'a Atom> + Clone) {
        for (name, (at, _)) in &self.named {
            if !used.clone().any(|atom| atom.name.as_ref() == Some(name)) {
                at.doubt(
                    format!("no limit of this policy counts by {name:?}"),
                    "write the name as it stands in by",
                );
            }
        }
    }

    /// Puts together whom a limit counts, and what follows when that is missing.
    pub fn bind(
        &self,
        at: &At<'_, '_>,
        atoms: &[Atom],
        path: Option<&PathPattern>,
    ) -> Option<Identity> {
        let mut parts = Vec::with_capacity(atoms.len());
        for atom in atoms {
            let own = atom.name.as_ref().and_then(|name| self.named.get(name));
            if let Some((at, rule)) = own
                && rule.chain.iter().any(|other| other.sources == atom.sources)
            {
                at.wrong("an identity cannot stand in for itself", "name another one");
                return None;
            }
            let rule = own.map_or(&self.all, |(_, rule)| rule);
            let others = rule.chain.iter().filter(|other| other.sources != atom.sources);
            let chain: Vec<Vec<Source>> = [atom]
                .into_iter()
                .chain(others)
                .map(|atom| placed(at, &atom.sources, path))
                .collect::<Option<_>>()?;
            parts.push(Part { chain, shared: rule.shared });
        }
        let longest = |part: &Part| part.chain.iter().map(Vec::len).max().unwrap_or_default();
        let values: usize = parts.iter().map(longest).sum();
        if values > VALUES_MAX {
            at.wrong(
                format!("{values} sources may count together, with what stands in for them"),
                format!("combine at most {VALUES_MAX}"),
            );
            return None;
        }
        Some(Identity { parts })
    }
}

/// Finds the segments that parts of the path stand for.
fn placed(at: &At<'_, '_>, sources: &[Source], path: Option<&PathPattern>) -> Option<Vec<Source>> {
    let mut sources = sources.to_vec();
    for source in &mut sources {
        let Place::Path(part) = &mut source.place else {
            continue;
        };
        // Without a sound match there is another error already.
        let path = path?;
        match path.named().find(|(_, name)| *name == part.name) {
            Some((segment, _)) => part.segment = segment,
            None => {
                let known: Vec<_> = path.named().map(|(_, name)| format!("{{{name}}}")).collect();
                let remedy = match known.is_empty() {
                    true => format!("write a template, such as \"/orders/{{{}}}\"", part.name),
                    false => format!("it has {}", known.join(", ")),
                };
                at.wrong(format!("the path of match has no part {{{}}}", part.name), remedy);
                return None;
            }
        }
    }
    Some(sources)
}
