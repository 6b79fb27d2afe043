//! Owns asking Sentinels where the master is. Knows nothing of what is done there.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult};
use tokio::task::JoinSet;

use super::address::RedisAddress;
use super::place::Sentinels;
use super::tls::RedisTls;
use super::vote;

/// For connecting to one Sentinel, and for its answer.
const PATIENCE: Duration = Duration::from_millis(500);

// === impl Sentinels ===

impl Sentinels {
    /// The master, as most of the Sentinels say that know it: one that is parted from the others goes on naming the
    /// master that was. Of as many the first's.
    pub async fn master(&self, tls: &RedisTls) -> RedisResult<RedisAddress> {
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
        let elected = vote::elected(&names, |_| ());
        elected.map(|(host, port)| self.pattern.at(host, *port)).ok_or(last)
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
