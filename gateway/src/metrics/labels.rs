//! Owns the labels of metrics. Knows nothing of what is counted.

use prometheus_client::encoding::EncodeLabelSet;

/// `verdict`: allow or deny.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabel {
    /// The verdict's text.
    pub verdict: &'static str,
}

/// `limit`: a limit's id, and `outcome`: allowed, near (at most a tenth is left), denied or
/// shadow-denied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabel {
    /// `policy.limit`.
    pub limit: String,
    /// What it said.
    pub outcome: &'static str,
}

/// `reason`: a reason's text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason's text.
    pub reason: &'static str,
}

/// `outcome`: ok, or a reason's text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// The outcome's text.
    pub outcome: &'static str,
}

/// `role`: a store's role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RoleLabel {
    /// The role's text.
    pub role: &'static str,
}

/// `action`: an audit event's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ActionLabel {
    /// The action's text.
    pub action: &'static str,
}

/// `cause`: why a TLS handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CauseLabel {
    /// The cause's text.
    pub cause: &'static str,
}

/// `listener` and `status` of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HttpLabel {
    /// data or admin.
    pub listener: &'static str,
    /// The status code.
    pub status: u16,
}
