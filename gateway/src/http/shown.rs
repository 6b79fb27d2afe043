//! Owns what a connection has shown of who is at its other end, and what becomes of it for that. Knows no
//! sockets and no tokens.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::clock::whole_us;

/// What a connection has shown of who is at its other end.
pub struct Shown {
    /// When it began.
    pub born: Instant,
    /// Whether a request has come.
    pub asked: AtomicBool,
    /// When it last asked for what anybody may ask for, in µs of its life.
    open_us: AtomicU64,
    refused: AtomicBool,
    /// Whether any request was one that its caller may ask: such a connection stays for as long as its caller likes.
    known: AtomicBool,
}

/// What becomes of a connection whose time is up.
pub enum Next {
    /// It may stay.
    Stays,
    /// It may, until then.
    Waits(Instant),
    /// It is told to go.
    Goes,
    /// It never asked.
    Ends,
}

// === impl Shown ===

impl Shown {
    /// Nothing yet.
    pub fn new() -> Self {
        let no = || AtomicBool::new(false);
        let (born, open_us) = (Instant::now(), AtomicU64::new(0));
        Self { born, asked: no(), open_us, refused: no(), known: no() }
    }

    /// Takes in how a request was answered.
    pub fn note(&self, open: bool, status: StatusCode) {
        if open {
            self.open_us.store(whole_us(self.born.elapsed()), Ordering::Relaxed);
        } else if status == StatusCode::UNAUTHORIZED {
            self.refused.store(true, Ordering::Relaxed);
        } else if !self.known.load(Ordering::Relaxed) {
            self.known.store(true, Ordering::Relaxed);
        }
    }

    /// Whoever has no token may neither hold a connection nor many of them.
    pub fn next(&self, idle_timeout: Duration) -> Next {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if is(&self.known) {
            return Next::Stays;
        }
        if !is(&self.asked) {
            return Next::Ends;
        }
        let open = Duration::from_micros(self.open_us.load(Ordering::Relaxed));
        let until = self.born + open + idle_timeout;
        let waits = !is(&self.refused) && until > Instant::now();
        if waits { Next::Waits(until) } else { Next::Goes }
    }
}
