//! The WASI preview1 calls that must link and do nothing: files, sockets, waiting. It must not answer anything but a number.
//!
//! Numbers and arguments are those that Envoy 1.40 gave and took when each was called there. Three of them take other
//! arguments than WASI says (`path_link`, `path_symlink`, `sock_accept`), and `proc_raise` does not exist: a plugin that
//! needs those does not load in Envoy, and so it does not load here.

use wasmtime::{Caller, Linker};

use super::guest::allow_in_stage;
use crate::host::vm_state::VmState;

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const EXIST: u32 = 20;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;

macro_rules! stub {
    ($linker:expr, $module:expr, $errno:expr, $name:literal, ($($ty:ty),*)) => {
        $linker.func_wrap($module, $name, |caller: Caller<'_, VmState>, $(_: $ty),*| -> wasmtime::Result<u32> {
            allow_in_stage(caller.data().stage, $name)?;
            Ok($errno)
        })?
    };
}

pub(crate) fn register(linker: &mut Linker<VmState>, module: &str) -> wasmtime::Result<()> {
    register_files(linker, module)?;
    register_paths(linker, module)?;
    stub!(linker, module, SUCCESS, "sched_yield", ());
    stub!(linker, module, SUCCESS, "poll_oneoff", (u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "sock_accept", (u32, u32, u32));
    stub!(linker, module, NOTSUP, "sock_recv", (u32, u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "sock_send", (u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "sock_shutdown", (u32, u32));
    Ok(())
}

fn register_files(linker: &mut Linker<VmState>, module: &str) -> wasmtime::Result<()> {
    stub!(linker, module, SUCCESS, "fd_advise", (u32, u64, u64, u32));
    stub!(linker, module, SUCCESS, "fd_allocate", (u32, u64, u64));
    stub!(linker, module, SUCCESS, "fd_close", (u32));
    stub!(linker, module, SUCCESS, "fd_datasync", (u32));
    stub!(linker, module, NOSYS, "fd_fdstat_set_flags", (u32, u32));
    stub!(linker, module, SUCCESS, "fd_fdstat_set_rights", (u32, u64, u64));
    stub!(linker, module, BADF, "fd_filestat_get", (u32, u32));
    stub!(linker, module, SUCCESS, "fd_filestat_set_size", (u32, u64));
    stub!(linker, module, SUCCESS, "fd_filestat_set_times", (u32, u64, u64, u32));
    stub!(linker, module, NOSYS, "fd_pread", (u32, u32, u32, u64, u32));
    // No directory is open: this ends a C library's search for them.
    stub!(linker, module, BADF, "fd_prestat_get", (u32, u32));
    stub!(linker, module, NOSYS, "fd_prestat_dir_name", (u32, u32, u32));
    stub!(linker, module, SUCCESS, "fd_pwrite", (u32, u32, u32, u64, u32));
    stub!(linker, module, NOSYS, "fd_read", (u32, u32, u32, u32));
    stub!(linker, module, EXIST, "fd_readdir", (u32, u32, u32, u64, u32));
    stub!(linker, module, NOTSUP, "fd_renumber", (u32, u32));
    stub!(linker, module, SUCCESS, "fd_seek", (u32, u64, u32, u32));
    stub!(linker, module, SUCCESS, "fd_sync", (u32));
    stub!(linker, module, SUCCESS, "fd_tell", (u32, u32));
    Ok(())
}

fn register_paths(linker: &mut Linker<VmState>, module: &str) -> wasmtime::Result<()> {
    stub!(linker, module, NOTSUP, "path_create_directory", (u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_filestat_get", (u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_filestat_set_times", (u32, u32, u32, u32, u64, u64, u32));
    stub!(linker, module, NOTSUP, "path_link", (u32, u32, u32, u32, u32, u32));
    stub!(linker, module, NOENT, "path_open", (u32, u32, u32, u32, u32, u64, u64, u32, u32));
    stub!(linker, module, NOTSUP, "path_readlink", (u32, u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_remove_directory", (u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_rename", (u32, u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_symlink", (u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_unlink_file", (u32, u32, u32));
    Ok(())
}
