//! Owns turns of load: connections that stay open, each of which asks again when it is answered. A shared
//! machine is another one from second to second (what takes 6 ms differs by 2 % at once, by 11 % after 600 ms): rows
//! that take turns of 25 ms meet the same one. What a filter does on its tick falls into others' turns then.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::cores::Apart;
use super::envoy_rows::Effort;
use super::pace;
use super::stats::{Figures, shuffle};
use crate::envoy::Envoy;

/// How turns are taken.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// How long a row asks before its turn begins: what it owes from then is as much as it leaves behind.
    lead: Duration,
    /// How long one turn is.
    turn: Duration,
    /// From one request of a connection to its next one; none: as soon as it is answered.
    pace: Option<Duration>,
    /// Turns of each row for one figure.
    for_a_figure: u32,
    /// Figures for one of a row's rounds of a second.
    for_a_round: u32,
}

/// What a request costs by itself: as many turns for a figure as are as long together as from one tick of the filter to the next.
pub const SHORT: Style = Style {
    lead: Duration::ZERO,
    turn: Duration::from_millis(25),
    pace: None,
    for_a_figure: 10,
    for_a_round: 8,
};

/// With what its worker does for it later, on the tick: two of them, among requests at a pace at which who is told keeps up.
/// Without a pace Envoy would wait for callers whose core the gateway takes, and answer more of them at once.
pub const STEADY: Style = Style {
    lead: Duration::from_millis(300),
    turn: Duration::from_millis(500),
    pace: Some(Duration::from_millis(1)),
    for_a_figure: 1,
    for_a_round: 4,
};

/// Longer nobody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who asks.
struct Caller {
    connections: Vec<Connection>,
    request: Vec<u8>,
}

/// What one turn came to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Turn {
    /// Answers.
    requests: f64,
    /// Of them not 2xx or 3xx.
    refused: f64,
    /// How long it took.
    seconds: f64,
}

/// What turns came to together.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    requests: f64,
    seconds: f64,
    cpu_us: f64,
}

struct Connection {
    stream: TcpStream,
    /// What was read, and how much of it belongs to earlier answers.
    read: Vec<u8>,
}

/// What a row came to by turns.
#[derive(Debug, Default)]
pub struct Taken {
    /// Requests per second.
    pub rps: Figures,
    /// Envoy's CPU time for each, in µs.
    pub envoy_cpu_us: Figures,
}

/// Rows take turns: their names, Envoys, and whether it is the refusal that is measured; `behind`: the processes that they ask.
pub fn take(
    rows: &mut [(&'static str, &mut Envoy, bool)],
    effort: Effort,
    connections: u32,
    style: Style,
    behind: &[u32],
) -> Result<Vec<Taken>, String> {
    let named = |name: &str, error: io::Error| format!("{name}, by turns: {error}");
    let measured: Vec<u32> = rows.iter_mut().map(|(_, envoy, _)| envoy.process().pid()).collect();
    // Callers that wait for nothing would leave nobody else a moment.
    let behind = if style.pace.is_some() { behind } else { &[] };
    let _apart = Apart::keep(&measured, behind).map_err(|error| format!("cores: {error}"))?;
    let mut callers = Vec::new();
    for (name, envoy, _) in &*rows {
        let caller = Caller::open(envoy.addr, "/bench", connections);
        callers.push(caller.map_err(|error| named(name, error))?);
    }
    let mut taken: Vec<Taken> = rows.iter().map(|_| Taken::default()).collect();
    let (mut seed, mut order) = (effort.seed, (0..rows.len()).collect::<Vec<_>>());
    // One that does not count: code is compiled.
    for figure in 0..=effort.rounds * style.for_a_round {
        let mut sums = vec![Sum::default(); rows.len()];
        for _ in 0..style.for_a_figure {
            shuffle(&mut order, &mut seed);
            for &index in &order {
                let (name, envoy, denies) = &mut rows[index];
                let mut turn = |lasts| {
                    callers[index].turn(lasts, style.pace).map_err(|error| named(name, error))
                };
                if !style.lead.is_zero() {
                    turn(style.lead)?;
                }
                let before = envoy.process().cpu_us();
                let turn = turn(style.turn)?;
                let cpu_us = envoy.process().cpu_us() - before;
                if !*denies && figure > 0 && turn.refused > 0.0 {
                    let Turn { requests, refused, .. } = turn;
                    return Err(format!("{name}: of {requests} requests {refused} were refused"));
                }
                sums[index].requests += turn.requests;
                sums[index].seconds += turn.seconds;
                sums[index].cpu_us += f64::from(u32::try_from(cpu_us).unwrap_or(u32::MAX));
            }
        }
        if figure > 0 {
            for (Sum { requests, seconds, cpu_us }, taken) in sums.into_iter().zip(&mut taken) {
                taken.rps.push(requests / seconds);
                taken.envoy_cpu_us.push(cpu_us / requests);
            }
        }
    }
    Ok(taken)
}

// === impl Caller ===

impl Caller {
    /// So many connections.
    fn open(to: SocketAddr, path: &str, connections: u32) -> io::Result<Self> {
        let open = || {
            let stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Connection { stream, read: Vec::new() })
        };
        let connections = (0..connections).map(|_| open()).collect::<io::Result<_>>()?;
        Ok(Self {
            connections,
            request: format!("GET {path} HTTP/1.1\r\nhost: {to}\r\n\r\n").into(),
        })
    }

    /// Asks on all of them for so long; ends when all are answered.
    fn turn(&mut self, lasts: Duration, pace: Option<Duration>) -> io::Result<Turn> {
        let Self { connections, request } = self;
        let (begin, mut requests, mut refused) = (Instant::now(), 0_u32, 0_u32);
        for connection in &mut *connections {
            connection.stream.write_all(request)?;
        }
        let (mut goes_on, mut next) = (true, begin);
        while goes_on {
            goes_on = begin.elapsed() < lasts;
            for connection in &mut *connections {
                let status = connection.answer()?;
                requests += 1;
                refused += u32::from(status >= 400);
                if goes_on && pace.is_none() {
                    connection.stream.write_all(request)?;
                }
            }
            if let (true, Some(pace)) = (goes_on, pace) {
                next = (next + pace).max(Instant::now());
                pace::rest(next.saturating_duration_since(Instant::now()));
                for connection in &mut *connections {
                    connection.stream.write_all(request)?;
                }
            }
        }
        let (requests, refused) = (f64::from(requests), f64::from(refused));
        Ok(Turn { requests, refused, seconds: begin.elapsed().as_secs_f64() })
    }
}

// === impl Connection ===

impl Connection {
    /// The status of the next answer, once it has come whole.
    fn answer(&mut self) -> io::Result<u16> {
        loop {
            if let Some((status, length)) = head(&self.read)?
                && self.read.len() >= length
            {
                self.read.drain(..length);
                return Ok(status);
            }
            let mut part = [0; 4096];
            let read = self.stream.read(&mut part)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read.extend_from_slice(&part[..read]);
        }
    }
}

/// The status of an answer that begins here, and its length with the body; `None` before its head has come.
fn head(read: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let wrong = |what: &str| io::Error::other(format!("{what}: {}", read.escape_ascii()));
    let head = str::from_utf8(&read[..end]).map_err(|error| wrong(&error.to_string()))?;
    let status = head.get(9..12).and_then(|digits| digits.parse().ok());
    let field = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let body: Option<usize> = field.and_then(|value| value.trim().parse().ok());
    let (status, body) = status.zip(body).ok_or_else(|| wrong("no status or no length"))?;
    Ok(Some((status, end + 4 + body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let answer =
            b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 3\r\nx: y\r\n\r\nabcHTTP/1.1 ";
        let end = answer.len() - "HTTP/1.1 ".len();
        assert_eq!(head(answer).expect("sound"), Some((429, end)));
        assert_eq!(head(&answer[..40]).expect("sound"), None);
        assert!(head(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n").is_err(), "its end is not told");
    }
}
