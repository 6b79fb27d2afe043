//! Owns the search for breakers that depend on themselves.

use alloc::vec::Vec;

/// The way from `start` back to itself, if there is one. `done`: from there no way leads to a circle.
pub(super) fn circle(edges: &[&[usize]], start: usize, done: &mut [bool]) -> Option<Vec<usize>> {
    // The way so far, each with how many of its edges were taken.
    let mut way: Vec<(usize, usize)> = alloc::vec![(start, 0)];
    while let Some((place, taken)) = way.last_mut() {
        let next = edges.get(*place).and_then(|edges| edges.get(*taken)).copied();
        *taken = taken.saturating_add(1);
        match next {
            Some(next) if way.iter().any(|(place, _)| *place == next) => {
                let from = way.iter().position(|(place, _)| *place == next)?;
                let mut names: Vec<usize> =
                    way.iter().skip(from).map(|(place, _)| *place).collect();
                names.push(next);
                return Some(names);
            }
            Some(next) if done.get(next).copied().unwrap_or(true) => {}
            Some(next) => way.push((next, 0)),
            None => {
                if let Some((place, _)) = way.pop()
                    && let Some(done) = done.get_mut(place)
                {
                    *done = true;
                }
            }
        }
    }
    None
}
