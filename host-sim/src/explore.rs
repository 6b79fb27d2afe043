//! Runs a scenario once, or in many interleavings until one fails. It must not know what a run is.

use crate::report::Report;
use crate::runner::RunError;
use crate::world::schedule::{Interleavings, Schedule};

/// The first report that failed, or the last one.
pub(crate) fn explore(
    interleavings: Option<&Interleavings>,
    seed: u64,
    mut run: impl FnMut(Option<Schedule>) -> Result<(Report, Option<Schedule>), RunError>,
) -> Result<Report, RunError> {
    let Some(interleavings) = interleavings else {
        return Ok(run(None)?.0);
    };
    let mut runs = 0;
    let mut next = Some(Schedule::given(Vec::new()));
    if let Interleavings::One(choices) = interleavings {
        next = Some(Schedule::given(choices.clone()));
    }
    loop {
        if let Interleavings::Seeded { .. } = interleavings {
            next = Some(Schedule::seeded(seed, runs));
        }
        let (mut report, schedule) = run(next.take())?;
        runs += 1;
        report.interleavings = runs;
        let (choices, following) = match schedule {
            Some(schedule) => (schedule.choices(), schedule.next()),
            None => (Vec::new(), None),
        };
        report.choices = choices;
        let is_last = match interleavings {
            Interleavings::One(_) => true,
            Interleavings::Seeded { runs: wanted } => runs >= *wanted,
            Interleavings::All { runs_max } => {
                if following.is_some() && runs >= *runs_max {
                    report.give_up(*runs_max);
                }
                following.is_none() || runs >= *runs_max
            }
        };
        if is_last || !report.passed() {
            return Ok(report);
        }
        next = following.map(Schedule::given);
    }
}
