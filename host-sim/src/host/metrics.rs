//! Metrics of the process and their ids in one VM. It must not know how a metric is exported.

use std::collections::BTreeMap;

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Counter,
            1 => Self::Gauge,
            2 => Self::Histogram,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Ids of one VM: the kind in the low bits, and a new id for each definition, also of a known name.
#[derive(Default)]
pub(crate) struct MetricIds {
    names: BTreeMap<u32, (MetricKind, String)>,
    defined: BTreeMap<MetricKind, u32>,
}

impl MetricIds {
    pub(crate) fn define(&mut self, kind: MetricKind, name: &str) -> u32 {
        const STEP: u32 = 4;
        let count = self.defined.entry(kind).or_default();
        *count = count.saturating_add(1);
        let id = count.saturating_mul(STEP) | kind as u32;
        self.names.insert(id, (kind, name.to_owned()));
        id
    }

    pub(crate) fn find(&self, id: u32) -> Option<(MetricKind, String)> {
        self.names.get(&id).cloned()
    }
}

/// Values of the process: every VM that defines a name shares its value.
#[derive(Default)]
pub(crate) struct Metrics {
    values: BTreeMap<(String, MetricKind), u64>,
}

impl Metrics {
    /// True if nobody had defined it before.
    pub(crate) fn define(&mut self, kind: MetricKind, name: &str) -> bool {
        let count = self.values.len();
        self.values.entry((name.to_owned(), kind)).or_default();
        self.values.len() > count
    }

    /// False where Envoy refuses: a counter by nothing or less, and any histogram.
    pub(crate) fn increment(&mut self, kind: MetricKind, name: &str, delta: i64) -> bool {
        let allowed = match kind {
            MetricKind::Counter => delta > 0,
            MetricKind::Gauge => true,
            MetricKind::Histogram => false,
        };
        if allowed {
            let value = self.values.entry((name.to_owned(), kind)).or_default();
            *value = value.wrapping_add_signed(delta);
        }
        allowed
    }

    /// A counter adds what is recorded, a gauge takes it, a histogram counts one sample.
    pub(crate) fn record(&mut self, kind: MetricKind, name: &str, value: u64) {
        let current = self.values.entry((name.to_owned(), kind)).or_default();
        *current = match kind {
            MetricKind::Counter => current.wrapping_add(value),
            MetricKind::Gauge => value,
            MetricKind::Histogram => current.wrapping_add(1),
        };
    }

    /// A histogram has no single value to read.
    pub(crate) fn value(&self, kind: MetricKind, name: &str) -> Option<u64> {
        if kind == MetricKind::Histogram {
            return None;
        }
        self.values.get(&(name.to_owned(), kind)).copied()
    }

    /// Every metric by name; a histogram shows its number of samples.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
        self.values.iter().map(|((name, _), value)| (name.clone(), *value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_kind_and_grow_by_four() {
        let mut ids = MetricIds::default();
        let got: Vec<_> = [
            (MetricKind::Counter, "a"),
            (MetricKind::Counter, "a"),
            (MetricKind::Gauge, "g"),
            (MetricKind::Histogram, "h"),
        ]
        .map(|(kind, name)| ids.define(kind, name))
        .into();
        assert_eq!(got, [4, 8, 5, 6]);
    }

    #[test]
    fn a_counter_refuses_zero_and_less_and_a_gauge_goes_down() {
        let mut metrics = Metrics::default();
        assert!(metrics.increment(MetricKind::Counter, "c", 2));
        assert!(!metrics.increment(MetricKind::Counter, "c", 0));
        assert!(!metrics.increment(MetricKind::Counter, "c", -1));
        assert!(metrics.increment(MetricKind::Gauge, "g", 3));
        assert!(metrics.increment(MetricKind::Gauge, "g", -1));
        assert_eq!(metrics.value(MetricKind::Counter, "c"), Some(2));
        assert_eq!(metrics.value(MetricKind::Gauge, "g"), Some(2));
        assert!(!metrics.increment(MetricKind::Histogram, "h", 1));
    }
}
