//! How the lints of a run are shown. It must not decide what they mean for the result.

use std::io::Write;

use tidegate_host_sim::{LintName, Report};

/// The first lint of each name, and how many more there were.
pub(crate) fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    for name in LintName::ALL {
        let mut found = report.lints.iter().filter(|lint| lint.name == name);
        let Some(first) = found.next() else {
            continue;
        };
        writeln!(out, "  lint {first}")?;
        let more = found.count();
        if more > 0 {
            writeln!(out, "    and {more} more of {name}")?;
        }
    }
    Ok(())
}
