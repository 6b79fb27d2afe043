//! Owns the connections to one server: which of them a call takes. Knows no keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::sync::mpsc::unbounded_channel;

use super::link::{Link, LinkSettings, Live, Server, Target};
use super::replicas::{REPLICAS_MAX, REPLICAS_WITHIN_MAX};
use super::sentinel::Asker;
use super::silence::{Manner, Silence, Waiting};
use super::{failure, script::Scripts};
use crate::cores;
use crate::store::StoreFailure;

/// How often, and how far apart, it is looked whether a connection is up that is just being opened:
/// no longer than anybody waits.
const CONNECTING_LOOK: Duration = Duration::from_millis(2);
const CONNECTING_LOOKS: u32 = 1_000;

/// Connections that share the calls to one server.
pub struct Pool {
    name: String,
    links: Vec<Link>,
    /// For WAIT, which keeps its connection waiting, and so what stands behind it: by how many replicas are waited
    /// for, each opened once somebody does. Whoever stands behind a WAIT needs as many, so what that one waits for
    /// it has to wait for as well.
    apart: [OnceLock<Link>; REPLICAS_MAX],
    settings: Arc<LinkSettings>,
    server: Arc<Server>,
    _asker: Option<Asker>,
    next: AtomicUsize,
    silence: Silence,
    began_us: u64,
}

// === impl Pool ===

impl Pool {
    /// Starts to connect in the background. Fails only if the address cannot be used at all.
    pub fn start(
        name: String,
        connections: usize,
        settings: &Arc<LinkSettings>,
    ) -> RedisResult<Self> {
        let server: Arc<Server> = Arc::default();
        let links = (0..connections.max(1)).map(|slot| Link::start(slot, settings, &server));
        let links = links.collect::<Result<_, _>>()?;
        let asker = match &settings.target {
            Target::Fixed(_) => None,
            Target::Master(sentinels) => Some(Asker::start(sentinels, settings, &server)),
        };
        let (apart, settings) = (Default::default(), Arc::clone(settings));
        let silence = Silence::new(Arc::clone(&settings.clock), settings.pipeline_len_max);
        let (next, began_us) = (AtomicUsize::new(0), settings.clock.elapsed_us());
        Ok(Self { name, links, apart, settings, server, _asker: asker, next, silence, began_us })
    }

    /// The next connection of this core that is up, in turn; another's if there is none, or that one leaves calls
    /// unanswered and the other does not.
    pub fn pick(&self) -> Result<Live, StoreFailure> {
        let (count, cores) = (self.links.len(), self.settings.cores.count());
        let turn = if count > cores { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let start = turn.wrapping_mul(cores).wrapping_add(cores::current());
        let mut silent = None;
        for step in 0..count {
            let link = self.links.get((start.wrapping_add(step)) % count);
            let Some(live) = link.and_then(Link::live) else { continue };
            if !live.watch().is_silent() {
                return Ok(live);
            }
            silent.get_or_insert(live);
        }
        // All of them: that is the server, and its silence has to be felt.
        silent.ok_or_else(|| self.unconnected())
    }

    /// Whether the first of them is still to be expected: none was up yet, and no call would have failed for good meanwhile.
    pub fn is_opening(&self) -> bool {
        let open_us = self.settings.clock.elapsed_us().saturating_sub(self.began_us);
        self.memory().is_none() && u128::from(open_us) < self.settings.response_timeout.as_micros()
    }

    /// The same as [`Pool::pick`], and waits for the first one as long as that is to be expected.
    pub async fn pick_opening(&self) -> Result<Live, StoreFailure> {
        loop {
            match self.pick() {
                Err(_unconnected) if self.is_opening() => {
                    self.settings.clock.sleep(CONNECTING_LOOK).await;
                }
                picked => return picked,
            }
        }
    }

    /// The connection apart for those who wait for so many replicas, once it is up. No other call stands behind
    /// what waits there.
    pub async fn pick_apart(&self, replicas: u8) -> Result<Live, StoreFailure> {
        let place = usize::from(replicas).clamp(1, REPLICAS_MAX) - 1;
        let Some(apart) = self.apart.get(place) else { return Err(self.unconnected()) };
        let link = match apart.get() {
            Some(link) => link,
            None => {
                let settings = LinkSettings {
                    response_timeout: self.settings.response_timeout + REPLICAS_WITHIN_MAX,
                    ..LinkSettings::clone(&self.settings)
                };
                let link = Link::start(self.links.len() + place, &Arc::new(settings), &self.server);
                let link = link.map_err(|error| failure(&error))?;
                // Whoever comes second throws its own away.
                apart.get_or_init(|| link)
            }
        };
        for _ in 0..CONNECTING_LOOKS {
            if let Some(live) = link.live() {
                return Ok(live);
            }
            self.settings.clock.sleep(CONNECTING_LOOK).await;
        }
        Err(self.unconnected())
    }

    /// Lets one of several servers be asked, unless enough calls wait for it.
    pub fn enter(&self, manner: Manner) -> Result<Waiting<'_>, StoreFailure> {
        self.silence.enter(manner)
    }

    fn unconnected(&self) -> StoreFailure {
        StoreFailure::Unreachable(format!("{}: no connection", self.name))
    }

    /// How many connections are up and leave no calls unanswered, and how many there are.
    pub fn up(&self) -> (usize, usize) {
        let answers = |link: &&Link| link.live().is_some_and(|live| !live.watch().is_silent());
        (self.links.iter().filter(answers).count(), self.links.len())
    }

    /// The number of the memory that they lead to; `None` before the first is up.
    pub fn memory(&self) -> Option<u64> {
        self.server.lineage.number()
    }

    /// Asks over each connection, by this key: as soon as one answers well, else what the last one says. The others are
    /// heard all the same, so that one that fell silent is known for that before a call finds out, and one that answers
    /// again as well.
    pub async fn probe(&self, key: &str) -> Result<RedisResult<()>, StoreFailure> {
        let lives: Vec<Live> = self.links.iter().filter_map(Link::live).collect();
        if lives.is_empty() {
            return Err(self.unconnected());
        }
        let (says, mut said) = unbounded_channel();
        // Not a set of tasks that ends with whoever waits: that may be sooner than a silence shows.
        for mut live in lives.into_iter().filter(|live| live.watch().begins_probe()) {
            let (says, key) = (says.clone(), key.to_owned());
            tokio::spawn(async move {
                let answer = live.probe(&key).await;
                live.watch().ends_probe();
                // Nobody waits for it any more once another has answered.
                drop(says.send(answer));
            });
        }
        drop(says);
        let mut last = None;
        while let Some(answer) = said.recv().await {
            if answer.is_ok() {
                return Ok(answer);
            }
            last = Some(answer);
        }
        // The one before is not answered yet, over none of them.
        last.ok_or(StoreFailure::Timeout)
    }
}

/// Runs a script. The one repetition is after NOSCRIPT, which says that nothing ran.
pub async fn evaluate(live: &mut Live, scripts: &Scripts, command: &Cmd) -> RedisResult<Value> {
    match live.send(command).await {
        Err(error) if is_no_script(&error) => {
            Box::pin(live.load(scripts)).await?;
            Box::pin(live.send(command)).await
        }
        answered => answered,
    }
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript)
}
