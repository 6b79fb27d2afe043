//! The end of a root context: `proxy_on_done`, the wait for `proxy_done`, `proxy_on_delete`. It must not know why it ends.

use super::vm::{Called, Vm};
use super::vm_state::VmState;

impl VmState {
    /// `proxy_done`: false where no root waits for it. The root goes once the callback has returned.
    pub(crate) fn finish_done(&mut self) -> bool {
        let root = self.root_of(self.current);
        let waits = self.waiting_roots.remove(&root);
        if waits {
            self.finished_roots.push(root);
        }
        waits
    }
}

impl Vm {
    /// Ends a root, at once or when it says that it is done.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "a root ends with a configuration update, which no world does yet"
        )
    )]
    pub(crate) fn retire_root(&mut self, root: u32) {
        if !self.state().roots.contains_key(&root) {
            return;
        }
        let done = self.exports.done.clone();
        let answer = self.call("proxy_on_done", root, done, root, String::new);
        self.apply_after();
        if answer == Called::Returned(0) {
            self.state_mut().waiting_roots.insert(root);
        } else {
            self.delete_root(root);
        }
    }

    /// Roots that said `proxy_done` in the last callback.
    pub(super) fn delete_finished_roots(&mut self) {
        for root in std::mem::take(&mut self.state_mut().finished_roots) {
            self.delete_root(root);
        }
    }

    fn delete_root(&mut self, root: u32) {
        let delete = self.exports.delete.clone();
        self.call("proxy_on_delete", root, delete, root, String::new);
        let state = self.state_mut();
        state.after.clear();
        state.roots.remove(&root);
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::{traced, vm};

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

    fn names(lines: &[(String, String)]) -> Vec<(&str, &str)> {
        lines.iter().map(|(name, status)| (name.as_str(), status.as_str())).collect()
    }

    #[test]
    fn a_root_that_is_done_goes_at_once() {
        let mut vm = vm(&plugin("(i32.const 1)"), None).unwrap();
        let root = vm.start_root().unwrap();
        vm.retire_root(root);
        vm.retire_root(root);
        vm.queue_ready(root, 1);
        let done = [
            ("proxy_on_done", "1"),
            ("proxy_on_delete", ""),
            ("proxy_on_queue_ready", ""),
            ("proxy_done", "NotFound"),
            ("proxy_done", "NotFound"),
        ];
        assert_eq!(names(&traced(&vm)), done);
        assert!(vm.state().roots.is_empty());
    }

    #[test]
    fn a_root_that_is_not_done_stays_until_it_says_so() {
        let mut vm = vm(&plugin("(i32.const 0)"), None).unwrap();
        let root = vm.start_root().unwrap();
        vm.retire_root(root);
        assert_eq!(names(&traced(&vm)), [("proxy_on_done", "0")]);
        assert!(vm.state().roots.contains_key(&root));
        vm.queue_ready(root, 1);
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
        let root = vm.start_root().unwrap();
        vm.retire_root(root);
        let expected =
            [("proxy_on_done", "1"), ("proxy_done", "NotFound"), ("proxy_on_delete", "")];
        assert_eq!(names(&traced(&vm)), expected);
    }
}
