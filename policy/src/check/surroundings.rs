//! Owns what an Envoy file says that does not go together with the document in it, and Envoy's known
//! traps. What a file does not say is judged by Envoy's default; a part that is not there, not at all.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use super::Notes;
use super::facts::{ConnectionManager, Facts, Filter, Listener};
use crate::config::{Config, Policy};
use crate::identity::Place;

/// Envoy's defaults.
const CONNECT_TIMEOUT_MS: u64 = 5_000;
const ROUTE_TIMEOUT_MS: u64 = 15_000;
const BUFFER_LIMIT_BYTES: u64 = 1024 * 1024;

/// What holds whatever the document says.
pub(super) fn look_around(facts: &Facts, notes: &mut Notes<'_>) {
    if let Some(filter) = &facts.filter {
        settings(filter, notes);
    }
    if let Some(manager) = &facts.connection_manager {
        idle(manager, notes);
    }
}

pub(super) fn look(config: &Config, facts: &Facts, notes: &mut Notes<'_>) {
    if let Some(filter) = &facts.filter {
        environment(config, filter, notes);
    }
    if let Some(manager) = &facts.connection_manager {
        addresses(config, manager, notes);
    }
    if let Some(filter) = &facts.filter {
        holding(config, filter, notes);
    }
    if let Some(listener) = &facts.listener {
        buffers(config, listener, notes);
    }
    if let Some(policy) = config.policies.iter().find(idempotent) {
        keyed(policy, facts, notes);
    }
    clusters(config, facts, notes);
    routes(config, facts, notes);
}

fn settings(filter: &Filter, notes: &mut Notes<'_>) {
    const RELOAD: &str = "write failure_policy: FAIL_RELOAD";
    match filter.failure_policy.as_deref() {
        Some("FAIL_RELOAD") => {}
        Some("FAIL_OPEN" | "fail_open") => notes.envoy(
            "warning",
            &filter.at,
            "after a failure of the VM every request passes undecided and uncounted (FAIL_OPEN)".to_owned(),
            format!("{RELOAD}: what becomes of requests without a verdict is on_unavailable's to say"),
        ),
        _ => notes.envoy(
            "warning",
            &filter.at,
            "after a failure of the VM its worker refuses every request until Envoy is restarted (FAIL_CLOSED, the default)".to_owned(),
            RELOAD.to_owned(),
        ),
    }
    if filter.allow_on_headers_stop_iteration != Some(true) {
        notes.envoy(
            "warning",
            &filter.at,
            "allow_on_headers_stop_iteration is not on: a policy that has to see a body could not hold its request back".to_owned(),
            "write allow_on_headers_stop_iteration: true".to_owned(),
        );
    }
    if filter.configuration_type.as_deref() == Some("Struct") {
        notes.envoy(
            "warning",
            &filter.at,
            "the configuration is a Struct: of a field that stands twice Envoy keeps one, before the filter could complain".to_owned(),
            "write it as a google.protobuf.StringValue".to_owned(),
        );
    }
}

fn idempotent(policy: &&Policy) -> bool {
    policy.idempotency.is_some()
}

/// What Envoy does with requests and answers that have a key, where the filter does not see it.
fn keyed(policy: &Policy, facts: &Facts, notes: &mut Notes<'_>) {
    const SENT_NOTHING: [&str; 3] = ["connect-failure", "refused-stream", "reset-before-request"];
    let beyond = facts.routes.iter().find_map(|route| {
        let mut words = route.retry_on.as_deref()?.split(',').map(str::trim);
        let word = words.find(|word| !word.is_empty() && !SENT_NOTHING.contains(word))?;
        Some((route, word))
    });
    if let Some((route, word)) = beyond {
        notes.envoy(
            "warning",
            &route.at,
            format!(
                "retry_on has {word:?}, and policy {} has idempotency: behind the filter Envoy may send one request twice, and it runs twice",
                policy.name
            ),
            "write retry_on: connect-failure,refused-stream for what has a key".to_owned(),
        );
    }
    if let Some(route) = facts.routes.iter().find(|route| route.hedges) {
        notes.envoy(
            "warning",
            &route.at,
            format!(
                "hedge_on_per_try_timeout is on, and policy {} has idempotency: behind the filter Envoy sends a request that takes long a second time beside the first, whatever retry_on says, and it runs twice",
                policy.name
            ),
            "leave hedge_policy out for what has a key".to_owned(),
        );
    }
    if let Some(manager) = facts.connection_manager.as_ref().filter(|m| m.rewrites_local_replies) {
        notes.envoy(
            "warning",
            &manager.at,
            format!(
                "local_reply_config has mappers or a body_format, and policy {} has idempotency: replays are local replies, and are not the first answer any more",
                policy.name
            ),
            "leave it out, or filter its mappers so that answers with idempotent-replayed pass".to_owned(),
        );
    }
}

/// A request whose body is hashed is held by its headers, and without the flag its body never comes.
fn holding(config: &Config, filter: &Filter, notes: &mut Notes<'_>) {
    if filter.allow_on_headers_stop_iteration != Some(true)
        && let Some(policy) = config.policies.iter().find(idempotent)
    {
        notes.envoy(
            "error",
            &filter.at,
            format!(
                "policy {} has idempotency, and allow_on_headers_stop_iteration is not on: every request with a key and a body would hang until its timeout",
                policy.name
            ),
            "write allow_on_headers_stop_iteration: true".to_owned(),
        );
    }
}

/// What is held is Envoy's to keep: beyond its limit Envoy answers itself, 413 to a request and 500 in
/// place of a response.
fn buffers(config: &Config, listener: &Listener, notes: &mut Notes<'_>) {
    let written = listener.per_connection_buffer_limit_bytes;
    let limit = written.unwrap_or(BUFFER_LIMIT_BYTES);
    let default = if written.is_some() { "" } else { ", Envoy's default" };
    for policy in &config.policies {
        let Some(terms) = &policy.idempotency else { continue };
        let stored = if terms.durable { terms.stored.body_len_max } else { 0 };
        let held = [
            ("hash.max", u64::from(terms.hash.len_max), "a longer request 413"),
            (
                "store.body",
                u64::try_from(stored).unwrap_or(u64::MAX),
                "500 in place of a longer answer",
            ),
        ];
        let Some((field, most, answer)) = held.into_iter().find(|(_, most, _)| *most > limit)
        else {
            continue;
        };
        notes.envoy(
            "warning",
            &listener.at,
            format!(
                "per_connection_buffer_limit_bytes ({limit} bytes{default}) is below idempotency.{field} of policy {} ({most} bytes): Envoy itself answers {answer}",
                policy.name
            ),
            format!("write at least {most}"),
        );
    }
}

/// The filter refuses a configuration whose secret is not there.
fn environment(config: &Config, filter: &Filter, notes: &mut Notes<'_>) {
    let own =
        [("gateway.token", &config.gateway.token_env), ("hash_subjects", &config.hash_subjects)];
    let own = own.into_iter().filter_map(|(field, name)| Some((field, name.as_ref()?)));
    let signing = config.signing_keys.iter().map(|(name, field)| (field.as_str(), name));
    for (field, name) in own.chain(signing).filter(|(_, name)| !filter.env.contains(name)) {
        notes.field(
            "error",
            field,
            format!("the environment variable {name} does not reach the filter's VM"),
            &format!("write vm_config: {{ environment_variables: {{ host_env_keys: [{name}] }} }}"),
        );
    }
}

fn idle(manager: &ConnectionManager, notes: &mut Notes<'_>) {
    let problem = match manager.stream_idle_timeout_ms {
        Some(0) => Some("stream_idle_timeout is off"),
        None => Some("stream_idle_timeout is not written, so it is 5 minutes"),
        Some(_) => None,
    };
    if let Some(problem) = problem {
        notes.envoy(
            "warning",
            &manager.at,
            format!("{problem}: only it ends a request whose callout was lost with its VM"),
            "write stream_idle_timeout: 30s".to_owned(),
        );
    }
}

fn addresses(config: &Config, manager: &ConnectionManager, notes: &mut Notes<'_>) {
    let by_address = config
        .policies
        .iter()
        .flat_map(|policy| &policy.rate_limits)
        .flat_map(|limit| limit.by.sources())
        .any(|source| matches!(source.place, Place::Ip { .. }));
    if by_address && manager.use_remote_address != Some(true) {
        notes.envoy(
            "warning",
            &manager.at,
            "use_remote_address is not on, and a limit counts by ip: clients choose their address with X-Forwarded-For".to_owned(),
            "write use_remote_address: true, and xff_num_trusted_hops for the proxies before this one".to_owned(),
        );
    }
}

/// The ways to gateways: this region's own, and those of home regions.
fn clusters(config: &Config, facts: &Facts, notes: &mut Notes<'_>) {
    let own = ("gateway".to_owned(), &config.gateway.cluster, config.gateway.timeout_ms);
    let homes = config.homes.all().iter();
    let homes = homes
        .map(|home| (format!("homes.regions.{}", home.region), &home.cluster, home.timeout_ms));
    for (field, name, timeout_ms) in core::iter::once(own).chain(homes) {
        cluster(&field, (name, timeout_ms.into()), facts, notes);
    }
}

fn cluster(field: &str, (name, timeout_ms): (&str, u64), facts: &Facts, notes: &mut Notes<'_>) {
    let Some(cluster) = facts.clusters.iter().find(|cluster| cluster.name == name) else {
        if facts.clusters_complete {
            let names: String = joined(facts);
            notes.field(
                "error",
                &format!("{field}.cluster"),
                format!("the Envoy file has no cluster {name:?}: no request would get a verdict"),
                &format!("it has {names}"),
            );
        }
        return;
    };
    let connect_ms = cluster.connect_timeout_ms.unwrap_or(CONNECT_TIMEOUT_MS);
    if connect_ms >= timeout_ms {
        let written = if cluster.connect_timeout_ms.is_some() { "" } else { ", Envoy's default" };
        notes.envoy(
            "warning",
            &cluster.at,
            format!(
                "connect_timeout of cluster {name:?} ({connect_ms} ms{written}) is not shorter than {field}.timeout ({timeout_ms} ms): a gateway that is gone is noticed by the callout's timeout only"
            ),
            format!("write a connect_timeout below {field}.timeout, such as 0.030s"),
        );
    }
}

fn joined(facts: &Facts) -> String {
    const SHOWN_MAX: usize = 8;
    let mut names = String::new();
    for cluster in facts.clusters.iter().take(SHOWN_MAX) {
        if !names.is_empty() {
            names.push_str(", ");
        }
        names.push_str(&cluster.name);
    }
    if facts.clusters.len() > SHOWN_MAX {
        names.push_str(", …");
    }
    names
}

fn routes(config: &Config, facts: &Facts, notes: &mut Notes<'_>) {
    let timeout_ms = u64::from(config.gateway.timeout_ms);
    claims(config, facts, notes);
    let late = facts.routes.iter().find_map(|route| {
        let route_ms = route.timeout_ms.unwrap_or(ROUTE_TIMEOUT_MS);
        (route_ms > 0 && route_ms <= timeout_ms).then_some((route, route_ms))
    });
    if let Some((route, route_ms)) = late {
        notes.envoy(
            "warning",
            &route.at,
            format!(
                "the route's timeout ({route_ms} ms) is not longer than gateway.timeout ({timeout_ms} ms): asking may take longer than answering"
            ),
            "shorten gateway.timeout".to_owned(),
        );
    }
}

/// An answer that the route still waits for must not come after its claim has ended.
fn claims(config: &Config, facts: &Facts, notes: &mut Notes<'_>) {
    let longest_ms = facts.routes.iter().map(|route| match route.timeout_ms {
        Some(0) => u64::MAX,
        timeout_ms => timeout_ms.unwrap_or(ROUTE_TIMEOUT_MS),
    });
    let Some(route_ms) = longest_ms.max() else { return };
    for policy in &config.policies {
        let Some(terms) = &policy.idempotency else { continue };
        let own_ms = u64::from(terms.upstream_timeout_ms);
        if own_ms < route_ms {
            let route = match route_ms {
                u64::MAX => "that of a route, which has none".to_owned(),
                _ => format!("a route's timeout ({route_ms} ms)"),
            };
            notes.field(
                "warning",
                &format!("{}.idempotency.upstream_timeout", notes.places.policy(&policy.name)),
                format!(
                    "{own_ms} ms is shorter than {route}: a slow answer would come after its claim's time, and a retry would be told that nobody knows"
                ),
                "write at least the timeout of the routes that the policy takes in",
            );
        }
    }
}
