//! Owns in which memory a server's connections find what was written: that of one process, for as long as it is the
//! master without a break. Another one may lack the last of it. Knows no keys and no chains. Record 0102.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::info::Info;

/// Numbers are given once, so that those of two servers differ.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What a server says of its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    /// Of this process, with this history: Redis gives a new one to whoever begins or becomes the master.
    Told {
        /// `run_id`
        process: String,
        /// `master_replid`
        history: String,
    },
    /// Nothing, so that any connection may lead to another one.
    Untold,
}

/// The memories to which the connections to one server led.
#[derive(Debug, Default)]
pub struct Lineage {
    last: Mutex<Option<Memory>>,
    /// Of the last one; 0 before there is one.
    number: AtomicU64,
}

// === impl Memory ===

impl Memory {
    /// What it tells of it.
    pub fn read(info: &Info) -> Self {
        match (info.id("run_id"), info.id("master_replid")) {
            (Some(process), Some(history)) => {
                Self::Told { process: process.to_owned(), history: history.to_owned() }
            }
            _ => Self::Untold,
        }
    }

    fn is_for_certain(&self, other: &Self) -> bool {
        self == other && *self != Self::Untold
    }
}

// === impl Lineage ===

impl Lineage {
    /// A connection leads to this memory, and led to `before` until it was opened anew; `None` if it is opened for the
    /// first time. To be told before anything is sent over it.
    pub fn meets(&self, before: Option<&Memory>, now: &Memory) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = match (last.as_ref(), before) {
            (None, _) => false,
            (Some(last), Some(before)) => last.is_for_certain(now) && before.is_for_certain(now),
            // The first connections to a server that says nothing are opened together.
            (Some(last), None) => last == now,
        };
        *last = Some(now.clone());
        if !is_same {
            self.number.store(NEXT.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    /// The number of the memory: another one where it is not known for certain to be the same. `None` before the first
    /// connection.
    pub fn number(&self) -> Option<u64> {
        Some(self.number.load(Ordering::SeqCst)).filter(|number| *number > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(process: char, history: char) -> Memory {
        let id = |of: char| of.to_string().repeat(40);
        let info = format!(
            "# Server\r\nredis_version:7.2.0\r\nrun_id:{}\r\n# Replication\r\nrole:master\r\nmaster_replid:{}\r\nmaster_replid2:{}\r\n",
            id(process),
            id(history),
            id('0'),
        );
        Memory::read(&Info::from(info.as_str()))
    }

    #[test]
    fn a_memory_is_told_in_full_or_not_at_all() {
        let Memory::Told { process, history } = told('a', 'b') else { panic!("it is told") };
        assert_eq!((process, history), ("a".repeat(40), "b".repeat(40)));
        for (process, history) in [('0', 'b'), ('a', '0'), ('x', 'b'), ('a', ' ')] {
            assert_eq!(told(process, history), Memory::Untold, "{process} {history}");
        }
        assert_eq!(
            Memory::read(&Info::from(format!("run_id:{}", "a".repeat(40)).as_str())),
            Memory::Untold
        );
        assert_eq!(Memory::read(&Info::default()), Memory::Untold);
    }

    #[test]
    fn a_connection_that_is_opened_anew_leads_to_the_same_memory_or_the_number_is_another() {
        let (same, untold) = (told('a', 'b'), Memory::Untold);
        let (began, promoted) = (told('c', 'd'), told('a', 'd'));
        // What the server's connections met last, what this one led to, and what it leads to now.
        let rows = [
            (&same, Some(&same), &same, true),
            (&same, None, &same, true),
            (&same, Some(&same), &began, false),
            (&same, None, &began, false),
            (&same, Some(&same), &promoted, false),
            // Another connection found the new one first, and this one led to the old one until now.
            (&began, Some(&same), &began, false),
            (&began, Some(&same), &same, false),
            (&untold, Some(&untold), &untold, false),
            (&untold, None, &untold, true),
            (&same, None, &untold, false),
            (&untold, Some(&untold), &same, false),
        ];
        for (last, before, now, is_same) in rows {
            let lineage = Lineage::default();
            assert_eq!(lineage.number(), None);
            lineage.meets(None, last);
            let number = lineage.number().expect("a connection");
            lineage.meets(before, now);
            assert_eq!(lineage.number() == Some(number), is_same, "{last:?} {before:?} {now:?}");
            assert_ne!(Lineage::default().number(), lineage.number());
        }
    }
}
