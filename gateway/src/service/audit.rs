//! Owns what becomes of the audit events that a filter hands over. Knows no HTTP and no chain.

use std::time::Duration;

use tidegate_policy::audit::{AuditEvent, Basis, Durability, Thinning};
use tidegate_policy::wire::audit::{AuditNote, AuditReply, AuditRequest, EVENTS_MAX, Kept};

use super::{Refused, Service};
use crate::audit::writer::Haste;

/// Of the time that the filter waits, so much is for the way.
const WAY: u32 = 4;

// === impl Service ===

impl Service {
    /// Takes events, and says which are in the chain or on the disk by the time that the filter waits.
    pub async fn take_events(&self, message: &[u8]) -> Result<AuditReply, Refused> {
        let message = AuditRequest::hear(message).map_err(|error| Refused {
            reason: error.reason(),
            detail: error.to_string(),
            id: None,
        })?;
        // Not held against the deadline, which is of decisions: what is not kept in time is told to wait.
        let checked = self.serves(message.id, &message.scope);
        checked.inspect_err(|refused| self.log_mismatch(refused))?;
        let now_ms = self.clock.unix_us() / 1_000;
        let wait_ms = message.timeout_ms.saturating_sub(message.timeout_ms / WAY);
        let over = self.clock.sleep(Duration::from_millis(u64::from(wait_ms)));
        let (urgent, config, briefs) = (message.urgent, message.config, message.briefs.len());
        // As they came about, whatever place a message has for those that are brief; answered in its order.
        let mut order: Vec<_> = message.events.into_iter().enumerate().collect();
        order.sort_by_key(|(_, note)| note.as_ref().ok().and_then(AuditNote::number));
        // A filter that has a whole batch has more before long, which is not sent until these are acknowledged.
        let last = order.len().checked_sub(1).filter(|_| order.len() >= EVENTS_MAX);
        let mut handed: Vec<_> = order
            .into_iter()
            .enumerate()
            .map(|(nth, (place, note))| match note {
                Ok(note) => {
                    let note = AuditNote { config: note.config.or(config), ..note };
                    let haste = match urgent {
                        true => Haste::Urgent,
                        false if Some(nth) == last => Haste::Last,
                        false => Haste::Gathered,
                    };
                    (place, self.chronicle.pass_on(self.event(note, now_ms), haste))
                }
                Err(unreadable) => (place, Err(self.chronicle.pass_over(&unreadable))),
            })
            .collect();
        handed.sort_by_key(|(place, _)| *place);
        let mut over = over;
        let mut kept = Vec::with_capacity(handed.len());
        let mut late = false;
        for (_, acknowledged) in handed {
            kept.push(match acknowledged {
                Err(kept) => kept,
                Ok(mut acknowledged) if late => match acknowledged.try_recv() {
                    Ok(_accepted) => Kept::Kept,
                    Err(_not_yet) => Kept::Later,
                },
                Ok(acknowledged) => tokio::select! {
                    biased;
                    // An end without an answer: it is lost, and the filter still has it.
                    accepted = acknowledged => accepted.map_or(Kept::Later, |_| Kept::Kept),
                    () = &mut over => {
                        late = true;
                        Kept::Later
                    }
                },
            });
        }
        Ok(AuditReply::new(message.id, kept, briefs))
    }

    fn event(&self, note: AuditNote, now_ms: u64) -> AuditEvent {
        let AuditNote {
            id,
            age_ms,
            action,
            outcome,
            tenant,
            more,
            mut detail,
            decision: _in_the_detail,
            config,
            durability,
            about,
        } = note;
        if durability != Durability::Async {
            let space = if detail.is_empty() { "" } else { " " };
            detail.push_str(&format!("{space}class={}", durability.as_str()));
        }
        let detail = match (more, detail.is_empty()) {
            (0, _) => detail,
            (more, true) => format!("and {more} more"),
            (more, false) => format!("{detail}; and {more} more"),
        };
        AuditEvent {
            id,
            ts_ms: now_ms.saturating_sub(u64::from(age_ms)),
            region: self.settings.region.clone(),
            actor: "filter".to_owned(),
            tenant,
            action,
            outcome,
            detail,
            durability,
            // The filter has done that.
            thinning: Thinning::Each,
            about,
            basis: Basis { config, terms: Vec::new() },
        }
    }
}
