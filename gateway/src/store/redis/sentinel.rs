//! Owns asking Sentinels where the master is. Knows nothing of what is done there.

use std::time::Duration;

use redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult};

use super::address::RedisAddress;
use super::place::Sentinels;
use super::tls::RedisTls;

/// For connecting to one Sentinel, and for its answer.
const PATIENCE: Duration = Duration::from_millis(500);

// === impl Sentinels ===

impl Sentinels {
    /// The master, as the first Sentinel that knows it says.
    pub async fn master(&self, tls: &RedisTls) -> RedisResult<RedisAddress> {
        let mut last =
            RedisError::from((ErrorKind::InvalidClientConfig, "no Sentinel is configured"));
        for sentinel in &self.asked {
            match self.ask(sentinel, tls).await {
                Ok(address) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, sentinel: &RedisAddress, tls: &RedisTls) -> RedisResult<RedisAddress> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = sentinel.client(tls)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let told: Option<(String, u16)> = question.query_async(&mut connection).await?;
        match told {
            Some((host, port)) => Ok(self.pattern.at(&host, port)),
            None => Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "the Sentinel knows no master of this name",
                self.master.clone(),
            ))),
        }
    }
}
