//! Owns reading a request's body within bounds of size and time. Knows nothing of what it says.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use tidegate_policy::reason::Reason;
use tidegate_policy::wire::BadMessage;

use super::answer::{self, Answer};

/// A filter sends its whole message at once; longer than this is a stalled or hostile client.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The body, or the answer that refuses it. Holds no place in the service while it reads.
pub async fn read<B>(headers: &HeaderMap, body: B, len_max: usize) -> Result<Bytes, Answer>
where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|len: u64| len > u64::try_from(len_max).unwrap_or(u64::MAX)) {
        return Err(too_long());
    }
    let mut whole = pin!(Limited::new(body, len_max).collect());
    // A message that has arrived with its head needs no timer.
    let first = poll_fn(|context| Poll::Ready(whole.as_mut().poll(context))).await;
    let read = match first {
        Poll::Ready(read) => Ok(read),
        Poll::Pending => tokio::time::timeout(READ_TIMEOUT, whole).await,
    };
    match read {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a body broke off");
            Err(refuse(StatusCode::BAD_REQUEST, "the message broke off"))
        }
        Err(_elapsed) => {
            Err(refuse(StatusCode::REQUEST_TIMEOUT, "the message did not arrive in time"))
        }
    }
}

fn too_long() -> Answer {
    refuse(StatusCode::PAYLOAD_TOO_LARGE, &BadMessage::TooLong.to_string())
}

fn refuse(status: StatusCode, detail: &str) -> Answer {
    answer::problem(status, Reason::BadMessage, detail, None)
}
