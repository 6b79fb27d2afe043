//! Owns what becomes of a claim once the request has ended: its answer is stored, the claim is released,
//! or it is kept. Knows neither records nor headers.
//!
//! **Not stored is not released.** A claim is released, so that a retry runs, only where the upstream
//! provably did not do the work: it was never reached, or it said so. Whatever may have been done stays
//! claimed until the claim's lock ends, and is then an unknown outcome.

/// How a claimed request ended. Where Envoy tried several times, all tries count: one that may have
/// reached the upstream makes the whole uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The upstream answered.
    Answered {
        /// The status, as the upstream sent it.
        status: u16,
        /// Whether it had a `Retry-After`.
        retry_after: bool,
        /// How much of the body was seen.
        body: Body,
    },
    /// The upstream answered a gRPC call: with its `grpc-status`, or without one, since it was cut off.
    Called {
        /// The status, if there was one that can be read.
        status: Option<u32>,
        /// Whether a message came before it.
        spoke: bool,
    },
    /// No byte of the request reached the upstream: no connection, no host, or a denial of our own
    /// after the claim.
    NeverSent,
    /// The connection broke or the time ran out before an answer, after bytes may have been sent.
    Lost,
    /// The client left before an answer. The upstream may go on with the work.
    ClientLeft,
}

/// How much of an answer's body was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// All of it, and it may be stored.
    Whole,
    /// All of it, and it is longer than what may be stored, or a stream that is not kept.
    NotKept,
    /// It broke off, or the client left meanwhile.
    Cut,
}

/// What becomes of the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalise {
    /// Store the answer; everyone who asks again gets it.
    Store,
    /// Store that it was done, with status and headers, but without the body.
    StoreWithoutBody,
    /// Give the claim back: a retry runs.
    Release,
    /// Leave it claimed until its lock ends.
    KeepClaimed,
}

/// Which answers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// 2xx, 3xx and 4xx but 401, 403, 408, 425 and 429. Those, and 503 with `Retry-After`, release;
    /// every other 5xx keeps the claim. Of gRPC calls: 0 and 6, and 7 and 16 without a message release.
    #[default]
    Standard,
    /// As `Standard`, and every 5xx but 503 with `Retry-After` is stored: of upstreams whose errors are
    /// final.
    Store5xx,
    /// Every answer is stored, errors included.
    Stripe,
}

/// What a status says of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Final,
    NotDone,
    Unsure,
}

// === impl Rule ===

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::Standard, Self::Store5xx, Self::Stripe];

    /// The rule as it stands in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Store5xx => "store_5xx",
            Self::Stripe => "stripe",
        }
    }

    /// What becomes of the claim of a request that ended like that.
    pub fn finalise(self, ended: Ended) -> Finalise {
        match ended {
            Ended::NeverSent => Finalise::Release,
            Ended::Lost | Ended::ClientLeft => Finalise::KeepClaimed,
            // Messages are not stored.
            Ended::Called { status, spoke } => match self.says_of_call(status, spoke) {
                Says::Final => Finalise::StoreWithoutBody,
                Says::NotDone => Finalise::Release,
                Says::Unsure => Finalise::KeepClaimed,
            },
            Ended::Answered { status, retry_after, body } => {
                match (self.says(status, retry_after), body) {
                    (Says::Final, Body::Whole) => Finalise::Store,
                    (Says::Final, Body::NotKept) => Finalise::StoreWithoutBody,
                    // The status alone says that nothing was done.
                    (Says::NotDone, _) => Finalise::Release,
                    (Says::Final, Body::Cut) | (Says::Unsure, _) => Finalise::KeepClaimed,
                }
            }
        }
    }

    /// Of a gRPC call only that it was done can be remembered: who asks again hears `ALREADY_EXISTS`. So an error
    /// that is final in HTTP leaves the claim as it is here. Whoever sent a message has worked, whatever its status says.
    fn says_of_call(self, status: Option<u32>, spoke: bool) -> Says {
        match (status, self) {
            (None, _) => Says::Unsure,
            // OK, and that it was done before.
            (Some(0 | 6), _) | (_, Self::Stripe) => Says::Final,
            // PERMISSION_DENIED and UNAUTHENTICATED: 403 and 401.
            (Some(7 | 16), _) if !spoke => Says::NotDone,
            // RESOURCE_EXHAUSTED is a limit that turned the call away, and also what libraries make of an answer that is
            // too large to be sent, when the work is done.
            (Some(8), _) => Says::Unsure,
            (_, Self::Store5xx) => Says::Final,
            (_, Self::Standard) => Says::Unsure,
        }
    }

    fn says(self, status: u16, retry_after: bool) -> Says {
        match (status, self) {
            (200..=599, Self::Stripe) => Says::Final,
            (401 | 403 | 408 | 425 | 429, _) => Says::NotDone,
            (503, _) if retry_after => Says::NotDone,
            (200..=499, _) | (500..=599, Self::Store5xx) => Says::Final,
            // 1xx is no final answer, and above 599 there is none.
            (_, _) => Says::Unsure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, retry_after: bool, body: Body) -> Ended {
        Ended::Answered { status, retry_after, body }
    }

    #[test]
    fn what_becomes_of_each_whole_answer() {
        use Finalise::{KeepClaimed as Keep, Release, Store};
        // Status, Retry-After, then by rule: standard, store_5xx, stripe.
        let rows = [
            (101, false, [Keep, Keep, Keep]),
            (200, false, [Store, Store, Store]),
            (200, true, [Store, Store, Store]),
            (201, false, [Store, Store, Store]),
            (204, false, [Store, Store, Store]),
            (302, false, [Store, Store, Store]),
            (304, false, [Store, Store, Store]),
            (400, false, [Store, Store, Store]),
            (401, false, [Release, Release, Store]),
            (402, false, [Store, Store, Store]),
            (403, false, [Release, Release, Store]),
            (404, false, [Store, Store, Store]),
            (408, false, [Release, Release, Store]),
            (409, false, [Store, Store, Store]),
            (422, false, [Store, Store, Store]),
            (425, false, [Release, Release, Store]),
            (429, false, [Release, Release, Store]),
            (429, true, [Release, Release, Store]),
            (499, false, [Store, Store, Store]),
            (500, false, [Keep, Store, Store]),
            (500, true, [Keep, Store, Store]),
            (502, false, [Keep, Store, Store]),
            (503, false, [Keep, Store, Store]),
            (503, true, [Release, Release, Store]),
            (504, false, [Keep, Store, Store]),
            (599, false, [Keep, Store, Store]),
            (0, false, [Keep, Keep, Keep]),
            (600, false, [Keep, Keep, Keep]),
        ];
        for (status, retry_after, expected) in rows {
            for (rule, expected) in Rule::ALL.into_iter().zip(expected) {
                let ended = answered(status, retry_after, Body::Whole);
                assert_eq!(rule.finalise(ended), expected, "{} {ended:?}", rule.as_str());
            }
        }
    }

    #[test]
    fn what_is_not_whole_is_never_stored_whole() {
        use Finalise::{KeepClaimed, Release, StoreWithoutBody};
        let rows = [
            (answered(200, false, Body::NotKept), StoreWithoutBody),
            (answered(404, false, Body::NotKept), StoreWithoutBody),
            (answered(500, false, Body::NotKept), KeepClaimed),
            (answered(429, false, Body::NotKept), Release),
            (answered(200, false, Body::Cut), KeepClaimed),
            (answered(404, false, Body::Cut), KeepClaimed),
            (answered(403, false, Body::Cut), Release),
            (answered(503, true, Body::Cut), Release),
            (answered(503, false, Body::Cut), KeepClaimed),
        ];
        for (ended, expected) in rows {
            assert_eq!(Rule::Standard.finalise(ended), expected, "{ended:?}");
        }
        let cut = answered(500, false, Body::Cut);
        assert_eq!(Rule::Stripe.finalise(cut), KeepClaimed);
        assert_eq!(Rule::Stripe.finalise(answered(500, false, Body::NotKept)), StoreWithoutBody);
    }

    #[test]
    fn without_an_answer_only_what_was_never_sent_is_released() {
        for rule in Rule::ALL {
            assert_eq!(rule.finalise(Ended::NeverSent), Finalise::Release);
            assert_eq!(rule.finalise(Ended::Lost), Finalise::KeepClaimed);
            assert_eq!(rule.finalise(Ended::ClientLeft), Finalise::KeepClaimed);
        }
    }

    /// The invariant behind the table, over everything: what may have been done never runs again.
    #[test]
    fn of_a_grpc_call_its_own_status_says_what_was_done() {
        use Finalise::{KeepClaimed as Keep, Release, StoreWithoutBody as Done};
        // Standard, store_5xx, stripe.
        let rows = [
            (Some(0), [Done, Done, Done]),
            (Some(6), [Done, Done, Done]),
            (Some(7), [Release, Release, Done]),
            (Some(8), [Keep, Keep, Done]),
            (Some(16), [Release, Release, Done]),
            (Some(3), [Keep, Done, Done]),
            (Some(13), [Keep, Done, Done]),
            (Some(14), [Keep, Done, Done]),
            (Some(99), [Keep, Done, Done]),
            (None, [Keep, Keep, Keep]),
        ];
        for (status, expected) in rows {
            for (rule, expected) in Rule::ALL.into_iter().zip(expected) {
                let how = rule.finalise(Ended::Called { status, spoke: false });
                assert_eq!(how, expected, "{status:?} {rule:?}");
                let after_messages = rule.finalise(Ended::Called { status, spoke: true });
                assert_ne!(after_messages, Release, "{status:?} {rule:?}");
                assert!(after_messages == how || how == Release, "{status:?} {rule:?}");
            }
        }
    }

    #[test]
    fn nothing_that_may_have_been_done_is_released() {
        for rule in Rule::ALL {
            for status in 0..=u16::MAX {
                for (retry_after, body) in [(false, Body::Whole), (true, Body::Cut)] {
                    let released =
                        rule.finalise(answered(status, retry_after, body)) == Finalise::Release;
                    let says_so = matches!(status, 401 | 403 | 408 | 425 | 429)
                        || (status == 503 && retry_after);
                    assert!(!released || says_so, "{status}");
                }
            }
        }
    }
}
