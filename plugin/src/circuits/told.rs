//! Owns what a worker counts of its circuit breakers, upstreams' and the gateway's, and the labels.

use tidegate_policy::breaker::mesh::Ended;

/// What is worth counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// A request was refused.
    Refused,
    /// There was no room for one of its own: the others' was asked.
    NoRoom,
    /// Requests were let through to what was dead, before that was known.
    Leaked,
    /// A request is held before it is refused.
    Held,
    /// A request would have been refused, were its policy enforced.
    WouldRefuse,
    /// The process was shut by its own failures.
    Tripped,
    /// A test began.
    Test,
    /// A test went well.
    TestOk,
    /// A test failed.
    TestFailed,
    /// A test told nothing.
    TestGivenBack,
    /// The process alone made enough good tests in a row: all calls pass.
    Closed,
}

// === impl Told ===

impl Told {
    /// What became of a test.
    pub(crate) fn tested(ended: Ended) -> Self {
        match ended {
            Ended::Ok => Self::TestOk,
            Ended::Failed => Self::TestFailed,
            Ended::GivenBack => Self::TestGivenBack,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NoRoom => "no_room",
            Self::Leaked => "leaked",
            Self::Held => "held",
            Self::WouldRefuse => "would_refuse",
            Self::Tripped => "tripped",
            Self::Test => "test",
            Self::TestOk => "test_ok",
            Self::TestFailed => "test_failed",
            Self::TestGivenBack => "test_given_back",
            Self::Closed => "closed",
        }
    }
}
