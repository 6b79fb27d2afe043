//! Whether a VM's memory grows with its requests. It must not know why.
//!
//! Requests are counted where they end. After a warm-up of 64 the count doubles from window to window: 65 to 128, 129 to
//! 256, 257 to 512, and so on. Memory that is larger at the end of each of three windows in a row than at its start grows
//! with the requests; what a plugin sets up in its first requests does not. A window in which more requests were open at
//! once than ever before is excused, because each of them needs memory.

/// Requests that a plugin may take to set itself up.
const WARM_UP_REQUESTS: u64 = 64;
const WINDOWS_MIN: u32 = 3;

/// One VM's memory at the ends of windows.
#[derive(Debug, Default)]
pub(super) struct MemoryWatch {
    ended: u64,
    bytes_before: usize,
    open_max: usize,
    open_max_before: usize,
    /// Windows in a row that grew, and the memory before the first of them.
    grown: u32,
    bytes_first: usize,
}

/// Growth as it was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grown {
    pub(super) from_bytes: usize,
    pub(super) to_bytes: usize,
    pub(super) requests: u64,
}

impl MemoryWatch {
    /// A request ends, with the memory and the number of open requests at that moment.
    pub(super) fn request_ended(&mut self, bytes: usize, open: usize) -> Option<Grown> {
        self.ended += 1;
        self.open_max = self.open_max.max(open);
        let is_boundary = self.ended >= WARM_UP_REQUESTS && self.ended.is_power_of_two();
        if !is_boundary {
            return None;
        }
        // The warm-up, before which nothing was open, is excused like this, too.
        let is_excused = self.open_max > self.open_max_before;
        if !is_excused && bytes > self.bytes_before {
            if self.grown == 0 {
                self.bytes_first = self.bytes_before;
            }
            self.grown += 1;
        } else {
            self.grown = 0;
        }
        self.bytes_before = bytes;
        self.open_max_before = self.open_max;
        (self.grown >= WINDOWS_MIN).then_some(Grown {
            from_bytes: self.bytes_first,
            to_bytes: bytes,
            requests: self.ended,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request at which a plugin with this memory after its n-th request is found out.
    fn found_at(memory: impl Fn(u64) -> usize, open: impl Fn(u64) -> usize) -> Option<u64> {
        let mut watch = MemoryWatch::default();
        (1..=5_000)
            .find_map(|n| watch.request_ended(memory(n), open(n)))
            .map(|grown| grown.requests)
    }

    #[test]
    fn growth_counts_only_when_it_goes_on() {
        let one = |_| 1;
        let bytes = |n: u64| usize::try_from(n).unwrap();
        assert_eq!(found_at(bytes, one), Some(512));
        // Sixty-four bytes a request are a page in a thousand requests.
        assert_eq!(found_at(|n| bytes(n) / 1024, one), Some(4096));
        assert_eq!(found_at(|n| bytes(n.min(256)), one), None);
        assert_eq!(found_at(|n| if n < 200 { 7 } else { bytes(n.min(500)) }, one), None);
        assert_eq!(found_at(bytes, bytes), None);
        assert_eq!(found_at(|_| 7, bytes), None);
    }
}
