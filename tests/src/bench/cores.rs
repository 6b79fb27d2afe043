//! Owns which cores run what is measured and what measures: threads that change places cost what they find cold.

use std::fs;
use std::io;
use std::mem;

/// The thread that measures stays off the measured's core until this is dropped.
pub struct Apart {
    all: libc::cpu_set_t,
}

// === impl Apart ===

impl Apart {
    /// These processes on the first core that there is, this thread on the others; as they are where there is one.
    /// Who is `behind` the measured gives way to this thread, so that it asks as often whatever they have to do.
    pub fn keep(measured: &[u32], behind: &[u32]) -> io::Result<Self> {
        let mut all = none();
        // SAFETY: the set outlives the call, and is as long as it is said to be.
        let known = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&all), &raw mut all) };
        done(known)?;
        let mut cores = (0..libc::CPU_SETSIZE as usize).filter(|core| has(&all, *core));
        let (mut first, mut others) = (none(), none());
        cores.by_ref().take(1).for_each(|core| add(&mut first, core));
        let mut is_alone = true;
        for core in cores {
            add(&mut others, core);
            is_alone = false;
        }
        if !is_alone {
            for thread in threads(measured)? {
                stays(thread, &first)?;
            }
            for thread in threads(behind)? {
                stays(thread, &others)?;
                gives_way(thread)?;
            }
            stays(0, &others)?;
        }
        Ok(Self { all })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It was there before.
        let _back: io::Result<()> = stays(0, &self.all);
    }
}

fn none() -> libc::cpu_set_t {
    // SAFETY: a set of bits, of which none is set.
    unsafe { mem::zeroed() }
}

fn has(set: &libc::cpu_set_t, core: usize) -> bool {
    // SAFETY: the set is whole, the core below its size.
    unsafe { libc::CPU_ISSET(core, set) }
}

fn add(set: &mut libc::cpu_set_t, core: usize) {
    // SAFETY: the set is whole, the core below its size.
    unsafe { libc::CPU_SET(core, set) }
}

fn threads(of: &[u32]) -> io::Result<Vec<i32>> {
    let mut threads = Vec::new();
    for pid in of {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.file_name().to_string_lossy().parse();
            threads.push(thread.map_err(io::Error::other)?);
        }
    }
    Ok(threads)
}

/// It runs when nobody else wants to, for as long as it lives.
fn gives_way(thread: i32) -> io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter outlives the call.
    done(unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const none) })
}

/// 0: this thread.
fn stays(thread: i32, on: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the set outlives the call, and is as long as it is said to be.
    done(unsafe { libc::sched_setaffinity(thread, mem::size_of_val(on), on) })
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
