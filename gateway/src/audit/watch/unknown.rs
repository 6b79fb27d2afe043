//! Owns for how long a signature by a key that this gateway does not know is no finding yet: a new key
//! reaches the gateways one after another, and the first signs with it at once. Knows no store.

use tidegate_policy::audit::verify::Report;

/// By then a key is everywhere, or somebody else's.
pub const HOLD_US: u64 = 300_000_000;

/// Since when there are such signatures.
#[derive(Default)]
pub struct Unknown {
    since_us: Option<u64>,
}

// === impl Unknown ===

impl Unknown {
    /// Whether what was found is no finding yet. Whatever else is wrong makes it one.
    pub fn holds_back(&mut self, reports: [&Report; 2], now_us: u64) -> bool {
        let Some(first) = reports.iter().find(|report| report.unknown_keys > 0) else {
            return false;
        };
        let since_us = *self.since_us.get_or_insert_with(|| {
            let detail = first.findings.first().map(|found| found.detail.as_str());
            tracing::warn!(
                seq = first.first_bad, detail,
                "a record was signed with a key that this gateway does not know; in five minutes that is a finding"
            );
            now_us
        });
        let only = reports.iter().all(|report| report.findings_total == report.unknown_keys);
        only && now_us.saturating_sub(since_us) < HOLD_US
    }

    /// All records were read, and every key is known.
    pub fn ended(&mut self) {
        self.since_us = None;
    }
}

/// Whether nothing else was found.
pub fn is_all(report: &Report) -> bool {
    report.findings_total > 0 && report.findings_total == report.unknown_keys
}
