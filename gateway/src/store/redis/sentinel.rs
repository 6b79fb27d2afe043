//! Owns asking Sentinels where the master is, also while there is one. Knows nothing of what is done there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult};
use tokio::task::{JoinHandle, JoinSet};

use super::address::RedisAddress;
use super::link::{LinkSettings, Server};
use super::place::Sentinels;
use super::tls::RedisTls;
use super::vote;

/// For connecting to one Sentinel, and for its answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two questions while all is well: so long a master that is none any more is charged, about.
const CALM: Duration = Duration::from_secs(5);

/// What the Sentinels that answered said, and what the last one that did not gave as its reason.
struct Told {
    names: Vec<(String, u16)>,
    last: RedisError,
}

/// Asks again and again for as long as it lives.
pub struct Asker(JoinHandle<()>);

// === impl Asker ===

impl Asker {
    /// Starts to ask in the background, and tells the server's connections whom most of all Sentinels name. Fewer are
    /// not believed against a connection that works.
    pub fn start(sentinels: &Sentinels, settings: &LinkSettings, server: &Arc<Server>) -> Self {
        let (clock, tls) = (Arc::clone(&settings.clock), settings.tls.clone());
        let (sentinels, server) = (sentinels.clone(), Arc::clone(server));
        Self(tokio::spawn(async move {
            loop {
                clock.sleep(CALM).await;
                let told = sentinels.told(&tls).await.names;
                if let Some((host, port)) = vote::settled(&told, sentinels.asked.len()) {
                    server.named.send_replace(Some(sentinels.pattern.at(host, *port)));
                }
            }
        }))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Sentinels ===

impl Sentinels {
    /// The master, as most of the Sentinels say that know it: one that is parted from the others goes on naming the
    /// master that was. Of as many the first's.
    pub async fn master(&self, tls: &RedisTls) -> RedisResult<RedisAddress> {
        let Told { names, last } = self.told(tls).await;
        let elected = vote::elected(&names, |_| ());
        elected.map(|(host, port)| self.pattern.at(host, *port)).ok_or(last)
    }

    /// Asks all, until more than half of them agree.
    async fn told(&self, tls: &RedisTls) -> Told {
        let mut last =
            RedisError::from((ErrorKind::InvalidClientConfig, "no Sentinel is configured"));
        let mut asking = JoinSet::new();
        for (index, sentinel) in self.asked.iter().enumerate() {
            let (all, sentinel, tls) = (self.clone(), sentinel.clone(), tls.clone());
            asking.spawn(async move { (index, all.ask(&sentinel, &tls).await) });
        }
        // In the order of the Sentinels, whoever is faster.
        let mut told = BTreeMap::new();
        let mut names: Vec<(String, u16)> = Vec::new();
        while let Some(Ok((index, answer))) = asking.join_next().await {
            match answer {
                Ok(name) => drop(told.insert(index, name)),
                Err(error) => last = error,
            }
            names = told.values().cloned().collect();
            if vote::settled(&names, self.asked.len()).is_some() {
                break;
            }
        }
        Told { names, last }
    }

    async fn ask(&self, sentinel: &RedisAddress, tls: &RedisTls) -> RedisResult<(String, u16)> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = sentinel.client(tls)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let told: Option<(String, u16)> = question.query_async(&mut connection).await?;
        told.ok_or_else(|| {
            let what = "the Sentinel knows no master of this name";
            RedisError::from((ErrorKind::InvalidClientConfig, what, self.master.clone()))
        })
    }
}
