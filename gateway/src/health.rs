//! Owns what the gateway says of itself: its phase, and what the last background probe found.
//! Probes the stores itself, so that no question from outside reaches them. Knows no HTTP.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::metrics::{RoleLabel, SharedMetrics};
use crate::store::{Store, StoreFailure, StoreRole, Stores};

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than a store's own response timeout by default; a probe never hangs.
const PROBE_TIMEOUT: Duration = Duration::from_millis(800);

/// Where the gateway is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The stores have not been asked yet.
    Starting,
    /// It takes calls.
    Serving,
    /// It takes no more calls and finishes those it has.
    Draining,
}

/// What the last probe found of a role's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreState {
    /// The role.
    pub role: StoreRole,
    /// `redis` or `memory`.
    pub kind: &'static str,
    /// Why it is down; `None` if it is up. For operators.
    pub down: Option<StoreFailure>,
    /// Since when it is so, in µs since 1970.
    pub since_unix_us: u64,
}

/// Everything known now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The phase.
    pub phase: Phase,
    /// One per role; empty before the first probe.
    pub stores: Vec<StoreState>,
}

type Probed = Result<(), StoreFailure>;

/// The cached state.
pub struct Health {
    state: Mutex<Snapshot>,
}

// === impl Phase ===

impl Phase {
    /// The phase as it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Whether some store is down.
    pub fn degraded(&self) -> bool {
        self.stores.iter().any(|store| store.down.is_some())
    }
}

// === impl Health ===

impl Health {
    /// Starting.
    pub fn new() -> Self {
        Self { state: Mutex::new(Snapshot { phase: Phase::Starting, stores: Vec::new() }) }
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Enters the last phase.
    pub fn drain(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).phase = Phase::Draining;
    }

    /// Probes until it is dropped.
    pub async fn watch(
        self: Arc<Self>,
        stores: Stores,
        clock: Arc<dyn Clock>,
        metrics: SharedMetrics,
    ) {
        loop {
            let found = probe_all(&stores, clock.as_ref()).await;
            for (role, result) in StoreRole::ALL.into_iter().zip(&found) {
                let label = RoleLabel { role: role.as_str() };
                metrics.store_up.get_or_create(&label).set(i64::from(result.is_ok()));
                if let Some((up, all)) = stores.of(role).connections() {
                    metrics.store_connections.get_or_create(&label).set(whole(all));
                    metrics.store_connections_up.get_or_create(&label).set(whole(up));
                }
            }
            self.note(&stores, found, clock.unix_us());
            clock.sleep(PROBE_INTERVAL).await;
        }
    }

    fn note(&self, stores: &Stores, found: Vec<Probed>, now_unix_us: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.phase == Phase::Starting {
            state.phase = Phase::Serving;
        }
        let before = std::mem::take(&mut state.stores);
        for (role, result) in StoreRole::ALL.into_iter().zip(found) {
            let down = result.err();
            let known = before.iter().find(|store| store.role == role);
            let changed = known.is_none_or(|known| known.down.is_some() != down.is_some());
            if changed {
                log_change(role, down.as_ref());
            }
            let since_unix_us =
                known.filter(|_| !changed).map_or(now_unix_us, |known| known.since_unix_us);
            let kind = stores.of(role).kind();
            state.stores.push(StoreState { role, kind, down, since_unix_us });
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn log_change(role: StoreRole, down: Option<&StoreFailure>) {
    match down {
        Some(failure) => tracing::warn!(%role, %failure, "the store is down: degraded"),
        None => tracing::info!(%role, "the store is up"),
    }
}

/// One result per role; a store behind several roles is asked once.
async fn probe_all(stores: &Stores, clock: &dyn Clock) -> Vec<Probed> {
    let mut found: Vec<(&Arc<dyn Store>, Probed)> = Vec::new();
    for role in StoreRole::ALL {
        let store = stores.of(role);
        let known = found.iter().find(|(asked, _)| Arc::ptr_eq(asked, store));
        let result = match known {
            Some((_, result)) => result.clone(),
            None => tokio::select! {
                result = store.probe() => result,
                () = clock.sleep(PROBE_TIMEOUT) => Err(StoreFailure::Timeout),
            },
        };
        found.push((store, result));
    }
    found.into_iter().map(|(_, result)| result).collect()
}
