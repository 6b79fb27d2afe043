//! Owns the one way to wait for something in a test: ask again until it holds or a deadline ends.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two questions.
const STEP: Duration = Duration::from_millis(10);

/// Asks `probe` until it gives `Ok`, at most for `deadline`; then panics with the last `Err`.
pub async fn eventually<T, E: Debug, F>(deadline: Duration, what: &str, mut probe: F) -> T
where
    F: AsyncFnMut() -> Result<T, E>,
{
    let end = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) if Instant::now() >= end => {
                panic!("not within {deadline:?}: {what}; last seen: {last:?}")
            }
            Err(_) => sleep(STEP).await,
        }
    }
}

/// Waits as long as an answer says (`Retry-After`), and no shorter.
pub async fn as_told(wait: Duration) {
    sleep(wait).await;
}
