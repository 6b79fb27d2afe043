//! Owns the load on the gateway alone: 80 to 150 callers, each waiting for its answer before it
//! asks again; Redis running, and stopped. What each was told, and how long it took.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::scope::{CallerScope, Environment, KeyFormat, Tenant};
use tidegate_policy::wire::{self, DecideRequest, DecisionId, LimitCall};

use crate::client;
use crate::gateway::{self, Gateway, TOKEN};
use crate::redis::Redis;

const LASTS: Duration = Duration::from_secs(3);

/// Runs and prints.
pub async fn measure() -> Result<(), String> {
    let mut redis = Redis::start().await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&["--dev"])).await;
    println!(
        "callers of the gateway (its region declared warm), default deadlines (pool wait 15 ms, deadline 30 ms), at most 100 in flight"
    );
    println!(
        "  {:<10} {:>8} {:>9}   answers (status: count, p50, p99 in ms)",
        "Redis", "callers", "answers/s"
    );
    for stopped in [false, true] {
        for callers in [80, 100, 150] {
            if stopped {
                redis.process().signal(libc::SIGSTOP);
            }
            let answers = storm(gateway.addr, callers).await?;
            if stopped {
                redis.process().signal(libc::SIGCONT);
            }
            print(if stopped { "stopped" } else { "running" }, callers, answers);
        }
    }
    Ok(())
}

/// Every answer's status and how long it took.
async fn storm(to: SocketAddr, callers: u32) -> Result<Vec<(u16, Duration)>, String> {
    let tasks: Vec<_> = (0..callers).map(|caller| tokio::spawn(call(to, caller))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(
            task.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?,
        );
    }
    Ok(answers)
}

async fn call(to: SocketAddr, caller: u32) -> std::io::Result<Vec<(u16, Duration)>> {
    let body = wire::encode(&question(caller));
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: load\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        wire::DECIDE_PATH,
        body.len()
    );
    let request = [head.into_bytes(), body].concat();
    let mut stream = client::connect(to, None).await?;
    stream.set_nodelay(true)?;
    let mut answers = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < LASTS {
        let asked = Instant::now();
        let answer = client::raw(&mut stream, &request).await;
        answers.push((answer.status, asked.elapsed()));
    }
    Ok(answers)
}

fn question(caller: u32) -> DecideRequest {
    let name = SubjectName::from_bytes(format!("caller-{caller}").as_bytes());
    DecideRequest {
        claim: None,
        v: wire::VERSION,
        id: DecisionId::new(u128::from(caller)),
        scope: CallerScope {
            region: None,
            environment: Environment::default(),
            tenant: Tenant::None,
            key_format: KeyFormat::default(),
        },
        timeout_ms: 45,
        traceparent: None,
        request_id: None,
        limits: vec![LimitCall {
            id: "load.caller".to_owned(),
            subject: Subject { kind: SubjectKind::Header, name },
            limit: 1_000_000,
            period_us: 1_000_000,
            burst: 1_000_000,
            algorithm: tidegate_policy::limit::Algorithm::Gcra,
            cost: 1,
            shadow: false,
        }],
    }
}

fn print(redis: &str, callers: u32, answers: Vec<(u16, Duration)>) {
    let per_s = answers.len() / usize::try_from(LASTS.as_secs()).expect("seconds");
    let mut by_status: BTreeMap<u16, Vec<Duration>> = BTreeMap::new();
    for (status, took) in answers {
        by_status.entry(status).or_default().push(took);
    }
    let told: Vec<String> = by_status
        .into_iter()
        .map(|(status, mut took)| {
            took.sort_unstable();
            let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1000.0;
            format!("{status}: {}, {:.1}, {:.1}", took.len(), at(50), at(99))
        })
        .collect();
    println!("  {redis:<10} {callers:>8} {per_s:>9}   {}", told.join("   "));
}
