//! Owns `adaptive` of a circuit breaker: from which share on failures open it that are more than usual.

use alloc::format;

use super::super::read::duration_ms;
use super::super::reader::Table;
use super::super::rollout::share_bp;
use super::super::shapes;
use super::permille;
use crate::breaker::mesh::{Adaptive, OVER_MS_MAX, Window};

const REMEDY: &str = "write {\"min\": \"5%\", \"over\": \"10m\"}, or {} for just that";
const MIN_PERMILLE: u16 = 50;
const OVER_MS: u32 = 600_000;
const OVER_MS_MIN: u64 = 60_000;

/// `None` inside if it is off.
pub(super) fn adaptive(
    table: &Table<'_, '_>,
    window: &Window,
    failure_permille: u16,
) -> Option<Option<Adaptive>> {
    let Some(at) = table.get("adaptive") else { return Some(None) };
    let fields = at.table(shapes::ADAPTIVE.known, REMEDY)?;
    let Window::Ms(span_ms) = *window else {
        at.wrong(
            "with a window by count nobody knows what is usual of a time",
            "write window as a time, such as 10s, or leave adaptive out",
        );
        return None;
    };
    if failure_permille == 0 {
        at.wrong(
            "with a failure_rate of 0% it has no upper bound",
            "give failure_rate the share that opens it in any case",
        );
        return None;
    }
    let min_permille = match fields.get("min") {
        None if MIN_PERMILLE < failure_permille => MIN_PERMILLE,
        None => {
            at.wrong(
                "min is 5% unless told, and failure_rate opens it no later",
                "give min a share below failure_rate",
            );
            return None;
        }
        Some(min) => {
            let permille = permille(share_bp(&min)?);
            if !(1..failure_permille).contains(&permille) {
                min.wrong(
                    "it has to lie above 0% and below failure_rate, which opens it in any case",
                    "write \"5%\", or another share below failure_rate",
                );
                return None;
            }
            permille
        }
    };
    let over_ms = match fields.get("over") {
        None => OVER_MS.max(span_ms),
        Some(over) => {
            let ms = duration_ms(
                &over,
                OVER_MS_MIN,
                OVER_MS_MAX.into(),
                "write 10m, or another duration from 1m to 24h",
            )?;
            let ms = u32::try_from(ms).ok()?;
            if ms < span_ms {
                over.wrong(
                    format!("{ms} ms are less than the window of {span_ms} ms"),
                    "learn over ten windows or more",
                );
                return None;
            }
            ms
        }
    };
    Some(Some(Adaptive { min_permille, over_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use alloc::string::{String, ToString};

    fn read(circuit: &str) -> Result<Option<Adaptive>, String> {
        let reading = Config::read(&format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}},
                "policies": [{{"name": "p", "match": {{"path": "/"}}, "circuit_breaker": {circuit}}}]}}"#
        ));
        let told = reading.diagnostics.iter().map(|one| one.to_string() + "\n").collect();
        let Some(config) = reading.config else { return Err(told) };
        let terms = config.circuit_breakers[0].own.terms;
        assert_eq!(terms.check(), Ok(()), "{circuit}");
        Ok(terms.adaptive)
    }

    #[test]
    fn it_is_off_unless_told_and_needs_no_numbers() {
        let rows = [
            ("{}", None),
            (r#"{"adaptive": {}}"#, Some((50, 600_000))),
            (r#"{"window": "1h", "adaptive": {}}"#, Some((50, 3_600_000))),
            (r#"{"adaptive": {"min": "0.05%", "over": "24h"}}"#, Some((1, 86_400_000))),
            (
                r#"{"failure_rate": "5%", "adaptive": {"min": "4.9%", "over": "1m"}}"#,
                Some((49, 60_000)),
            ),
        ];
        for (circuit, expected) in rows {
            let expected =
                expected.map(|(min_permille, over_ms)| Adaptive { min_permille, over_ms });
            assert_eq!(read(circuit), Ok(expected), "{circuit}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rows = [
            (r#"{"adaptive": true}"#, "circuit_breaker.adaptive"),
            (r#"{"window": {"calls": 100}, "adaptive": {}}"#, "write window as a time"),
            (r#"{"failure_rate": "0%", "adaptive": {}}"#, "no upper bound"),
            (r#"{"failure_rate": "5%", "adaptive": {}}"#, "give min a share below failure_rate"),
            (r#"{"adaptive": {"min": "0%"}}"#, "circuit_breaker.adaptive.min"),
            (r#"{"adaptive": {"min": "50%"}}"#, "below failure_rate"),
            (r#"{"adaptive": {"over": "59s"}}"#, "circuit_breaker.adaptive.over"),
            (r#"{"window": "1h", "adaptive": {"over": "59m"}}"#, "less than the window"),
            (r#"{"adaptive": {"over": "25h"}}"#, "circuit_breaker.adaptive.over"),
        ];
        for (circuit, expected) in rows {
            let told = read(circuit).expect_err(circuit);
            assert!(told.contains(expected), "{circuit}: {told}");
        }
    }
}
