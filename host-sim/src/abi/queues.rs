//! Imports for shared queues. It must not know when `on_queue_ready` runs.

use wasmtime::Linker;

use super::codes::Status;
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use crate::host::shared::Dequeued;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_register_shared_queue", register_queue, (name: u32, name_len: u32, out: u32));
    host_fn!(linker, "proxy_resolve_shared_queue", resolve, (vm: u32, vm_len: u32, name: u32, name_len: u32, out: u32));
    host_fn!(linker, "proxy_enqueue_shared_queue", enqueue, (id: u32, value: u32, value_len: u32));
    host_fn!(linker, "proxy_dequeue_shared_queue", dequeue, (id: u32, out: u32, out_len: u32));
    Ok(())
}

fn register_queue(guest: &mut Guest<'_, '_>, name: u32, name_len: u32, out: u32) -> HostResult {
    let name = guest.read(name, name_len)?;
    guest.note(|| String::from_utf8_lossy(&name).into_owned());
    let state = guest.state();
    let (vm, root) = (state.vm, state.root_of(state.current));
    let id = state.shared.borrow_mut().queues.register(&state.base.vm_id, &name, vm, root);
    guest.write_u32(out, id)
}

fn resolve(
    guest: &mut Guest<'_, '_>,
    vm: u32,
    vm_len: u32,
    name: u32,
    name_len: u32,
    out: u32,
) -> HostResult {
    let vm_id = guest.read(vm, vm_len)?;
    let name = guest.read(name, name_len)?;
    guest.note(|| String::from_utf8_lossy(&name).into_owned());
    let state = guest.state();
    let own = state.base.vm_id.as_bytes();
    let vm_id = if vm_id.is_empty() { own } else { &vm_id };
    let id = state.shared.borrow().queues.resolve(vm_id, &name).ok_or(Status::NotFound)?;
    guest.write_u32(out, id)
}

fn enqueue(guest: &mut Guest<'_, '_>, id: u32, value: u32, value_len: u32) -> HostResult {
    let value = guest.read(value, value_len)?;
    guest.note(|| format!("queue {id}, {} bytes", value.len()));
    if guest.state().shared.borrow_mut().enqueue(id, value) {
        Ok(())
    } else {
        Err(Status::NotFound.into())
    }
}

fn dequeue(guest: &mut Guest<'_, '_>, id: u32, out: u32, out_len: u32) -> HostResult {
    guest.note(|| format!("queue {id}"));
    let taken = guest.state().shared.borrow_mut().queues.dequeue(id);
    match taken {
        Dequeued::Value(value) => guest.give(&value, out, out_len),
        Dequeued::Empty => Err(Status::Empty.into()),
        Dequeued::Unknown => Err(Status::NotFound.into()),
    }
}
