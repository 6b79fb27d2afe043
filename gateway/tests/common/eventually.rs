//! Owns the one way to wait for something in these tests: ask again until it holds or a deadline
//! ends.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

const STEP: Duration = Duration::from_millis(10);

/// Asks `probe` until it gives `Ok`, at most for `deadline`; then panics with the last `Err`.
pub async fn eventually<T, E: Debug>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) if Instant::now() >= end => {
                panic!("not within {deadline:?}: {what}; last seen: {last:?}")
            }
            Err(_last) => sleep(STEP).await,
        }
    }
}
