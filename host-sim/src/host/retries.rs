//! Retries of a callout that asks for them in its headers, as Envoy's router does. It must not know who asked.
//!
//! Envoy draws a wait of up to 25, 75, ... ms before each; a run takes the shortest, which is none.

use super::headers::HeaderMap;
use super::service::{Fault, Outcome, Reply};

/// What a callout's headers ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Retries {
    left: u32,
    have_begun: bool,
    on: Vec<String>,
}

impl Retries {
    /// Takes the wishes off the headers, which never reach the service.
    pub(crate) fn take(headers: &mut HeaderMap) -> Self {
        let on = headers.text("x-envoy-retry-on").unwrap_or_default();
        let count = headers.text("x-envoy-max-retries").and_then(|count| count.parse().ok());
        for name in ["x-envoy-retry-on", "x-envoy-max-retries"] {
            headers.remove(name.as_bytes());
        }
        let on: Vec<String> = on.split(',').map(|word| word.trim().to_owned()).collect();
        Self { left: if on.is_empty() { 0 } else { count.unwrap_or(1) }, have_begun: false, on }
    }

    /// Whether a reply is not for the plugin but a reason to try again.
    pub(crate) fn tries_again_after(&mut self, reply: &Reply) -> bool {
        if self.left == 0 || !self.is_wanted(&reply.outcome) {
            return false;
        }
        self.left -= 1;
        self.have_begun = true;
        true
    }

    /// Whether the next try is not the first.
    pub(crate) fn have_begun(&self) -> bool {
        self.have_begun
    }

    fn is_wanted(&self, outcome: &Outcome) -> bool {
        let wants = |word: &str| self.on.iter().any(|on| on == word);
        match outcome {
            Outcome::Answer(answer) => match answer.status {
                502..=504 => wants("5xx") || wants("gateway-error"),
                500..=599 => wants("5xx"),
                409 => wants("retriable-4xx"),
                _ => false,
            },
            Outcome::Fault(Fault::Refused) => {
                wants("5xx") || wants("reset") || wants("connect-failure") || wants("gateway-error")
            }
            Outcome::Fault(Fault::ResetBeforeHeaders | Fault::Garbage) => {
                wants("5xx") || wants("reset") || wants("gateway-error")
            }
            Outcome::Fault(
                Fault::Timeout | Fault::ResetAfterHeaders | Fault::NoHosts | Fault::Overflow,
            ) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::service::Answer;

    fn retries(on: &str, max: &str) -> (Retries, HeaderMap) {
        let mut headers = HeaderMap::default();
        headers.add(b"x-envoy-retry-on", on);
        headers.add(b"x-envoy-max-retries", max);
        headers.add(b"x-a", "1");
        (Retries::take(&mut headers), headers)
    }

    #[test]
    fn wishes_are_taken_off_and_counted() {
        let (mut retries, headers) = retries("5xx, reset", "2");
        assert_eq!(headers.count(), 1);
        let reply = Reply::now(Answer::new(500, ""));
        let tries: Vec<_> = (0..3).map(|_| retries.tries_again_after(&reply)).collect();
        assert_eq!(tries, [true, true, false]);
    }

    #[test]
    fn only_what_is_asked_for_is_tried_again() {
        let answer = |status| Outcome::Answer(Answer::new(status, ""));
        let rows = [
            ("5xx", answer(500), true),
            ("5xx", answer(404), false),
            ("gateway-error", answer(500), false),
            ("gateway-error", answer(503), true),
            ("retriable-4xx", answer(409), true),
            ("connect-failure", Outcome::Fault(Fault::Refused), true),
            ("connect-failure", Outcome::Fault(Fault::ResetBeforeHeaders), false),
            ("reset", Outcome::Fault(Fault::ResetBeforeHeaders), true),
            ("5xx", Outcome::Fault(Fault::Timeout), false),
            ("", answer(503), false),
        ];
        for (on, outcome, expected) in rows {
            let (mut retries, _) = retries(on, "1");
            let reply = Reply { after_ns: 0, outcome, tries: 1 };
            assert_eq!(retries.tries_again_after(&reply), expected, "{on} {reply:?}");
        }
    }
}
