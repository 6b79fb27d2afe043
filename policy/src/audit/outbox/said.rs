//! Owns what an answer to a message of events says of them.

use crate::reason::Reason;
use crate::wire::audit::{AuditReply, Kept};

/// What the gateway says of a message.
#[derive(Debug)]
pub enum Said<'a> {
    /// Of each of its events, in the message's order; `briefs`: this gateway reads such.
    Each {
        /// What became of each.
        kept: &'a [Kept],
        /// [`AuditReply::briefs`].
        briefs: bool,
    },
    /// Nothing: it is sent again.
    Nothing,
    /// That it cannot be read: again would be no better.
    Unreadable,
}

// === impl Said ===

impl<'a> Said<'a> {
    /// Of a message's answer, as far as it was one.
    pub fn of(heard: &'a Result<AuditReply, Reason>) -> Self {
        match heard {
            Ok(AuditReply { events, briefs, .. }) => Self::Each { kept: events, briefs: *briefs },
            Err(Reason::BadMessage) => Self::Unreadable,
            Err(_) => Self::Nothing,
        }
    }
}
