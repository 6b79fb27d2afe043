//! Owns how the many store calls of one message are made: some of them at once. Knows nothing of what is called.

use std::future::poll_fn;
use std::task::Poll;

use crate::store::{Call, StoreFailure};

/// That many calls of one message are under way at once.
const TOGETHER: usize = 16;

/// All of these calls, their outcomes in order: one that fails keeps none of the others from being made. Needs no
/// runtime.
pub async fn together<T>(calls: Vec<Call<T>>) -> Vec<Result<T, StoreFailure>> {
    let mut done: Vec<Option<Result<T, StoreFailure>>> = calls.iter().map(|_| None).collect();
    as_they_come(calls, |place, outcome| {
        if let Some(done) = done.get_mut(place) {
            *done = Some(outcome);
        }
        true
    })
    .await;
    done.into_iter().flatten().collect()
}

/// The same, and each outcome as it comes with its place. Once `take` says that it is enough no more are begun; those under
/// way are waited for.
pub async fn as_they_come<T>(
    calls: Vec<Call<T>>,
    mut take: impl FnMut(usize, Result<T, StoreFailure>) -> bool,
) {
    let mut left = calls.into_iter().enumerate();
    let mut under_way: Vec<(usize, Call<T>)> = Vec::with_capacity(TOGETHER);
    let mut goes_on = true;
    poll_fn(|context| {
        loop {
            if goes_on {
                under_way.extend(left.by_ref().take(TOGETHER.saturating_sub(under_way.len())));
            }
            let before = under_way.len();
            under_way.retain_mut(|(place, call)| match call.as_mut().poll(context) {
                Poll::Ready(outcome) => {
                    goes_on &= take(*place, outcome);
                    false
                }
                Poll::Pending => true,
            });
            match under_way.len() {
                0 if left.len() == 0 || !goes_on => return Poll::Ready(()),
                after if after == before => return Poll::Pending,
                _ => {}
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn sixteen_are_under_way_at_once_and_the_outcomes_stand_in_order() {
        let begun = Arc::new(AtomicUsize::new(0));
        let (mut ends, mut calls) = (Vec::new(), Vec::new());
        for number in 0..40 {
            let ((end, ended), begun) = (oneshot::channel(), Arc::clone(&begun));
            let call: Call<u32> = Box::pin(async move {
                begun.fetch_add(1, Ordering::Relaxed);
                ended.await.expect("it is ended");
                if number % 3 == 0 { Err(StoreFailure::Timeout) } else { Ok(number) }
            });
            ends.push(Some(end));
            calls.push(call);
        }
        let mut all = pin!(together(calls));
        // The seventh of them first: each goes its own way.
        for (ended, end) in (0..40).zip((7..40).chain(0..7)) {
            let polled = poll_fn(|context| Poll::Ready(all.as_mut().poll(context))).await;
            assert!(polled.is_pending(), "{ended}");
            assert_eq!(begun.load(Ordering::Relaxed), (16 + ended).min(40));
            let end: oneshot::Sender<()> = ends[end].take().expect("once");
            end.send(()).expect("it waits, or is still to begin");
        }
        let expected = (0..40).map(|n| if n % 3 == 0 { Err(StoreFailure::Timeout) } else { Ok(n) });
        assert_eq!(all.await, expected.collect::<Vec<_>>());
        assert_eq!(together(Vec::<Call<()>>::new()).await, []);
    }
}
