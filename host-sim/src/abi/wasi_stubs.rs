//! The WASI preview1 calls that must link and always refuse: files, sockets, signals. It must not answer anything but an error.

use wasmtime::Linker;

use crate::host::vm_state::VmState;

const BADF: u32 = 8;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;

macro_rules! stub {
    ($linker:expr, $module:expr, $errno:expr, $name:literal, ($($ty:ty),*)) => {
        $linker.func_wrap($module, $name, |$(_: $ty),*| -> u32 { $errno })?
    };
}

pub(crate) fn register(linker: &mut Linker<VmState>, module: &str) -> wasmtime::Result<()> {
    register_files(linker, module)?;
    register_paths(linker, module)?;
    // Nothing else could run meanwhile.
    stub!(linker, module, 0, "sched_yield", ());
    stub!(linker, module, NOSYS, "poll_oneoff", (u32, u32, u32, u32));
    stub!(linker, module, NOSYS, "proc_raise", (u32));
    stub!(linker, module, NOSYS, "sock_accept", (u32, u32, u32));
    stub!(linker, module, NOSYS, "sock_recv", (u32, u32, u32, u32, u32, u32));
    stub!(linker, module, NOSYS, "sock_send", (u32, u32, u32, u32, u32));
    stub!(linker, module, NOSYS, "sock_shutdown", (u32, u32));
    Ok(())
}

fn register_files(linker: &mut Linker<VmState>, module: &str) -> wasmtime::Result<()> {
    stub!(linker, module, NOTSUP, "fd_advise", (u32, u64, u64, u32));
    stub!(linker, module, NOTSUP, "fd_allocate", (u32, u64, u64));
    stub!(linker, module, BADF, "fd_close", (u32));
    stub!(linker, module, NOTSUP, "fd_datasync", (u32));
    stub!(linker, module, NOTSUP, "fd_fdstat_set_flags", (u32, u32));
    stub!(linker, module, NOTSUP, "fd_fdstat_set_rights", (u32, u64, u64));
    stub!(linker, module, BADF, "fd_filestat_get", (u32, u32));
    stub!(linker, module, NOTSUP, "fd_filestat_set_size", (u32, u64));
    stub!(linker, module, NOTSUP, "fd_filestat_set_times", (u32, u64, u64, u32));
    stub!(linker, module, BADF, "fd_pread", (u32, u32, u32, u64, u32));
    stub!(linker, module, BADF, "fd_prestat_get", (u32, u32));
    stub!(linker, module, BADF, "fd_prestat_dir_name", (u32, u32, u32));
    stub!(linker, module, BADF, "fd_pwrite", (u32, u32, u32, u64, u32));
    stub!(linker, module, BADF, "fd_read", (u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "fd_readdir", (u32, u32, u32, u64, u32));
    stub!(linker, module, NOTSUP, "fd_renumber", (u32, u32));
    stub!(linker, module, BADF, "fd_seek", (u32, u64, u32, u32));
    stub!(linker, module, NOTSUP, "fd_sync", (u32));
    stub!(linker, module, BADF, "fd_tell", (u32, u32));
    Ok(())
}

fn register_paths(linker: &mut Linker<VmState>, module: &str) -> wasmtime::Result<()> {
    stub!(linker, module, NOTSUP, "path_create_directory", (u32, u32, u32));
    stub!(linker, module, NOENT, "path_filestat_get", (u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_filestat_set_times", (u32, u32, u32, u32, u64, u64, u32));
    stub!(linker, module, NOTSUP, "path_link", (u32, u32, u32, u32, u32, u32, u32));
    stub!(linker, module, NOENT, "path_open", (u32, u32, u32, u32, u32, u64, u64, u32, u32));
    stub!(linker, module, NOTSUP, "path_readlink", (u32, u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_remove_directory", (u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_rename", (u32, u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_symlink", (u32, u32, u32, u32, u32));
    stub!(linker, module, NOTSUP, "path_unlink_file", (u32, u32, u32));
    Ok(())
}
