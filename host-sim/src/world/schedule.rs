//! Whose turn it is, where more than one VM could go on. It must not know what a turn does.

use crate::host::random::Random;

/// How a run's interleaving is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Interleavings {
    /// Every one, one run each, but no more runs than this.
    All { runs_max: u64 },
    /// So many, drawn from the scenario's seed.
    Seeded { runs: u64 },
    /// One, as an earlier failure printed it.
    One(Vec<usize>),
}

/// The choices of one run.
pub(crate) struct Schedule {
    given: Vec<usize>,
    random: Option<Random>,
    taken: Vec<Choice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    chosen: usize,
    options: usize,
}

impl Schedule {
    /// These choices, and the first of what there is after them.
    pub(crate) fn given(choices: Vec<usize>) -> Self {
        Self { given: choices, random: None, taken: Vec::new() }
    }

    /// Choices drawn from a seed.
    pub(crate) fn seeded(seed: u64, run: u64) -> Self {
        let random = Random::new(seed, &format!("interleaving {run}"));
        Self { given: Vec::new(), random: Some(random), taken: Vec::new() }
    }

    /// One of so many; where there is but one, nothing is chosen.
    pub(crate) fn choose(&mut self, options: usize) -> usize {
        if options < 2 {
            return 0;
        }
        let chosen = match &mut self.random {
            Some(random) => random.below(options),
            None => self.given.get(self.taken.len()).copied().unwrap_or(0).min(options - 1),
        };
        self.taken.push(Choice { chosen, options });
        chosen
    }

    pub(crate) fn choices(&self) -> Vec<usize> {
        self.taken.iter().map(|choice| choice.chosen).collect()
    }

    /// The next run's choices in a walk through all of them, depth first; none after the last.
    pub(crate) fn next(mut self) -> Option<Vec<usize>> {
        while let Some(last) = self.taken.pop() {
            if last.chosen + 1 < last.options {
                let mut choices = self.choices();
                choices.push(last.chosen + 1);
                return Some(choices);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two turns of two and one of three: the number of leaves is known.
    #[test]
    fn a_walk_visits_every_leaf_once_and_ends() {
        let mut seen = std::collections::BTreeSet::new();
        let mut next = Some(Vec::new());
        while let Some(choices) = next {
            let mut schedule = Schedule::given(choices);
            let first = schedule.choose(2);
            let second = schedule.choose(if first == 0 { 2 } else { 3 });
            assert_eq!(schedule.choose(1), 0);
            assert!(seen.insert((first, second)));
            next = schedule.next();
        }
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn a_seed_draws_the_same_choices_again_and_given_ones_are_followed() {
        let draw = |seed| {
            let mut schedule = Schedule::seeded(seed, 3);
            (0..20).map(|_| schedule.choose(3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut schedule = Schedule::given(vec![1, 9]);
        assert_eq!([schedule.choose(2), schedule.choose(2), schedule.choose(2)], [1, 1, 0]);
    }
}
