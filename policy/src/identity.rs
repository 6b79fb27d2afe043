//! Owns who is counted: from a request's facts to a subject. Knows neither keys of a store nor
//! where facts come from.
//!
//! ```text
//! facts ─► place (header, claim, …) ─► value ─┐
//!                                             ├─► subject ─► key
//! missing: deny │ the next identity │ shared ─┘
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use crate::scope::{Tenant, TenantId};

mod address;
mod facts;
mod fingerprint;
mod secrets;
mod source;
mod subject;

pub use address::{V6_PREFIX, spell_ip};
pub use facts::{Facts, Fields, Peek};
pub use fingerprint::Fingerprint;
pub use secrets::Secrets;
pub use source::{Carrier, PathPart, Place, SOURCE_ADDRESS, Source};
pub(crate) use subject::hex;
pub use subject::{Subject, SubjectKind, SubjectName, VALUES_MAX};

use subject::Value;

/// Who a limit counts: one identity, or several together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Each has to name somebody; 1 to [`VALUES_MAX`].
    pub parts: Vec<Part>,
}

/// One identity with what follows when a request does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The identity that is asked for, then what may stand in for it, in order. Each is a list of
    /// sources that count together; 1 to [`VALUES_MAX`].
    pub chain: Vec<Vec<Source>>,
    /// Whether everybody else shares one bucket; if not, the request is denied.
    pub shared: bool,
}

/// Who is counted, and for which tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Who.
    pub subject: Subject,
    /// The tenant, if the subject names one.
    pub tenant: Tenant,
}

// === impl Identity ===

impl Identity {
    /// One source, and a denial if it is missing.
    pub fn single(source: Source) -> Self {
        Self { parts: [Part { chain: [[source].into()].into(), shared: false }].into() }
    }

    /// Who these facts name, or `None` if they name nobody and the policy says to deny.
    pub fn counted(&self, facts: &Facts<'_>) -> Option<Counted> {
        // Nearly every limit counts by one source, which names somebody: no list is needed to find him.
        if let Some(counted) = self.alone().and_then(|source| source.counted(facts)) {
            return Some(counted);
        }
        let mut values = Vec::new();
        let mut tenant = Tenant::None;
        for part in &self.parts {
            part.values(facts, &mut values, &mut tenant)?;
        }
        Some(Counted { subject: Subject::of(values)?, tenant })
    }

    /// The source, if there is one that is neither to be combined with another nor a stand-in.
    fn alone(&self) -> Option<&Source> {
        let [part] = self.parts.as_slice() else { return None };
        match part.chain.first()?.as_slice() {
            [source] => Some(source),
            _ => None,
        }
    }

    /// The subject alone.
    pub fn subject(&self, facts: &Facts<'_>) -> Option<Subject> {
        self.counted(facts).map(|counted| counted.subject)
    }

    /// Every source that may take part.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.parts.iter().flat_map(|part| part.chain.iter().flatten())
    }

    /// Whether no client can choose at will who it is counted as.
    pub fn is_trusted(&self) -> bool {
        self.sources().all(|source| source.trusted)
    }

    /// The host's properties that have to be read for it.
    pub fn properties(&self, into: &mut Vec<String>) {
        for source in self.sources() {
            source.place.properties(into);
        }
    }
}

// === impl Part ===

impl Part {
    fn values(
        &self,
        facts: &Facts<'_>,
        values: &mut Vec<Value>,
        tenant: &mut Tenant,
    ) -> Option<()> {
        let held = values.len();
        for (rank, sources) in self.chain.iter().enumerate() {
            let mut named = Tenant::None;
            if sources.iter().all(|source| source.push(rank, facts, values, &mut named).is_some()) {
                if named != Tenant::None {
                    *tenant = named;
                }
                return Some(());
            }
            values.truncate(held);
        }
        if !self.shared {
            return None;
        }
        let spelling = SubjectName::from_bytes(b"-");
        values.push(Value { kind: SubjectKind::Shared, rank: 0, spelling });
        Some(())
    }
}

// === impl Source ===

impl Source {
    fn push(
        &self,
        rank: usize,
        facts: &Facts<'_>,
        values: &mut Vec<Value>,
        tenant: &mut Tenant,
    ) -> Option<()> {
        let Counted { subject: Subject { kind, name }, tenant: named } = self.counted(facts)?;
        if named != Tenant::None {
            *tenant = named;
        }
        values.push(Value { kind, rank, spelling: name });
        Some(())
    }

    fn counted(&self, facts: &Facts<'_>) -> Option<Counted> {
        let value = self.place.value(facts)?;
        let mut tenant = Tenant::None;
        if self.is_tenant {
            // What is no tenant's name names nobody.
            let name =
                core::str::from_utf8(&value).ok().and_then(|text| TenantId::new(text).ok())?;
            tenant = Tenant::Named(name);
        }
        let kind = self.kind();
        let subject = Subject { kind, name: facts.secrets.spell(kind, &value) };
        Some(Counted { subject, tenant })
    }
}

#[cfg(test)]
mod tests;
