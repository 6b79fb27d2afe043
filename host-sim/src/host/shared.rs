//! What all VMs of a process share: time, shared data, queues, metrics, network, log and trace. It must not know any VM.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock::{Event, EventQueue, VmId};
use super::metrics::Metrics;
use super::network::Network;
use super::trace::{LogLine, TraceLine};

/// A plugin that talks without end must not eat the machine's memory.
const LINES_MAX: usize = 1_000_000;

/// The one [`Shared`] of a run, as every VM holds it. Only one of them runs at a time, so nobody ever waits for it.
#[derive(Clone)]
pub(crate) struct SharedCell(Arc<Mutex<Shared>>);

/// The process around the VMs.
pub(crate) struct Shared {
    /// Since the run began.
    pub(crate) now_ns: u64,
    /// What the plugin's clock showed when the run began.
    pub(crate) start_unix_ns: u64,
    pub(crate) events: EventQueue,
    pub(crate) data: SharedData,
    pub(crate) queues: Queues,
    pub(crate) metrics: Metrics,
    pub(crate) network: Network,
    pub(crate) trace: Vec<TraceLine>,
    pub(crate) logs: Vec<LogLine>,
    /// Set when a plugin did what kills Envoy's process; the run ends there.
    pub(crate) crash: Option<String>,
}

/// Values by VM id and key. The compare-and-swap counter is one for the whole process.
#[derive(Default)]
pub(crate) struct SharedData {
    values: BTreeMap<(Vec<u8>, Vec<u8>), Versioned>,
    last_cas: u32,
}

/// A value and its compare-and-swap number.
type Versioned = (Vec<u8>, u32);

/// Queues by number; a number stays with its name.
#[derive(Default)]
pub(crate) struct Queues {
    queues: BTreeMap<u32, Queue>,
}

struct Queue {
    vm_id: Vec<u8>,
    name: Vec<u8>,
    /// The last VM and root that registered, whoever enqueues.
    owner: (VmId, u32),
    values: VecDeque<Vec<u8>>,
}

/// What a dequeue found.
pub(crate) enum Dequeued {
    Value(Vec<u8>),
    Empty,
    Unknown,
}

// === impl SharedCell ===

impl SharedCell {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(Mutex::new(shared)))
    }

    /// To look at; the guard must be gone before the next one is taken.
    pub(crate) fn borrow(&self) -> MutexGuard<'_, Shared> {
        self.borrow_mut()
    }

    /// To change; the guard must be gone before the next one is taken.
    pub(crate) fn borrow_mut(&self) -> MutexGuard<'_, Shared> {
        // What a panicking thread left is whole: nothing here is changed in two steps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(start_unix_ns: u64, network: Network) -> Self {
        Self {
            now_ns: 0,
            start_unix_ns,
            events: EventQueue::default(),
            data: SharedData::default(),
            queues: Queues::default(),
            metrics: Metrics::default(),
            network,
            trace: Vec::new(),
            logs: Vec::new(),
            crash: None,
        }
    }

    pub(crate) fn now_unix_ns(&self) -> u64 {
        self.start_unix_ns.saturating_add(self.now_ns)
    }

    pub(crate) fn after(&mut self, delay_ns: u64, event: Event) {
        self.events.push(self.now_ns.saturating_add(delay_ns), event);
    }

    pub(crate) fn push_trace(&mut self, line: TraceLine) {
        if self.trace.len() < LINES_MAX {
            self.trace.push(line);
        }
    }

    pub(crate) fn push_log(&mut self, line: LogLine) {
        if self.logs.len() < LINES_MAX {
            self.logs.push(line);
        }
    }

    /// False for an unknown queue. Its owner hears of the value after the current callback.
    pub(crate) fn enqueue(&mut self, id: u32, value: Vec<u8>) -> bool {
        let Some(queue) = self.queues.queues.get_mut(&id) else {
            return false;
        };
        queue.values.push_back(value);
        let (vm, root) = queue.owner;
        self.after(0, Event::QueueReady { vm, root, queue: id });
        true
    }
}

// === impl SharedData ===

impl SharedData {
    pub(crate) fn get(&self, vm_id: &str, key: &[u8]) -> Option<Versioned> {
        self.values.get(&(vm_id.as_bytes().to_vec(), key.to_vec())).cloned()
    }

    /// False on a mismatch. Zero always overwrites, and a key that is not there accepts any number.
    pub(crate) fn set(&mut self, vm_id: &str, key: Vec<u8>, value: Vec<u8>, cas: u32) -> bool {
        let key = (vm_id.as_bytes().to_vec(), key);
        let mismatch = self.values.get(&key).is_some_and(|(_, stored)| cas != 0 && cas != *stored);
        if mismatch {
            return false;
        }
        // Zero means "no check", so it is never handed out.
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        self.values.insert(key, (value, self.last_cas));
        true
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.values.iter().map(|((_, key), (value, _))| (key.clone(), value.clone())).collect()
    }
}

// === impl Queues ===

impl Queues {
    pub(crate) fn register(&mut self, vm_id: &str, name: &[u8], vm: VmId, root: u32) -> u32 {
        let id = self.resolve(vm_id.as_bytes(), name).unwrap_or_else(|| self.next_id());
        let queue = self.queues.entry(id).or_insert_with(|| Queue {
            vm_id: vm_id.as_bytes().to_vec(),
            name: name.to_vec(),
            owner: (vm, root),
            values: VecDeque::new(),
        });
        queue.owner = (vm, root);
        id
    }

    pub(crate) fn resolve(&self, vm_id: &[u8], name: &[u8]) -> Option<u32> {
        self.queues
            .iter()
            .find(|(_, queue)| queue.vm_id == vm_id && queue.name == name)
            .map(|(id, _)| *id)
    }

    pub(crate) fn dequeue(&mut self, id: u32) -> Dequeued {
        match self.queues.get_mut(&id) {
            None => Dequeued::Unknown,
            Some(queue) => queue.values.pop_front().map_or(Dequeued::Empty, Dequeued::Value),
        }
    }

    fn next_id(&self) -> u32 {
        self.queues.last_key_value().map_or(1, |(id, _)| id.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_accepts_any_cas_and_zero_always_overwrites() {
        let mut data = SharedData::default();
        assert!(data.set("vm", b"k".to_vec(), b"a".to_vec(), 77));
        assert_eq!(data.get("vm", b"k"), Some((b"a".to_vec(), 1)));
        assert!(!data.set("vm", b"k".to_vec(), b"b".to_vec(), 77));
        assert!(data.set("vm", b"k".to_vec(), Vec::new(), 0));
        assert_eq!(data.get("vm", b"k"), Some((Vec::new(), 2)));
        assert_eq!(data.get("other", b"k"), None);
        assert!(data.set("other", b"x".to_vec(), Vec::new(), 0));
        assert_eq!(data.get("other", b"x"), Some((Vec::new(), 3)));
    }
}
