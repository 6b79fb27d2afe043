//! Owns docs/outage.md: what was let through in each phase, as a table. Knows no parts.

use std::fmt::Write as _;
use std::time::Duration;

use super::{ENVOYS, Fate, PHASES, RATE, Report};
use crate::puppet::Does;

const HEAD: &str = "# What three Envoys let through to an upstream that fails

Made by `make outage` on real parts: three Envoys of two workers each, a gateway, a Redis, one upstream; each Envoy is sent
";

const NOTES: &str = "
How to read it:

- **Let through** in each Envoy: answered well + failed, of what was sent. The rest was refused with 503 `circuit-open`, without a callout.
- **Last let through**: how long after the phase began the last request was sent that was let through and failed; while forced open, the last
  that was let through at all. Tests fail too while the upstream does: one request in the whole region every 8 to 12 s.
- **First refusal, first success**: how long after the phase began, in the slowest of the three. What came back is tested when the open time is
  over (8 to 12 s after the last failed test) and then three times in a row, a tick each.
- A request that hangs is a failure when its route gives up (1 s): what is on its way by then is let through, whatever a breaker does.
- **Half fails** answers 200 and 500 in turn: the region's window reaches 50 %, and of three tests in a row one always fails.
- **Forced open** and **reset** are orders to the gateway: every Envoy keeps to them with its next tick of 250 ms.

The figures are of one run on two busy cores, with the waits drawn at random.
";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut page = HEAD.to_owned();
    let mut put = |text: &str| page.push_str(text);
    put(&format!(
        "{RATE} requests per second by a timetable. The shipped numbers, but for the route's timeout of 1 s.\n\n![What each let through](outage.svg)\n\n"
    ));
    put(
        "| the upstream | for | Envoy 1: well + failed of sent | Envoy 2 | Envoy 3 | reached the upstream | last let through | first refusal | first success |\n",
    );
    put("|---|---|---|---|---|---|---|---|---|\n");
    for (nth, phase) in PHASES.iter().enumerate() {
        let mut row = format!("| {} | {} s |", phase.text, phase.lasts.as_secs());
        for envoy in 0..ENVOYS {
            let count = |fate| report.of(envoy, nth).filter(|one| one.fate == fate).count();
            let sent = report.of(envoy, nth).count();
            write!(row, " {} + {} of {sent} |", count(Fate::Well), count(Fate::Failed))
                .expect("a String takes everything");
        }
        write!(row, " {} |", report.reached[nth]).expect("a String takes everything");
        let since = |at: Duration| at.saturating_sub(report.began[nth]);
        let last = (0..ENVOYS).flat_map(|envoy| report.of(envoy, nth));
        let forced = phase.order == Some("force_open");
        let counts = |fate| fate == Fate::Failed || (forced && fate == Fate::Well);
        let last = last.filter(|one| counts(one.fate)).map(|one| since(one.sent)).max();
        let slowest = |fate| {
            let firsts = (0..ENVOYS).map(|envoy| {
                let mut of = report.of(envoy, nth);
                of.find(|one| one.fate == fate).map(|one| since(one.sent))
            });
            firsts.collect::<Option<Vec<_>>>().and_then(|firsts| firsts.into_iter().max())
        };
        let is_ill = phase.does != Does::Works || forced;
        let refusal = slowest(Fate::Refused).filter(|_| is_ill);
        let success = slowest(Fate::Well).filter(|_| !is_ill);
        for cell in [last, refusal, success] {
            let cell = cell.map_or("-".to_owned(), |at| format!("{:.2} s", at.as_secs_f64()));
            write!(row, " {cell} |").expect("a String takes everything");
        }
        put(&row);
        put("\n");
    }
    put(NOTES);
    page
}
