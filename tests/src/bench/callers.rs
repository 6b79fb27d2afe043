//! Owns callers of one gateway over HTTP/2, as Envoy asks: by a timetable, whatever became of the calls before
//! (an open loop), or without a pause, each waiting for its answer (a closed one).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::pace;
use crate::gateway::TOKEN;

const CONNECTIONS: usize = 4;
const WINDOW_BYTES: u32 = 16 * 1_024 * 1_024;
/// An answer that comes later is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections to one gateway.
pub struct Connections {
    open: Vec<SendRequest<Bytes>>,
    to: Authority,
    token: HeaderValue,
    patience: Duration,
}

// === impl Connections ===

impl Connections {
    /// Opens them.
    pub async fn open(to: SocketAddr) -> Result<Arc<Self>, String> {
        Self::open_with(to, PATIENCE).await
    }

    /// Opens them for callers that give a call up after `patience`, as a filter does.
    pub async fn open_with(to: SocketAddr, patience: Duration) -> Result<Arc<Self>, String> {
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            // Answers that a busy caller has not read yet are no attack.
            let mut builder = h2::client::Builder::new();
            builder.initial_connection_window_size(WINDOW_BYTES);
            let opened = builder.handshake(stream).await;
            let (connection, driver) = opened.map_err(|error| error.to_string())?;
            tokio::spawn(driver);
            open.push(connection);
        }
        let to = Authority::try_from(to.to_string()).map_err(|error| error.to_string())?;
        let token = HeaderValue::try_from(format!("Bearer {TOKEN}"));
        let token = token.map_err(|error| error.to_string())?;
        Ok(Arc::new(Self { open, to, token, patience }))
    }

    /// The status and the body; `None` without an answer in time.
    pub async fn post(&self, nth: u64, path: &'static str, sent: Bytes) -> Option<(u16, Vec<u8>)> {
        timeout(self.patience, self.ask(nth, path, sent)).await.ok()?.ok()
    }

    async fn ask(
        &self,
        nth: u64,
        path: &'static str,
        sent: Bytes,
    ) -> Result<(u16, Vec<u8>), h2::Error> {
        let place = usize::try_from(nth).expect("64 bits") % CONNECTIONS;
        let mut send = self.open[place].clone().ready().await?;
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.to.clone())
            .path_and_query(PathAndQuery::from_static(path))
            .build()
            .expect("a sound address");
        let request = Request::post(uri).header(AUTHORIZATION, self.token.clone());
        let request = request.body(()).expect("a sound head");
        let (answer, mut body) = send.send_request(request, false)?;
        body.send_data(sent, true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        Ok((head.status.as_u16(), bytes))
    }
}

/// What became of so many calls per second; each is told its number and when it is due.
pub async fn by_timetable<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    per_s: u64,
    lasts: Duration,
    mut call: impl FnMut(u64, Instant) -> F,
) -> Vec<T> {
    let begin = Instant::now();
    let mut releases = pace::released(per_s, begin, lasts);
    let mut calls = JoinSet::new();
    while let Some(numbers) = releases.recv().await {
        for nth in numbers {
            calls.spawn(call(nth, begin + pace::due(nth, per_s)));
        }
    }
    calls.join_all().await
}

/// How many calls went well per second, of so many callers that ask again once they are answered; each call
/// is told whose it is.
pub async fn without_a_pause<C, F>(callers: u32, lasts: Duration, call: C) -> f64
where
    C: Fn(u32) -> F + Clone + Send + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let call = call.clone();
        tasks.spawn(async move {
            let mut well = 0_u32;
            while begin.elapsed() < lasts {
                well += u32::from(call(caller).await);
            }
            well
        });
    }
    f64::from(tasks.join_all().await.into_iter().sum::<u32>()) / lasts.as_secs_f64()
}
