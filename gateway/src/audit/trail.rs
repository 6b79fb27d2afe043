//! Owns the audit chain of a running gateway: putting its parts together, taking events, and the end. Decides nothing about records.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_policy::audit::record::{ChainName, Event};
use tidegate_policy::audit::value::Unfit;
use tidegate_policy::audit::{Action, AuditEvent, Durability};
use tidegate_policy::scope::Region;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::chain_end::{ChainEnd, Parts};
use super::counters::ChainCounters;
use super::follow::Following;
use super::hold::Hold;
use super::keys::KeySource;
use super::mark::Mark;
use super::ring::Ring;
use super::spool::Spool;
use super::thin::{Pseudonyms, Thinner};
use super::watch::{Notes, Watch};
use super::writer::{Acknowledged, Haste, QueueFull, Writer, Writing};
use super::{Happening, NotOnRecord};
use crate::clock::Clock;
use crate::own_thread::OwnThread;
use crate::store::Store;

/// Between two looks whether a window of counts is over.
const TURN: Duration = Duration::from_secs(1);
/// What is not appended by then at the end waits in the spool.
const FINISH: Duration = Duration::from_secs(5);
/// And what is not there by then is lost, and counted.
const KEEP: Duration = Duration::from_secs(5);

/// What a chain is told at start.
#[derive(Debug, Clone)]
pub struct TrailSettings {
    /// The chain's name.
    pub chain: ChainName,
    /// Where spool and mark lie.
    pub dir: PathBuf,
    /// The keys that sign.
    pub keys: KeySource,
    /// How long events are gathered.
    pub tick: Duration,
    /// The largest spool in bytes.
    pub spool_bytes_max: u64,
    /// Whether commands are refused that cannot be put on record.
    pub refuse_when_full: bool,
}

/// The chain of a running gateway.
pub struct Trail {
    settings: TrailSettings,
    writer: Writer,
    writing: Mutex<Option<Writing>>,
    thinner: Thinner,
    pseudonyms: Pseudonyms,
    clock: Arc<dyn Clock>,
    counters: ChainCounters,
    tasks: Mutex<JoinSet<()>>,
    /// Where all of it is done.
    _desk: Option<OwnThread>,
}

// === impl Trail ===

impl Trail {
    /// Takes the folder, opens spool and mark, and starts the tasks: at the desk, or in the tokio runtime that this is
    /// called in. The error says what to do.
    pub fn start(
        settings: TrailSettings,
        pseudonyms: Pseudonyms,
        notes: Option<Notes>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        counters: ChainCounters,
        desk: Option<OwnThread>,
    ) -> Result<Arc<Self>, String> {
        let at = desk.as_ref().map(OwnThread::handle);
        let _entered = at.as_ref().map(Handle::enter);
        let following = Following::begin(
            settings.chain.clone(),
            settings.keys.clone(),
            Arc::clone(&clock),
            counters.clone(),
        )?;
        let run = getrandom::u64().map_err(|error| format!("no randomness: {error}"))?;
        let named = |error: std::io::Error| {
            format!("--audit-dir (TIDEGATE_AUDIT_DIR) is {}: {error}", settings.dir.display())
        };
        // Before anything in the folder is read: what is read may be cut off.
        let hold = Hold::take(&settings.dir).map_err(named)?;
        let spool = Spool::open(&settings.dir, settings.spool_bytes_max).map_err(named)?;
        let spool = spool.held(hold);
        let parts = Parts {
            chain: settings.chain.clone(),
            store: Arc::clone(&store),
            signer: following.signer(),
            keys: following.ring(),
            clock: Arc::clone(&clock),
            spool,
            mark: Mark::in_dir(&settings.dir),
            ring: Ring::open(&settings.dir).map_err(named)?,
            counters: counters.clone(),
        };
        let end = ChainEnd::open(parts).map_err(named)?;
        let (writer, writing) =
            Writer::start(end, Arc::clone(&clock), counters.clone(), settings.tick);
        let watch = Watch::new(
            settings.chain.clone(),
            store,
            following.ring(),
            notes,
            Arc::clone(&clock),
            counters.clone(),
        )?;
        let trail = Arc::new(Self {
            settings,
            writer,
            writing: Mutex::new(Some(writing)),
            thinner: Thinner::new(pseudonyms.clone(), run),
            pseudonyms,
            clock,
            counters,
            tasks: Mutex::new(JoinSet::new()),
            _desk: desk,
        });
        let mut tasks = trail.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Weak: a trail that nobody holds any more ends.
        let (held, mut made) = (Arc::downgrade(&trail), 0_u64);
        tasks.spawn(following.run(move |change| {
            let Some(trail) = held.upgrade() else { return false };
            made = made.saturating_add(1);
            trail.tell(format!("keys-{run:016x}-{made}"), change);
            true
        }));
        tasks.spawn(turn(Arc::downgrade(&trail), Arc::clone(&trail.clock)));
        tasks.spawn(watch.run());
        drop(tasks);
        Ok(trail)
    }

    /// Takes an event without waiting.
    pub fn take(&self, event: &AuditEvent) {
        self.hand_over(self.thinner.take(event));
    }

    /// Puts an event on record now, unless it is one more of a kind that is counted.
    pub async fn commit(&self, event: &AuditEvent, wait_max: Duration) -> Result<(), NotOnRecord> {
        let (own, others): (Vec<_>, Vec<_>) = self
            .thinner
            .take(event)
            .into_iter()
            .partition(|made| made.as_ref().is_ok_and(|made| made.id() == event.id));
        self.hand_over(others);
        for made in own {
            let Some(acknowledged) = self.submit(made, true) else { return Err(NotOnRecord) };
            tokio::select! {
                accepted = acknowledged => drop(accepted.map_err(|_lost| NotOnRecord)?),
                () = self.clock.sleep(wait_max) => {
                    self.counters.late.inc();
                    return Err(NotOnRecord);
                }
            }
        }
        Ok(())
    }

    /// Whether a command must not be carried out that could not be put on record.
    pub fn must_record(&self) -> bool {
        self.settings.refuse_when_full
    }

    /// Hands over an event that another process made: its subjects become hashes, and nothing is thinned
    /// out, since that was done there.
    pub fn pass_on(&self, event: &AuditEvent, haste: Haste) -> Result<Acknowledged, PassOnError> {
        let event = self.pseudonyms.event(event).map_err(PassOnError::Unfit)?;
        self.writer.offer(event, haste).map_err(PassOnError::Full)
    }

    /// Counts events that were lost before they came here.
    pub fn lose(&self, events: u64) {
        self.counters.dropped.inc_by(events);
    }

    /// Commits what is left, within a few seconds, or leaves it on the disk.
    pub async fn finish(&self) {
        self.hand_over(self.thinner.close(self.clock.unix_us() / 1_000));
        self.writer.stop();
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut writing) = writing else { return };
        let hurry = async {
            self.clock.sleep(FINISH).await;
            tracing::warn!(
                "the audit chain takes its events too slowly; the rest goes to the disk"
            );
            self.writer.keep_the_rest();
            self.clock.sleep(KEEP).await;
        };
        tokio::select! {
            ended = &mut writing => if let Err(error) = ended {
                tracing::error!(critical = true, %error, "the audit writer failed");
            },
            () = hurry => {
                let events = self.writer.owed();
                self.counters.dropped.inc_by(events);
                tracing::error!(critical = true, events, "the disk did not take audit events in time: they are lost");
                writing.abort();
            }
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// Something of the trail's own.
    fn tell(&self, id: String, detail: String) {
        let Happening { actor, tenant, action, outcome, thinning, about, basis, .. } =
            Happening::own(Action::Config, String::new());
        let region = Region::new(self.settings.chain.as_str().split('/').next().unwrap_or(""));
        self.take(&AuditEvent {
            id,
            ts_ms: self.clock.unix_us() / 1_000,
            region: region.unwrap_or_else(|_none| Region::fallback()),
            actor,
            tenant,
            action,
            outcome: outcome.to_owned(),
            detail,
            durability: Durability::Async,
            thinning,
            about,
            basis,
        });
    }

    fn hand_over(&self, events: Vec<Result<Event, Unfit>>) {
        for event in events {
            drop(self.submit(event, false));
        }
    }

    fn submit(&self, event: Result<Event, Unfit>, urgent: bool) -> Option<Acknowledged> {
        match event {
            Ok(event) => self.writer.submit(event, urgent).ok(),
            Err(unfit) => {
                self.counters.dropped.inc();
                tracing::error!(critical = true, %unfit, "an audit event has no record");
                None
            }
        }
    }
}

/// Why an event of another process is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PassOnError {
    /// This gateway keeps none.
    #[error("there is no chain")]
    NoChain,
    /// It never will be.
    #[error("the event has no record: {0}")]
    Unfit(Unfit),
    /// It may be later.
    #[error(transparent)]
    Full(QueueFull),
}

async fn turn(trail: std::sync::Weak<Trail>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(TURN).await;
        let Some(trail) = trail.upgrade() else { return };
        trail.hand_over(trail.thinner.turned(clock.unix_us() / 1_000));
    }
}

#[cfg(test)]
mod tests;
