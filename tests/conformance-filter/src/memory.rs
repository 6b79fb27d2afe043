//! Owns the memory that the host asks for, and the values that it hands over in it.

use std::alloc::{Layout, alloc};

/// Memory for a value of the host's; null if there is none left.
pub(crate) fn allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the layout's size is not zero.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        Ok(_) | Err(_) => std::ptr::null_mut(),
    }
}

/// Where the host writes a value's place.
pub(crate) struct Returned {
    pub(crate) data: *mut u8,
    pub(crate) size: usize,
}

// === impl Returned ===

impl Returned {
    pub(crate) fn nothing() -> Self {
        Self { data: std::ptr::null_mut(), size: 0 }
    }

    /// The value, owned. Only after a call that answered OK.
    pub(crate) fn take(self) -> Vec<u8> {
        if self.data.is_null() || self.size == 0 {
            return Vec::new();
        }
        // SAFETY: the host allocated exactly `size` bytes by `allocate` for this call, wrote all of
        // them, and keeps no pointer; align 1 and capacity = size match `allocate`'s layout.
        unsafe { Vec::from_raw_parts(self.data, self.size, self.size) }
    }
}
