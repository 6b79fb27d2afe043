//! The piece of a trace that explains a failed check. It must not judge, and it must not change a line.

use super::check::{Check, ClientWants, RequestWants, Side};
use crate::host::network::ServiceCall;
use crate::host::trace::{TraceKind, TraceLine};
use crate::world::run::RunOutcome;

/// What fits below a failure without burying the next one.
const LINES_MAX: usize = 12;
/// Lines after the moment that the check is about; the cause stands before it.
const LINES_AFTER: usize = 2;
/// Where a filter first hears of a request; the first of them is optional.
const ENTRIES: [&str; 2] = ["proxy_on_context_create", "proxy_on_request_headers"];

/// The lines around what a check is about; none where the run was not traced.
pub(super) fn around(check: &Check, outcome: &RunOutcome) -> Vec<TraceLine> {
    let chosen = match check {
        Check::Client(wants) => around_client(wants, outcome),
        Check::Request(wants) => around_request(wants, outcome),
        // Counts, metrics, shared data and logs are what the whole run left behind.
        _ => cut(&outcome.trace.iter().collect::<Vec<_>>(), outcome.trace.len()),
    };
    chosen.into_iter().cloned().collect()
}

/// The end of a run that came to nothing.
pub(super) fn end(outcome: &RunOutcome) -> Vec<TraceLine> {
    let all: Vec<_> = outcome.trace.iter().collect();
    cut(&all, all.len()).into_iter().cloned().collect()
}

fn around_client<'a>(wants: &ClientWants, outcome: &'a RunOutcome) -> Vec<&'a TraceLine> {
    let Some(exchange) = outcome
        .exchanges
        .iter()
        .find(|exchange| exchange.client == wants.client && exchange.nth == wants.nth)
    else {
        return Vec::new();
    };
    let until_ns = exchange.ended_at_ns.unwrap_or(outcome.ended_at_ns);
    let who = format!("client {}", exchange.client);
    let Some(start) = outcome
        .trace
        .iter()
        .enumerate()
        .filter(|(_, line)| line.name == who && line.args.starts_with("sends "))
        .nth(exchange.nth.saturating_sub(1))
        .map(|(index, _)| index)
    else {
        return Vec::new();
    };
    let of_run = outcome.trace.get(start..).unwrap_or_default();
    let mut own: Vec<&TraceLine> = Vec::new();
    let mut contexts: Vec<(&str, u32)> = Vec::new();
    let mut was_own = false;
    for (index, block) in blocks(of_run).enumerate() {
        let Some(first) = block.first() else {
            continue;
        };
        // A request gets to a filter after its sending, or after the filter before let it go; another request's sending
        // would stand in between.
        if was_own && ENTRIES.contains(&first.name.as_str()) {
            contexts.push((&first.vm, first.context));
        }
        let is_own = |line: &TraceLine| contexts.contains(&(line.vm.as_str(), line.context));
        was_own = match first.kind {
            // The client may have sent more than this request.
            TraceKind::World => first.name == who && (index == 0 || first.at_ns == until_ns),
            // Roots act for every stream, as with the answer to a callout: then they switch to it.
            _ => block.iter().any(is_own),
        };
        if was_own {
            own.extend(block);
        }
    }
    let moment = own.iter().take_while(|line| line.at_ns <= until_ns).count();
    cut(&own, moment)
}

/// A callback with the host calls it made, or one line of the world.
fn blocks(trace: &[TraceLine]) -> impl Iterator<Item = &[TraceLine]> {
    trace.chunk_by(|_, next| next.kind == TraceKind::HostCall)
}

fn around_request<'a>(wants: &RequestWants, outcome: &'a RunOutcome) -> Vec<&'a TraceLine> {
    let all: Vec<_> = outcome.trace.iter().collect();
    let fits = |call: &&ServiceCall| {
        call.is_upstream == (wants.side == Side::Upstream)
            && wants.on.as_ref().is_none_or(|pattern| pattern.fits(&call.request))
            && wants.cluster.as_ref().is_none_or(|cluster| *cluster == call.request.cluster)
    };
    let nth = wants.nth.saturating_sub(1);
    let at_ns = outcome.calls.iter().filter(fits).nth(nth).map(|call| call.at_ns);
    let moment =
        at_ns.map_or(all.len(), |at_ns| all.iter().take_while(|line| line.at_ns <= at_ns).count());
    cut(&all, moment)
}

/// At most [`LINES_MAX`] lines around a moment.
fn cut<'a>(lines: &[&'a TraceLine], moment: usize) -> Vec<&'a TraceLine> {
    let end = moment.saturating_add(LINES_AFTER).min(lines.len());
    let start = end.saturating_sub(LINES_MAX);
    lines.get(start..end).unwrap_or_default().to_vec()
}
