//! A run as a Mermaid sequence diagram. It must not show more than a page can hold: host calls that only read are left out.

use std::collections::BTreeSet;
use std::io::{Result, Write};

use tidegate_host_sim::{Report, TraceKind, TraceLine};

/// Writes the diagram: clients, the host, and every VM that was called.
pub(crate) fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    let shown: Vec<_> = report.trace.iter().filter(|line| is_shown(line)).collect();
    writeln!(out, "sequenceDiagram")?;
    let clients: BTreeSet<_> = shown.iter().filter_map(|line| client(line)).collect();
    for client in clients {
        writeln!(out, "  actor {} as {}", id(client), text(client))?;
    }
    writeln!(out, "  participant host as Envoy")?;
    let vms: BTreeSet<_> = shown.iter().map(|line| &line.vm).filter(|vm| !vm.is_empty()).collect();
    for vm in vms {
        writeln!(out, "  participant {}", id(vm))?;
    }
    for line in shown {
        let answer =
            if line.status.is_empty() { String::new() } else { format!(" → {}", line.status) };
        let what = text(&format!("{} {}{answer}", line.name, line.args));
        match line.kind {
            TraceKind::Callback => writeln!(out, "  host->>{}: {what}", id(&line.vm))?,
            TraceKind::HostCall => writeln!(out, "  {}-->>host: {what}", id(&line.vm))?,
            TraceKind::World => {
                let who = client(line).map_or_else(|| "host".to_owned(), id);
                let what = text(&line.args);
                if line.args.starts_with("gets") {
                    writeln!(out, "  host->>{who}: {what}")?;
                } else {
                    writeln!(out, "  {who}->>host: {what}")?;
                }
            }
        }
    }
    Ok(())
}

/// The canary only tries the configuration; getters and the log would bury the rest.
fn is_shown(line: &TraceLine) -> bool {
    line.vm != "canary" && !line.name.starts_with("proxy_get_") && line.name != "proxy_log"
}

fn client(line: &TraceLine) -> Option<&str> {
    line.name.strip_prefix("client ").filter(|_| line.kind == TraceKind::World)
}

/// A name Mermaid takes for a participant; the prefix keeps it off Mermaid's own words, such as `end`.
fn id(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("p_{}", name.chars().map(kept).collect::<String>())
}

/// A text on one line, without what Mermaid reads as its own.
fn text(text: &str) -> String {
    let kept = |c: char| if c.is_control() || ";#<>".contains(c) { ' ' } else { c };
    text.trim().chars().map(kept).collect()
}
