//! Owns what the audit chain costs: an event in the filter, an append under many gateways, the verification
//! of millions of records.

mod appends;
mod chains;
mod filter;
mod verification;

use super::envoy_rows::Effort;
use super::summary::Summary;

/// Measures, prints, adds to the summary.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    verification::measure(effort, summary)?;
    appends::measure(effort, summary).await?;
    filter::measure(effort, summary).await
}
