//! Owns a gateway as operators run it, in front of a real Redis that is shown the lab's virtual time: the shipped scripts decide,
//! and keys live as long as they do in virtual time. What the lab calls lost never gets here.

use http::header::{CONTENT_LENGTH, HOST};
use tidegate_host_sim::{Answer, HeaderMap, Outcome, Reply, Service, ServiceRequest};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::weather::Gateway as Asked;
use super::{SECOND, START_UNIX_S};
use crate::client;
use crate::gateway::{Gateway, Options, TOKEN};
use crate::redis::Redis;
use crate::redis::held::HeldClock;

/// The two processes, and a connection to the first.
pub struct Stored {
    runtime: Runtime,
    redis: Redis,
    gateway: Gateway,
    connection: TcpStream,
}

// === impl Stored ===

impl Stored {
    /// A warm region, empty.
    pub fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (redis, gateway, connection) = runtime.block_on(async {
            let clock = HeldClock::at(START_UNIX_S * SECOND / 1_000);
            let redis = Redis::start_with_clock(clock).await;
            // Deadlines as shipped: the filter's 45 ms leave no more, and what they end here is one more fault.
            let options = Options::redis(&redis.url()).flags(&["--cold-start", "5m"]);
            let gateway = Gateway::start(&options).await;
            let connection = client::connect(gateway.addr, None).await.expect("it listens");
            (redis, gateway, connection)
        });
        Self { runtime, redis, gateway, connection }
    }
}

impl Service for Stored {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        self.redis.set_clock(now_unix_ns / 1_000);
        let (path, len) = (request.path(), request.body.len());
        let mut sent = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {len}\r\n"
        )
        .into_bytes();
        let own = [HOST.as_str(), CONTENT_LENGTH.as_str()].map(str::as_bytes);
        for (name, value) in request.headers.pairs() {
            if !name.starts_with(b":") && !own.contains(&name.as_slice()) {
                sent.extend([name.as_slice(), b": ", value, b"\r\n"].concat());
            }
        }
        sent.extend_from_slice(b"\r\n");
        sent.extend_from_slice(&request.body);
        let told = self.runtime.block_on(client::raw(&mut self.connection, &sent));
        let mut headers = HeaderMap::default();
        for (name, value) in &told.headers {
            headers.add(name.as_bytes(), value.as_bytes());
        }
        let answer = Answer { headers, ..Answer::new(told.status, told.bytes) };
        Reply { after_ns: 0, outcome: Outcome::Answer(answer), tries: 1 }
    }
}

impl Asked for Stored {
    fn forgets(&mut self) {
        let flushed = self.runtime.block_on(self.redis.command(&["FLUSHALL"]));
        assert_eq!(flushed, "+OK\r\n", "{}", self.gateway.output());
    }

    fn ordered(&mut self, now_unix_ns: u64, body: &str) {
        self.redis.set_clock(now_unix_ns / 1_000);
        let told = self.runtime.block_on(self.gateway.command("/v1/breakers/order", body));
        assert_eq!(told.status, 200, "{told:?}");
    }
}
