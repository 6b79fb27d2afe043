//! How a file says which orders of its threads are run. It must not choose any.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use crate::world::schedule::Interleavings;

/// `all`, a number of seeded ones, or the choices of one.
#[derive(Debug, Clone)]
pub(crate) struct RawInterleavings(pub(crate) Interleavings);

/// More than two threads with many steps have more orders than a test should wait for; the run then fails and says so.
pub(crate) const RUNS_MAX: u64 = 100_000;

struct InterleavingsVisitor;

impl<'de> Visitor<'de> for InterleavingsVisitor {
    type Value = RawInterleavings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all, a number of seeded runs, or the list of choices a failure printed")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawInterleavings, E> {
        match text {
            "all" => Ok(RawInterleavings(Interleavings::All { runs_max: RUNS_MAX })),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, runs: u64) -> Result<RawInterleavings, E> {
        if (1..=RUNS_MAX).contains(&runs) {
            Ok(RawInterleavings(Interleavings::Seeded { runs }))
        } else {
            Err(E::custom(format!("{runs} runs are not between 1 and {RUNS_MAX}")))
        }
    }

    fn visit_i64<E: de::Error>(self, runs: i64) -> Result<RawInterleavings, E> {
        match u64::try_from(runs) {
            Ok(runs) => self.visit_u64(runs),
            Err(_negative) => Err(E::invalid_value(de::Unexpected::Signed(runs), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawInterleavings, A::Error> {
        let mut choices = Vec::new();
        while let Some(choice) = seq.next_element()? {
            choices.push(choice);
        }
        Ok(RawInterleavings(Interleavings::One(choices)))
    }
}

impl<'de> Deserialize<'de> for RawInterleavings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InterleavingsVisitor)
    }
}
