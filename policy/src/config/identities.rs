//! Owns the names of identities: each is defined once, and used wherever somebody is counted.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use super::identity::{REMEDY, inline, shortcut};
use super::reader::{At, Table};
use super::suggest::nearest;
use crate::identity::{Source, VALUES_MAX};

/// Names per document.
const NAMES_MAX: usize = 256;
/// How long a chain of names may be that stand for one another.
const DEPTH_MAX: usize = 8;
const NAME_LEN_MAX: usize = 63;
/// Words that mean something where a name may stand.
const RESERVED: [&str; 5] = ["ip", "ja3", "ja4", "deny", "shared"];
const TENANT: &str = "tenant";

/// One identity in `by` or in a fallback, as it was written.
#[derive(Debug, Clone)]
pub(super) struct Atom {
    /// The name, if it was not written out; `ip` and the like are names, too.
    pub name: Option<String>,
    /// What it stands for: sources that count together.
    pub sources: Vec<Source>,
}

/// The names of one document.
pub(super) struct Names<'r, 'd> {
    written: BTreeMap<&'r str, At<'r, 'd>>,
    /// What each stands for, once it was read; `None` if it cannot be.
    read: RefCell<BTreeMap<String, Option<Vec<Source>>>>,
    /// The names that are being read: one that leads to itself is a circle.
    open: RefCell<Vec<String>>,
    /// The name of the tenant's identity, if there is one.
    tenant: RefCell<Option<String>>,
    /// The keys of signed ids: environment variable and field.
    keys: RefCell<BTreeMap<String, String>>,
    used: RefCell<BTreeSet<String>>,
}

// === impl Names ===

impl<'r, 'd> Names<'r, 'd> {
    /// Reads `identities` and `tenant` of a document.
    pub fn new(document: &Table<'r, 'd>) -> Self {
        let names = Self {
            written: BTreeMap::new(),
            read: RefCell::default(),
            open: RefCell::default(),
            tenant: RefCell::default(),
            keys: RefCell::default(),
            used: RefCell::default(),
        };
        let mut names = match document.get("identities") {
            None => names,
            Some(at) => Self { written: written(&at), ..names },
        };
        names.find_tenant(document);
        // All are read, so that an unused one with a mistake does not pass in silence.
        for name in names.written.keys() {
            names.named(name);
        }
        names
    }

    /// Whether the document defines it.
    pub fn defines(&self, name: &str) -> bool {
        self.written.contains_key(name)
    }

    /// The keys of signed ids: environment variable and field.
    pub fn into_keys(self) -> BTreeMap<String, String> {
        self.keys.into_inner()
    }

    pub fn needs_key(&self, variable: &str, field: &str) {
        self.keys.borrow_mut().entry(variable.to_owned()).or_insert_with(|| field.to_owned());
    }

    /// Warns of names that nothing counts by.
    pub fn doubt_unused(&self) {
        let used = self.used.borrow();
        for (name, at) in self.written.iter().filter(|(name, _)| !used.contains(**name)) {
            at.doubt(format!("nothing uses the identity {name:?}"), "use it in by, or take it out");
        }
    }

    /// One to four identities: a name, a table, or a list of both.
    pub fn by(&self, at: &At<'_, '_>) -> Option<Vec<Atom>> {
        if !at.is_list() {
            return Some([self.atom(at)?].into());
        }
        let items = at.list(REMEDY)?;
        if items.is_empty() {
            at.wrong("no identity, so nobody would be counted", REMEDY);
            return None;
        }
        let read: Vec<Option<Atom>> = items.iter().map(|at| self.atom(at)).collect();
        let atoms: Vec<Atom> = read.into_iter().collect::<Option<_>>()?;
        let sources: Vec<&Source> = atoms.iter().flat_map(|atom| &atom.sources).collect();
        if sources.len() > VALUES_MAX {
            at.wrong(
                format!("{} sources count together", sources.len()),
                format!("combine at most {VALUES_MAX}"),
            );
            return None;
        }
        let twice = sources.iter().enumerate().any(|(index, source)| {
            sources.iter().take(index).any(|other| other.place == source.place)
        });
        if twice {
            at.wrong("one source stands twice", "keep one of them: it counts only once");
            return None;
        }
        Some(atoms)
    }

    /// One identity.
    pub fn atom(&self, at: &At<'_, '_>) -> Option<Atom> {
        if at.is_text() {
            let word = at.text(REMEDY)?;
            self.used.borrow_mut().insert(word.to_owned());
            let sources = match shortcut(word) {
                Some(source) => [source].into(),
                None => self.of_name(at, word)?,
            };
            return Some(Atom { name: Some(word.to_owned()), sources });
        }
        if at.is_list() {
            at.wrong("a list within a list", "write one list of names");
            return None;
        }
        Some(Atom { name: None, sources: [inline(at, self)?].into() })
    }

    /// One identity of one source.
    pub fn one(&self, at: &At<'_, '_>) -> Option<Source> {
        let mut sources = self.atom(at)?.sources;
        if sources.len() != 1 {
            at.wrong("a combination of several", "name an identity with one source");
            return None;
        }
        sources.pop()
    }

    /// The identity of the tenant, for what cannot do without one. A document that has a tenant has no
    /// other: one request is of one.
    pub fn tenant(&self, at: &At<'_, '_>) -> Option<Atom> {
        let atom = self.atom(at)?;
        let sources = tenant(at, atom.sources)?;
        let known = self.tenant.borrow().clone().and_then(|name| self.named(&name));
        let other = |known: &Vec<Source>| known.iter().ne(&sources);
        if known.as_ref().is_some_and(other) {
            at.wrong("the document's tenant is another", "write \"tenant\": a request is of one");
            return None;
        }
        Some(Atom { sources, ..atom })
    }

    fn of_name(&self, at: &At<'_, '_>, word: &str) -> Option<Vec<Source>> {
        let tenant = self.tenant.borrow().clone();
        let name = match (word, tenant.as_deref()) {
            (TENANT, Some(name)) => name,
            (TENANT, None) if !self.written.contains_key(TENANT) => {
                at.wrong(
                    "no identity names the tenant",
                    "add \"tenant\" to identities, or write at the top which one it is",
                );
                return None;
            }
            _ => word,
        };
        if !self.written.contains_key(name) {
            let known: Vec<&str> =
                self.written.keys().copied().chain(["ip", "ja3", "ja4"]).collect();
            let remedy = match nearest(word, &known) {
                Some(word) => format!("did you mean {word:?}?"),
                None if self.written.is_empty() => REMEDY.to_owned(),
                None => format!("known here: {}", known.join(", ")),
            };
            at.is_no("identity", remedy);
            return None;
        }
        self.used.borrow_mut().insert(name.to_owned());
        let open = self.open.borrow();
        if let Some(start) = open.iter().position(|open| open == name) {
            let circle: Vec<&str> =
                open.iter().skip(start).map(String::as_str).chain([name]).collect();
            at.wrong(
                format!("identities stand for one another in a circle: {}", circle.join(" → ")),
                "let one of them have a source",
            );
            return None;
        }
        let deep = open.len() >= DEPTH_MAX;
        drop(open);
        if deep {
            at.wrong("names stand for names too often", format!("use at most {DEPTH_MAX} steps"));
            return None;
        }
        self.named(name)
    }

    /// What a written name stands for.
    fn named(&self, name: &str) -> Option<Vec<Source>> {
        if let Some(known) = self.read.borrow().get(name) {
            return known.clone();
        }
        let at = self.written.get(name)?;
        self.open.borrow_mut().push(name.to_string());
        let sources = self
            .by(at)
            .map(|atoms| atoms.into_iter().flat_map(|atom| atom.sources).collect::<Vec<Source>>());
        self.open.borrow_mut().pop();
        let is_tenant = self.tenant.borrow().as_deref() == Some(name);
        let sources = match sources {
            Some(sources) if is_tenant => tenant(at, sources),
            other => other,
        };
        self.read.borrow_mut().insert(name.to_owned(), sources.clone());
        sources
    }

    /// The identity called `tenant` names the tenant, unless the document says which one does.
    fn find_tenant(&mut self, document: &Table<'r, 'd>) {
        let defined = self.written.contains_key(TENANT);
        let name = match document.get(TENANT) {
            None => defined.then_some(TENANT),
            Some(at) if defined && !(at.is_text() && at.text(REMEDY) == Some(TENANT)) => {
                at.wrong(
                    "an identity is called \"tenant\", and this is another",
                    "rename one of them: \"by\": \"tenant\" could mean both",
                );
                None
            }
            Some(at) if at.is_text() => at.text(REMEDY).filter(|name| {
                let known = self.written.contains_key(*name);
                if !known {
                    let known: Vec<&str> = self.written.keys().copied().collect();
                    let remedy = match nearest(name, &known) {
                        Some(word) => format!("did you mean {word:?}?"),
                        None => "define it in identities".to_owned(),
                    };
                    at.is_no("name of an identity", remedy);
                }
                known
            }),
            Some(at) => {
                self.written.insert(TENANT, at);
                Some(TENANT)
            }
        };
        if let Some(name) = name {
            self.used.borrow_mut().insert(name.to_owned());
        }
        self.tenant.replace(name.map(ToOwned::to_owned));
    }
}

/// The names as written, those that can be none noted.
fn written<'r, 'd>(at: &At<'r, 'd>) -> BTreeMap<&'r str, At<'r, 'd>> {
    let mut found = BTreeMap::new();
    let entries = at.entries("write {\"client\": \"ip\"}").unwrap_or_default();
    if entries.len() > NAMES_MAX {
        at.wrong(format!("{} identities", entries.len()), format!("write at most {NAMES_MAX}"));
        return found;
    }
    for (name, at) in entries {
        let sound = (1..=NAME_LEN_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
        if RESERVED.contains(&name) {
            at.wrong(format!("{name:?} means something already"), "take another name");
        } else if !sound {
            at.wrong(
                format!("{name:?} is no name"),
                format!("write 1 to {NAME_LEN_MAX} of a-z 0-9 _ -"),
            );
        } else {
            found.entry(name).or_insert(at);
        }
    }
    found
}

/// Names the tenant: one source, which no client chooses.
fn tenant(at: &At<'_, '_>, mut sources: Vec<Source>) -> Option<Vec<Source>> {
    let [source] = sources.as_mut_slice() else {
        at.wrong("a combination names no tenant", "name it by one source");
        return None;
    };
    if !source.trusted {
        at.wrong(
            "a client chooses this, and with it whose limits it uses up",
            "take a verified source (jwt, mtls), or write \"trusted\": true where something before the filter verifies it",
        );
        return None;
    }
    source.is_tenant = true;
    Some(sources)
}

#[cfg(test)]
mod tests;
