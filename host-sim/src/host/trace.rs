//! What a run writes down: callbacks, host calls, log lines. It must not decide anything.

use std::fmt;

use crate::abi::codes::LogLevel;

/// Who did what a trace line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceKind {
    /// The host called the plugin.
    Callback,
    /// The plugin called the host.
    HostCall,
    /// Something outside the VMs: a client, an upstream, a service.
    World,
}

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceLine {
    /// Since the run began.
    pub at_ns: u64,
    /// `canary`, `main`, `w0`, `w1`, ... or empty for the world.
    pub vm: String,
    /// The context the line is about; 0 for none.
    pub context: u32,
    /// Who acted.
    pub kind: TraceKind,
    /// The callback's or host function's name.
    pub name: String,
    /// The arguments, short.
    pub args: String,
    /// What came back: a status, an action, a trap; empty for nothing.
    pub status: String,
}

/// One line of the plugin's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Since the run began.
    pub at_ns: u64,
    /// The VM that logged.
    pub vm: String,
    /// How bad it is.
    pub level: LogLevel,
    /// What was logged.
    pub message: String,
}

impl TraceKind {
    /// The kind's name in JSON traces.
    pub fn name(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::HostCall => "host_call",
            Self::World => "world",
        }
    }
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_ns, vm, context, name, args, status, .. } = self;
        let (vm, indent) = match self.kind {
            TraceKind::Callback => (vm.as_str(), ""),
            TraceKind::HostCall => (vm.as_str(), "  "),
            TraceKind::World => ("-", ""),
        };
        write!(f, "{:>12} {vm:<6} {context:>3} {indent}{name}", millis(*at_ns))?;
        if !args.is_empty() {
            write!(f, " {args}")?;
        }
        if !status.is_empty() {
            write!(f, " -> {status}")?;
        }
        Ok(())
    }
}

impl TraceLine {
    /// The line as one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "at_ns": self.at_ns, "vm": self.vm, "context": self.context, "kind": self.kind.name(),
            "name": self.name, "args": self.args, "status": self.status,
        })
        .to_string()
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>12} {:<6} {} {}",
            millis(self.at_ns),
            self.vm,
            self.level.name(),
            self.message
        )
    }
}

/// Nanoseconds as milliseconds with as many decimals as needed.
pub(crate) fn millis(ns: u64) -> String {
    let (whole, rest) = (ns / 1_000_000, ns % 1_000_000);
    if rest == 0 {
        format!("{whole}ms")
    } else {
        format!("{whole}.{}ms", format!("{rest:06}").trim_end_matches('0'))
    }
}
