//! Owns differences between rows over several starts of their Envoys: two that run the same differ by up to 1.5 µs a
//! request for as long as they live, however long they are measured.

use std::collections::BTreeMap;

use super::envoy_rows::{self, Effort, Load, Measured, Plan, Variables};
use super::stats::Figures;
use super::turns::Taken;

/// Envoys of each row one after the other.
pub(super) const STARTS: usize = 7;

/// What rows came to by turns, start by start.
#[derive(Default)]
pub(super) struct Starts(Vec<BTreeMap<&'static str, Taken>>);

// === impl Starts ===

impl Starts {
    /// Begins with rows that were measured already, and starts them anew until there are enough; `variables` are the
    /// gateway's of the start of that number.
    pub(super) async fn take(
        first: Vec<Measured>,
        plans: impl Fn() -> Vec<Plan>,
        variables: impl Fn(usize) -> Variables,
        effort: Effort,
        load: Load,
    ) -> Result<Self, String> {
        let mut starts = Self::default();
        starts.push(first);
        for start in 1..STARTS {
            let seed = effort.seed.wrapping_add(u64::try_from(start).expect("a few"));
            let short = Effort { rounds: 1, seed, ..effort };
            starts.push(envoy_rows::turns_anew(plans(), variables(start), short, load).await?);
        }
        Ok(starts)
    }

    /// What `with` takes of Envoy's CPU time for each request more than `without`, in µs: one figure a start, the
    /// median of its turns.
    pub(super) fn added_us(&self, with: &str, without: &str) -> Result<Figures, String> {
        self.each(with, without, |with, without| with.envoy_cpu_us.less(&without.envoy_cpu_us))
    }

    /// Requests a second of `with` ÷ those of `without`, in the same way.
    pub(super) fn rate(&self, with: &str, without: &str) -> Result<Figures, String> {
        self.each(with, without, |with, without| with.rps.over(&without.rps))
    }

    fn push(&mut self, rows: Vec<Measured>) {
        self.0.push(rows.into_iter().map(|row| (row.name, row.by_turns)).collect());
    }

    fn each(
        &self,
        with: &str,
        without: &str,
        compared: impl Fn(&Taken, &Taken) -> Figures,
    ) -> Result<Figures, String> {
        let mut figures = Figures::default();
        for rows in &self.0 {
            let row = |name: &str| rows.get(name).ok_or_else(|| format!("no row {name}"));
            figures.push(compared(row(with)?, row(without)?).median());
        }
        Ok(figures)
    }
}
