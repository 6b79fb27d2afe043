//! Owns the verdict on one scenario: two transcripts, and whether they may differ. It must not run
//! anything.

use super::corpus::Case;
use super::record::{Entry, Lane};
use super::simulated::{DIES, Simulated};
use super::transcript::{Transcript, moments};

/// What came of one scenario.
#[derive(Debug)]
pub struct Judged {
    /// The scenario's place in the files.
    pub id: String,
    /// The scenario's name.
    pub name: String,
    /// The simulator's transcript.
    pub simulator: Transcript,
    /// Envoy's transcript.
    pub envoy: Transcript,
    /// Why the transcripts may differ, if they may.
    pub exception: Option<String>,
}

// === impl Judged ===

impl Judged {
    pub(super) fn new(
        case: &Case,
        simulated: &Simulated,
        measured: Vec<Entry>,
        exception: Option<String>,
    ) -> Self {
        let moments = moments(&simulated.entries);
        Self {
            id: case.id.clone(),
            name: case.name.clone(),
            simulator: Transcript::new(&until_death(simulated.entries.clone()), &moments),
            envoy: Transcript::new(&until_death(measured), &moments),
            exception,
        }
    }

    /// Whether both runners say the same.
    pub fn agrees(&self) -> bool {
        self.simulator == self.envoy
    }

    /// Whether it is as it should be: the same, or different where that is accepted.
    pub fn passes(&self) -> bool {
        self.agrees() == self.exception.is_none()
    }

    /// Both transcripts in one text, as far as they differ.
    pub fn difference(&self) -> String {
        let diff = self.simulator.diff(&self.envoy);
        match self.agrees() {
            true => "its exception is not needed any more: take it out of EXCEPTIONS.md".to_owned(),
            false => format!("- simulator  + Envoy\n{diff}"),
        }
    }

    /// The verdict in a word.
    pub fn verdict(&self) -> &'static str {
        match (self.agrees(), &self.exception) {
            (true, None) => "same",
            (false, Some(_)) => "accepted",
            (false, None) => "DIFFERENT",
            (true, Some(_)) => "NO EXCEPTION",
        }
    }
}

/// Of a host that dies only what led to it is told: what was still on its way to clients, and what
/// Envoy did between the deadly call and its end, is chance.
fn until_death(mut entries: Vec<Entry>) -> Vec<Entry> {
    if !entries.iter().any(|entry| entry.text == DIES) {
        return entries;
    }
    let is_deadly = |text: &str| {
        ["  reply(", "  close(", "  continue("].iter().any(|call| text.starts_with(call))
    };
    let mut is_over = false;
    entries.retain(|entry| match entry.lane {
        Lane::Client { .. } | Lane::Root { .. } | Lane::Call { .. } => false,
        Lane::Stream { .. } => {
            let keeps = !is_over;
            is_over |= is_deadly(&entry.text);
            keeps
        }
        Lane::End => true,
    });
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_must_be_needed() {
        let told = |text: &str| Transcript { lines: vec![text.to_owned()] };
        let rows = [
            ("a", None, true, "same"),
            ("b", None, false, "DIFFERENT"),
            ("b", Some("so it is"), true, "accepted"),
            ("a", Some("so it was"), false, "NO EXCEPTION"),
        ];
        for (envoy, exception, passes, verdict) in rows {
            let judged = Judged {
                id: String::new(),
                name: String::new(),
                simulator: told("a"),
                envoy: told(envoy),
                exception: exception.map(str::to_owned),
            };
            assert_eq!((judged.passes(), judged.verdict()), (passes, verdict));
        }
    }
}
