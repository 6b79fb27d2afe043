//! Owns the state of one VM: contexts with their programs, which rule of a program fits an event,
//! and the log line of each. It must not know any single host call.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use crate::args::{Place, Registers};
use crate::{imports, ops};

thread_local! {
    static VM: RefCell<Vm> = RefCell::new(Vm::default());
}

#[derive(Default)]
struct Vm {
    /// Differs from VM to VM, so that lines of several can be told apart.
    instance: u64,
    contexts: BTreeMap<u32, Context>,
    calls: BTreeMap<u32, u32>,
    registers: Registers,
}

#[derive(Default)]
struct Context {
    /// 0 for a root context.
    parent: u32,
    program: Option<Rc<Value>>,
    path: String,
    counts: BTreeMap<&'static str, u64>,
}

/// One callback.
pub(crate) struct Event {
    name: &'static str,
    context: u32,
    id: Option<u32>,
    size: Option<u32>,
    eos: Option<bool>,
}

// === impl Event ===

impl Event {
    pub(crate) fn new(name: &'static str, context: u32) -> Self {
        Self { name, context, id: None, size: None, eos: None }
    }

    pub(crate) fn sized(self, size: u32) -> Self {
        Self { size: Some(size), ..self }
    }

    pub(crate) fn ends(self, eos: u32) -> Self {
        Self { eos: Some(eos != 0), ..self }
    }

    pub(crate) fn numbered(self, id: u32) -> Self {
        Self { id: Some(id), ..self }
    }

    fn text(&self) -> String {
        let mut words = Vec::new();
        if let Some(id) = self.id {
            words.push(format!("id {id}"));
        }
        if let Some(size) = self.size {
            words.push(size.to_string());
        }
        if self.eos == Some(true) {
            words.push("eos".to_owned());
        }
        format!("{}({})", self.name, words.join(", "))
    }
}

// === callbacks ===

pub(crate) fn create(context: u32, parent: u32) {
    with(|vm| {
        if vm.contexts.is_empty() {
            // SAFETY: the target outlives the call. A refusal leaves 0, which is an id, too.
            let _status = unsafe { imports::proxy_get_current_time_nanoseconds(&mut vm.instance) };
        }
        let program = vm.contexts.get(&parent).and_then(|parent| parent.program.clone());
        vm.contexts.insert(context, Context { parent, program, ..Context::default() });
    });
    run(&Event::new("context_create", context).numbered(parent), 0);
}

pub(crate) fn start(root: u32, size: u32) -> u32 {
    const VM_CONFIG: u32 = 6;
    load(root, VM_CONFIG, size);
    run(&Event::new("vm_start", root).sized(size), 1)
}

pub(crate) fn configure(root: u32, size: u32) -> u32 {
    const PLUGIN_CONFIG: u32 = 7;
    load(root, PLUGIN_CONFIG, size);
    run(&Event::new("configure", root).sized(size), 1)
}

/// Keeps the stream's path for the rules that ask for it.
pub(crate) fn request_headers(context: u32) {
    let path = ops::path();
    with(|vm| {
        if let Some(known) = vm.contexts.get_mut(&context) {
            known.path = path;
        }
    });
}

/// The answer is told as the caller's, and the calls of its rule are about the caller.
pub(crate) fn http_call_response(root: u32, token: u32, [headers, body, trailers]: [u32; 3]) {
    let caller = with(|vm| vm.calls.get(&token).copied()).flatten().unwrap_or(root);
    let line = format!(
        "http_call_response(token {token}, {headers} headers, {body} bytes, {trailers} trailers)"
    );
    log(caller, &line);
    if caller != root {
        let status = ops::effective_context(caller);
        log(caller, &format!("  effective_context({caller}) = {status}"));
    }
    let event = Event::new("http_call_response", caller).numbered(token);
    carry_out(&event, 0);
}

pub(crate) fn queue_ready(root: u32, queue: u32) {
    with(|vm| vm.registers.queue = queue);
    run(&Event::new("queue_ready", root), 0);
}

pub(crate) fn delete(context: u32) {
    with(|vm| vm.contexts.remove(&context));
}

/// Logs an event and carries out the rule that fits; gives what the rule returns.
pub(crate) fn run(event: &Event, default: u32) -> u32 {
    log(event.context, &event.text());
    carry_out(event, default)
}

fn carry_out(event: &Event, default: u32) -> u32 {
    let Some((calls, place)) = with(|vm| vm.calls_for(event)).flatten() else {
        return default;
    };
    let names = with(|vm| vm.names(event.context)).unwrap_or_default();
    let mut answer = default;
    for call in &calls {
        let values = call.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut registers = with(|vm| vm.registers.clone()).unwrap_or_default();
        let done = ops::call(values, &mut registers, place, &names);
        with(|vm| {
            if registers.token != vm.registers.token {
                vm.calls.insert(registers.token, place.context);
            }
            vm.registers = registers;
        });
        if let Some(returned) = done.returned {
            answer = returned;
        }
        log(place.context, &format!("  {}", done.line));
    }
    answer
}

// === impl Vm ===

impl Vm {
    fn root_of(&self, context: u32) -> u32 {
        match self.contexts.get(&context) {
            Some(known) if known.parent != 0 => known.parent,
            _ => context,
        }
    }

    fn names(&self, context: u32) -> Value {
        let program = self.contexts.get(&context).and_then(|context| context.program.as_ref());
        program.and_then(|program| program.get("names")).cloned().unwrap_or_default()
    }

    fn calls_for(&mut self, event: &Event) -> Option<(Vec<Value>, Place)> {
        let place = Place { context: event.context, root: self.root_of(event.context) };
        let context = self.contexts.get_mut(&event.context)?;
        let count = context.counts.entry(event.name).or_default();
        *count += 1;
        let (nth, path) = (*count, context.path.as_str());
        let rules = context.program.as_ref()?.get(event.name)?;
        let rules = rules.as_array()?;
        if rules.first().is_some_and(Value::is_array) {
            return Some((rules.clone(), place));
        }
        let fits = |rule: &&Value| {
            let is = |key: &str, seen: Value| rule.get(key).is_none_or(|wanted| *wanted == seen);
            is("nth", nth.into())
                && is("path", path.into())
                && is("eos", event.eos.unwrap_or(false).into())
                && is("token", event.id.unwrap_or(0).into())
        };
        let rule = rules.iter().find(fits)?;
        let calls = rule.get("do").and_then(Value::as_array).cloned().unwrap_or_default();
        Some((calls, place))
    }
}

fn load(root: u32, buffer: u32, size: u32) {
    let text = ops::buffer(buffer, size);
    let program = serde_json::from_slice::<Value>(&text).ok().map(Rc::new);
    with(|vm| {
        if let Some(context) = vm.contexts.get_mut(&root) {
            context.program = program;
        }
    });
}

/// One line: which VM, which plugin, which kind of context, which context, what.
fn log(context: u32, text: &str) {
    let mut line = String::new();
    with(|vm| {
        let program = vm.contexts.get(&context).and_then(|context| context.program.as_ref());
        let tag = program.and_then(|program| program.get("tag")?.as_str()).unwrap_or("-");
        let is_root = vm.contexts.get(&context).is_none_or(|known| known.parent == 0);
        let kind = if is_root { "root" } else { "stream" };
        line = format!("@{} {tag} {kind} {context} {text}", vm.instance);
    });
    ops::log(&line);
}

/// `None` if the state is in use, which only a host that calls back from a host call can cause.
fn with<T>(work: impl FnOnce(&mut Vm) -> T) -> Option<T> {
    VM.with(|vm| vm.try_borrow_mut().ok().map(|mut vm| work(&mut vm)))
}
