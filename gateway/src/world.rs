//! Owns what a gateway takes from outside (stores, clock, audit sink, metrics), and why it may not
//! start. Knows neither sockets nor routes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_policy::audit::record::ChainName;

use crate::audit::thin::Pseudonyms;
use crate::audit::trail::{Trail, TrailSettings};
use crate::audit::watch::Notes;
use crate::audit::{LogSink, SharedSink};
use crate::clock::{Clock, SystemClock};
use crate::cores::Cores;
use crate::metrics::{Metrics, SharedMetrics};
use crate::own_thread::OwnThread;
use crate::secret::SecretError;
use crate::settings::audit::CheckpointSettings;
use crate::settings::{Settings, SettingsError};
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::store::{Store, StoreRole, Stores};

/// What a gateway takes from outside, so that tests and simulations can give their own.
#[derive(Clone)]
pub struct World {
    /// The store of each role.
    pub stores: Stores,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where audit events go first.
    pub audit: SharedSink,
    /// The audit chain, if one is kept.
    pub trail: Option<Arc<Trail>>,
    /// Where things are counted.
    pub metrics: SharedMetrics,
    /// The threads that answer.
    pub cores: Arc<Cores>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings cannot be.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A listener's address cannot be had.
    #[error(
        "{flag} is {address}: cannot listen there; choose another address or stop what listens"
    )]
    Bind {
        /// The flag and variable.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The addresses cannot be written.
    #[error("--addresses-file (TIDEGATE_ADDRESSES_FILE) is {}: cannot write it", path.display())]
    AddressesFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The Redis client refuses the address.
    #[error("--redis-url (TIDEGATE_REDIS_URL) cannot be used")]
    Redis(#[source] redis::RedisError),
    /// The audit chain cannot be kept.
    #[error("the audit chain cannot be kept: {0}")]
    Audit(String),
    /// The system gives no randomness, log, runtime or signals.
    #[error("{what}")]
    System {
        /// What failed.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

// === impl World ===

impl World {
    /// What the settings ask for: the machine's clock, Redis or memory, and the log as audit sink.
    /// Needs a tokio runtime for what is done in the background; calls are answered on the cores.
    pub fn from_settings(settings: &Settings, cores: Cores) -> Result<Self, StartError> {
        let cores = Arc::new(cores);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Arc::new(Metrics::new());
        let counters = metrics.store.clone();
        let store: Arc<dyn Store> = match &settings.redis {
            Some(redis) => {
                // Here rather than among the address's errors, since the file is at fault.
                redis.tls.certificates()?;
                let store = RedisStore::start(redis, &cores, &clock, counters)
                    .map_err(StartError::Redis)?;
                Arc::new(store.sealed_by(settings.seal.clone()))
            }
            None => {
                let store =
                    MemoryStore::new(Arc::clone(&clock), settings.memory_keys_max, counters);
                Arc::new(store.guarded(settings.memory_cold.unwrap_or_default()))
            }
        };
        let audit: SharedSink = Arc::new(LogSink::new(&metrics));
        let stores = Stores::single(store);
        let trail = trail(settings, &stores, &clock, &metrics)?;
        Ok(Self { stores, clock, audit, trail, metrics, cores })
    }

    /// The same stores, clock and so on around other stores.
    pub fn with_stores(mut self, stores: Stores) -> Self {
        self.stores = stores;
        self
    }
}

fn trail(
    settings: &Settings,
    stores: &Stores,
    clock: &Arc<dyn Clock>,
    metrics: &SharedMetrics,
) -> Result<Option<Arc<Trail>>, StartError> {
    let Some(audit) = &settings.audit else { return Ok(None) };
    let pseudonyms = match &audit.subject_key {
        Some(source) => Pseudonyms::keyed(source.read()?.reveal().as_bytes())
            .ok_or_else(|| StartError::Audit(format!("{}: no key", source.place())))?,
        None => Pseudonyms::default(),
    };
    let notes = match &audit.checkpoints {
        Some(CheckpointSettings { dir, name, key }) => {
            let named = |problem| StartError::Audit(format!("{}: {problem}", key.place()));
            Some(Notes::new(dir, name, &key.read()?).map_err(named)?)
        }
        None => None,
    };
    let service = &settings.service;
    let told = TrailSettings {
        chain: ChainName::of(&service.region, &service.environment),
        dir: audit.dir.clone(),
        keys: audit.keys.clone(),
        tick: audit.tick,
        spool_bytes_max: audit.spool_bytes_max,
        refuse_when_full: audit.refuse_when_full,
    };
    let store = Arc::clone(stores.of(StoreRole::Audit));
    let counters = metrics.audit.clone();
    // Files are written there after each append, and a disk may take seconds for that, in which whoever asks whether
    // the gateway lives has to be answered.
    let desk =
        OwnThread::start("audit".to_owned(), || ()).map_err(|source| StartError::System {
            what: "the thread of the audit chain cannot be started",
            source: source.into(),
        })?;
    Trail::start(told, pseudonyms, notes, store, Arc::clone(clock), counters, Some(desk))
        .map(Some)
        .map_err(StartError::Audit)
}
