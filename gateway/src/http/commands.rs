//! Owns how an operator's command is carried out and put on record, also when its caller has gone. Knows
//! no tokens.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tidegate_policy::audit::Action;
use tidegate_policy::reason::Reason;
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::connection::caught;
use super::operate::{Command, Done, Told};
use crate::audit::{Auditor, Happening};
use crate::metrics::SharedMetrics;
use crate::service::ServiceSettings;
use crate::service::breakers::Seen;
use crate::service::observed::Observed;
use crate::store::Stores;

/// So long a command waits until it is on record.
const ON_RECORD_WAIT: Duration = Duration::from_secs(5);
/// How a command ended that met a fault of ours.
const PANICKED: &str = "panicked";
/// And one that was not carried out, since it could not be put on record.
const REFUSED: &str = "refused";

/// Carries commands out.
pub struct Commands {
    /// What commands are read by.
    pub settings: ServiceSettings,
    /// Where they act.
    pub stores: Stores,
    /// Where they are put on record.
    pub auditor: Arc<Auditor>,
    /// Where faults of ours are counted.
    pub metrics: SharedMetrics,
    /// The limits that were asked about.
    pub observed: Arc<Observed>,
    /// The breakers that were.
    pub seen: Arc<Seen>,
    /// How many have begun and not ended.
    pub under_way: watch::Sender<usize>,
}

/// A command that has begun.
struct UnderWay(Arc<Commands>);

// === impl Commands ===

impl Commands {
    /// Carries one out for `actor`. It has a task of its own: once it has begun, a caller that hangs up ends
    /// neither it nor the record of how it ended.
    pub async fn carry_out(
        self: &Arc<Self>,
        actor: String,
        command: Command,
        body: Bytes,
    ) -> Answer {
        let under_way = UnderWay::begin(self);
        let task = tokio::spawn(async move { under_way.0.run(actor, command, &body).await });
        // Its own panics it has seen to: what is left is the end of the process.
        task.await.unwrap_or_else(|_cancelled| answer::panicked())
    }

    /// Waits until none is under way, at most that long. Returns whether it is so.
    pub async fn ended(&self, within: Duration) -> bool {
        let mut count = self.under_way.subscribe();
        let none = count.wait_for(|count| *count == 0);
        tokio::time::timeout(within, none).await.is_ok()
    }

    async fn run(&self, actor: String, command: Command, body: &[u8]) -> Answer {
        let ready = match command.read(body, &self.settings, &self.observed) {
            Ok(ready) => ready,
            Err(malformed) => return self.end(actor, Told::default(), *malformed).await,
        };
        let told = ready.told.clone();
        if command.changes() {
            let begun = event(actor.clone(), "begun", told.clone());
            if let Err(refusal) = self.on_record(begun).await {
                // That it was begun may reach the chain all the same: then it has an end there, too.
                self.auditor.record(event(actor, REFUSED, told));
                return *refusal;
            }
        }
        let done =
            caught(ready.run(&self.settings, &self.stores, &self.observed, &self.seen)).await;
        let done = done.unwrap_or_else(|| {
            self.metrics.panics.inc();
            tracing::error!(
                critical = true,
                detail = told.detail,
                "an operator's command panicked"
            );
            Done { answer: answer::panicked(), detail: told.detail.clone(), outcome: PANICKED }
        });
        self.end(actor, told, done).await
    }

    async fn end(&self, actor: String, told: Told, done: Done) -> Answer {
        let Done { answer, detail, outcome } = done;
        tracing::info!(actor, outcome, detail, "an operator's command");
        let ended = event(actor, outcome, Told { detail, ..told });
        if let Err(lost) = self.auditor.record_durably(ended, ON_RECORD_WAIT).await {
            // That it was begun is on record.
            tracing::error!(critical = true, %lost, "how an operator's command ended is not on record");
        }
        answer
    }

    /// Puts a command on record before it is carried out. Refused where that cannot be and the rule says
    /// so.
    async fn on_record(&self, begun: Happening) -> Result<(), Box<Answer>> {
        let must_record = self.auditor.trail().is_some_and(|trail| trail.must_record());
        let kept = self.auditor.record_durably(begun, ON_RECORD_WAIT).await;
        if !must_record || kept.is_ok() {
            return Ok(());
        }
        tracing::error!(
            critical = true,
            "an operator's command was refused: it cannot be put on record"
        );
        let told = "not carried out: neither the audit store nor the disk takes a record of it; make room in the folder of --audit-dir, or start with --audit-when-full drop";
        let reason = Reason::StoreUnavailable;
        Err(Box::new(answer::problem(StatusCode::SERVICE_UNAVAILABLE, reason, told, None)))
    }
}

fn event(actor: String, outcome: &'static str, told: Told) -> Happening {
    let Told { detail, tenant, about } = told;
    Happening { actor, outcome, tenant, about, ..Happening::own(Action::Admin, detail) }
}

// === impl UnderWay ===

impl UnderWay {
    fn begin(commands: &Arc<Commands>) -> Self {
        commands.under_way.send_modify(|count| *count = count.saturating_add(1));
        Self(Arc::clone(commands))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count = count.saturating_sub(1));
    }
}
