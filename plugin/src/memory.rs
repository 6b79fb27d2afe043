//! Owns the filter's memory: small blocks that were given back are kept by their size and handed out
//! again without a search. A request takes about forty of them, and the allocator below costs as much
//! for each as reading a header's value does. Knows nothing of what lies in a block.
//!
//! Nothing grows with requests: what is kept was in use before, and at most [`KEPT_MAX`] of each size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;

#[cfg_attr(target_arch = "wasm32", global_allocator)]
#[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "a native build only checks"))]
static MEMORY: Memory = Memory(UnsafeCell::new([const { List::NONE }; LISTS]));

/// Sizes are rounded up to a multiple of this, in bytes.
const STEP: usize = 16;
/// Larger blocks are not kept.
const SMALL_MAX: usize = 1_024;
const LISTS: usize = SMALL_MAX / STEP;
/// What is kept of one size, in bytes: 1 MiB in all.
const KEPT_MAX: usize = 16 * 1_024;
/// The alignment of every block; the allocator below gives it without an effort.
const ALIGN: usize = 8;

struct Memory(UnsafeCell<[List; LISTS]>);

/// Blocks of one size that nobody uses; each holds the place of the next.
#[derive(Clone, Copy)]
struct List {
    first: *mut u8,
    kept: usize,
}

// SAFETY: a proxy-wasm VM has one thread; nothing here calls anything that could allocate meanwhile.
unsafe impl Sync for Memory {}

// === impl List ===

impl List {
    const NONE: Self = Self { first: ptr::null_mut(), kept: 0 };
}

/// The list of a block, with the layout that it has below; `None` if it is not kept.
fn place(size: usize, align: usize) -> Option<(usize, Layout)> {
    let list = size.wrapping_sub(1) / STEP;
    if list >= LISTS || align > ALIGN {
        return None;
    }
    let whole = list.wrapping_add(1).wrapping_mul(STEP);
    Some((list, Layout::from_size_align(whole, ALIGN).ok()?))
}

// === impl Memory ===

// SAFETY: a block comes from `System` with the layout of its list, which is at least what was asked for,
// and goes back to it with the same; while it is in a list nobody else has it.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((place, whole)) = place(layout.size(), layout.align()) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: one thread, and the reference ends with this call.
        let lists = unsafe { &mut *self.0.get() };
        if let Some(list) = lists.get_mut(place)
            && !list.first.is_null()
        {
            let block = list.first;
            // SAFETY: a block in a list is at least [`STEP`] long, aligned, and begins with a pointer.
            list.first = unsafe { block.cast::<*mut u8>().read() };
            list.kept = list.kept.wrapping_sub(whole.size());
            return block;
        }
        // SAFETY: the size of a list's blocks is not zero.
        unsafe { System.alloc(whole) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((place, whole)) = place(layout.size(), layout.align()) else {
            // SAFETY: a block of this layout came from `System` as it is.
            return unsafe { System.dealloc(block, layout) };
        };
        // SAFETY: one thread, and the reference ends with this call.
        let lists = unsafe { &mut *self.0.get() };
        if let Some(list) = lists.get_mut(place)
            && list.kept < KEPT_MAX
        {
            // SAFETY: nobody uses the block any more; it is long and aligned enough for a pointer.
            unsafe { block.cast::<*mut u8>().write(list.first) };
            list.first = block;
            list.kept = list.kept.wrapping_add(whole.size());
            return;
        }
        // SAFETY: that is the layout it came with.
        unsafe { System.dealloc(block, whole) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (now, then) = (place(layout.size(), layout.align()), place(size, layout.align()));
        match (now, then) {
            // SAFETY: a block of this layout came from `System` as it is, and so would the new one.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (Some(now), Some(then)) if now == then => block,
            _ => {
                // SAFETY: the caller promises a size that such a layout may have.
                let larger = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
                // SAFETY: the size is not zero, by the caller's promise.
                let to = unsafe { self.alloc(larger) };
                if !to.is_null() {
                    // SAFETY: both are that long, and a fresh block overlaps with none.
                    unsafe { ptr::copy_nonoverlapping(block, to, layout.size().min(size)) };
                    // SAFETY: the caller gives the block up.
                    unsafe { self.dealloc(block, layout) };
                }
                to
            }
        }
    }
}
