//! `proxy_done`: a root that ends later than it was asked to. It must not know why a root ends.

use super::vm::Vm;
use super::vm_state::VmState;

impl VmState {
    /// False where no root waits to be done. The root goes once the callback has returned.
    pub(crate) fn finish_done(&mut self) -> bool {
        let id = self.root_of(self.current);
        let Some(root) = self.roots.get_mut(&id).filter(|root| root.is_waiting_for_done) else {
            return false;
        };
        root.is_waiting_for_done = false;
        self.finished_roots.push(id);
        true
    }
}

impl Vm {
    /// Roots that said `proxy_done` in the last callback.
    pub(super) fn delete_finished_roots(&mut self) {
        for root in std::mem::take(&mut self.state_mut().finished_roots) {
            self.delete_root(root);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::host::testing::{traced, vm};
    use crate::host::vm::Vm;

    fn plugin(done: &str) -> String {
        format!(
            r#"(module (import "env" "proxy_done" (func $done (result i32)))
              (memory (export "memory") 1)
              (func (export "proxy_abi_version_0_2_1"))
              (func (export "malloc") (param i32) (result i32) (i32.const 1024))
              (func (export "proxy_on_done") (param i32) (result i32) {done})
              (func (export "proxy_on_queue_ready") (param i32 i32)
                (drop (call $done)) (drop (call $done)))
              (func (export "proxy_on_delete") (param i32)))"#
        )
    }

    fn start(vm: &mut Vm) -> u32 {
        let settings = Arc::clone(&vm.state().base);
        vm.start_root(settings).unwrap()
    }

    /// A callback and, as the process does it, what it left to do.
    fn queue_ready(vm: &mut Vm, root: u32) {
        vm.queue_ready(root, 1);
        vm.delete_finished_roots();
    }

    fn names(lines: &[(String, String)]) -> Vec<(&str, &str)> {
        lines.iter().map(|(name, status)| (name.as_str(), status.as_str())).collect()
    }

    #[test]
    fn a_root_that_is_done_goes_at_once() {
        let mut vm = vm(&plugin("(i32.const 1)"), None).unwrap();
        let root = start(&mut vm);
        vm.end_root(root);
        queue_ready(&mut vm, root);
        let done = [("proxy_on_done", "1"), ("proxy_on_delete", "")];
        assert_eq!(names(&traced(&vm)), done);
        assert!(vm.state().roots.is_empty());
    }

    #[test]
    fn a_root_that_is_not_done_stays_until_it_says_so() {
        let mut vm = vm(&plugin("(i32.const 0)"), None).unwrap();
        let root = start(&mut vm);
        vm.end_root(root);
        assert_eq!(names(&traced(&vm)), [("proxy_on_done", "0")]);
        assert!(vm.state().roots.contains_key(&root));
        queue_ready(&mut vm, root);
        let later = traced(&vm).split_off(1);
        let expected = [
            ("proxy_on_queue_ready", ""),
            ("proxy_done", "Ok"),
            ("proxy_done", "NotFound"),
            ("proxy_on_delete", ""),
        ];
        assert_eq!(names(&later), expected);
        assert!(vm.state().roots.is_empty());
    }

    /// Envoy has no such root to finish while it still asks.
    #[test]
    fn done_within_on_done_finds_nothing() {
        let mut vm = vm(&plugin("(drop (call $done)) (i32.const 1)"), None).unwrap();
        let root = start(&mut vm);
        vm.end_root(root);
        let expected =
            [("proxy_on_done", "1"), ("proxy_done", "NotFound"), ("proxy_on_delete", "")];
        assert_eq!(names(&traced(&vm)), expected);
    }
}
