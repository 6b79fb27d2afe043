//! Owns a whole run: every scenario through both runners, and again where they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use super::corpus::Case;
use super::exceptions::exceptions;
use super::judged::Judged;
use super::measured::{measure, runner};
use super::simulated::{Simulated, simulate};
use crate::parts;

/// How many Envoys run at a time beside none; each compiles the plugin at its start, which takes a
/// processor. What is run again has the machine to itself: its moments are 30 ms apart.
const AT_A_TIME: usize = 3;

/// How to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often a scenario that differs is run again: on a busy machine a moment may be missed,
    /// and a difference that is one repeats itself.
    pub repeats: usize,
    /// Whether each scenario has an Envoy of its own, which finds those that kill one.
    pub all_alone: bool,
}

/// A scenario after its run in the simulator.
struct Prepared {
    case: Case,
    simulated: Simulated,
}

impl Default for Options {
    fn default() -> Self {
        Self { repeats: 4, all_alone: false }
    }
}

/// Runs scenarios in both hosts; in one Envoy, except where a scenario asks for its own.
pub async fn run(cases: Vec<Case>, options: &Options) -> Vec<Judged> {
    let wasm = fs::read(parts::filter("conformance")).expect("the built filter");
    let runner = runner();
    let prepare = |case: Case| {
        let simulated = simulate(&runner, &case, &wasm);
        Arc::new(Prepared { case, simulated })
    };
    let all: Vec<Arc<Prepared>> = cases.into_iter().map(prepare).collect();
    let mut left = all.clone();
    let mut judged: BTreeMap<String, Judged> = BTreeMap::new();
    for turn in 0..=options.repeats {
        let at_a_time = if turn == 0 { AT_A_TIME } else { 1 };
        let fresh = once(&left, options.all_alone, at_a_time).await;
        let differ: BTreeSet<String> =
            fresh.iter().filter(|one| !one.agrees()).map(|one| one.id.clone()).collect();
        judged.extend(fresh.into_iter().map(|one| (one.id.clone(), one)));
        left.retain(|one| differ.contains(&one.case.id));
    }
    all.iter().filter_map(|one| judged.remove(&one.case.id)).collect()
}

/// First all that share an Envoy, then the others.
async fn once(all: &[Arc<Prepared>], all_alone: bool, at_a_time: usize) -> Vec<Judged> {
    let is_alone = |one: &Arc<Prepared>| all_alone || one.case.is_alone();
    let (alone, together): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_alone);
    let mut judged = group(together).await;
    // What watches over an Envoy stays on one thread; clients and services are tasks of their own.
    let watched = LocalSet::new();
    let places = Arc::new(Semaphore::new(at_a_time));
    let mut running = JoinSet::new();
    for one in alone {
        let places = Arc::clone(&places);
        let run = async move {
            let _place = places.acquire().await.expect("an open semaphore");
            group(vec![one]).await
        };
        running.spawn_local_on(run, &watched);
    }
    let all_done = async {
        while let Some(done) = running.join_next().await {
            judged.extend(done.expect("no panic"));
        }
    };
    watched.run_until(all_done).await;
    judged
}

/// Scenarios that share an Envoy.
async fn group(all: Vec<Arc<Prepared>>) -> Vec<Judged> {
    if all.is_empty() {
        return Vec::new();
    }
    let cases: Vec<&Case> = all.iter().map(|one| &one.case).collect();
    let simulated: Vec<&Simulated> = all.iter().map(|one| &one.simulated).collect();
    let measured = measure(&cases, &simulated).await;
    let accepted = exceptions();
    let judge = |(one, measured): (&Arc<Prepared>, Vec<_>)| {
        let exception = accepted.get(&one.case.name).cloned();
        Judged::new(&one.case, &one.simulated, measured, exception)
    };
    all.iter().zip(measured).map(judge).collect()
}

/// Accepted differences whose scenario does not exist.
pub fn strayed_exceptions(cases: &[Case]) -> Vec<String> {
    let known: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    exceptions().into_keys().filter(|name| !known.contains(name.as_str())).collect()
}
