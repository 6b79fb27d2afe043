//! Owns noticing that a server began anew from a snapshot, which brings old marks back, and counts that lack what was
//! admitted since: its region is made cold. Knows no limits. Record 0107.
//!
//! Beside each mark lies under which run of which server it was last seen. A snapshot brings that back as well, so whoever
//! connects sees another run than the server's own, also a gateway that began later.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};

use super::cluster::slots;
use super::info::Info;
use super::link::Live;
use super::marks::{self, Marking};
use crate::store::{Temperature, keys};

/// What is guarded on one server.
#[derive(Debug, Clone, Default)]
pub struct Guarded {
    /// Every mark that may lie there.
    pub marks: Arc<[String]>,
    /// Where the server is among several, between which marks move: `host:port`; empty if it has them all.
    pub node: String,
}

/// What was said once and need not be said again.
#[derive(Debug, Default)]
pub struct Said {
    snapshots: AtomicBool,
    untold: AtomicBool,
}

/// One life of a server as a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run<'i> {
    process: &'i str,
    history: &'i str,
    /// Its id among several, or where it is if none is told, as gateways kept it that did not ask for the id.
    node: &'i str,
}

/// What lies beside a mark.
struct Beside {
    kept: Option<String>,
    /// The id of the server, if it is one of several.
    id: Option<String>,
}

/// Where a server has what it holds from.
#[derive(Debug, Clone, Copy)]
struct Origin<'i> {
    /// Whose history this master took over: that of the master that it followed, or that of its own snapshot.
    before: Option<&'i str>,
    /// It has followed a master, which no snapshot can tell.
    followed: bool,
    /// What it answered it has again when it restarts, up to what its log lacks.
    logged: bool,
}

/// What is to be done about a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// Nothing.
    Same,
    /// It is seen under another run now.
    Moved,
    /// What it guards is not what it was.
    Forgotten,
}

// === impl Run ===

impl<'i> Run<'i> {
    /// That of a master that tells.
    fn of(info: &'i Info, node: &'i str) -> Option<Self> {
        if is_replica(info) {
            return None;
        }
        Some(Self { process: info.id("run_id")?, history: info.id("master_replid")?, node })
    }

    fn read(kept: &'i str) -> Option<Self> {
        let mut words = kept.splitn(3, ' ');
        Some(Self { process: words.next()?, history: words.next()?, node: words.next()? })
    }

    /// What it means that this was kept beside a mark that is found under this run, at that address.
    fn finds(&self, kept: Option<&str>, at: &str, origin: Origin<'_>) -> Finding {
        // Without it nothing is known: the region is new, or of a gateway that kept none.
        let Some(kept) = kept.and_then(Run::read) else { return Finding::Moved };
        if kept == *self {
            return Finding::Same;
        }
        // A process that lives on forgets nothing; its history changes with its replicas.
        let lives_on = kept.process == self.process;
        // A snapshot as well makes its master take over the history in which it was made, but not follow anybody.
        let took_over = origin.followed && origin.before == Some(kept.history);
        // An address may be another one after a restart. It says something only beside another address.
        let came_here =
            if kept.has_id() { self.has_id() && kept.node != self.node } else { kept.node != at };
        if lives_on || took_over || came_here || origin.logged {
            Finding::Moved
        } else {
            Finding::Forgotten
        }
    }

    fn has_id(&self) -> bool {
        !self.node.is_empty() && !self.node.contains(':')
    }
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.process, self.history, self.node)
    }
}

// === impl Origin ===

impl<'i> Origin<'i> {
    fn of(info: &'i Info) -> Self {
        Self {
            before: info.id("master_replid2"),
            // Redis 6 does not count it, and takes over no history from a snapshot either.
            followed: info.number("total_net_repl_input_bytes") != Some(0),
            logged: info.number("aof_enabled") == Some(1),
        }
    }
}

/// Nothing is charged on one.
fn is_replica(info: &Info) -> bool {
    info.field("role") == Some("slave")
}

/// Whether it may be a master whose restart goes unnoticed. One that refuses INFO, in whichever way, says nothing of its role
/// either.
fn hides_its_run(info: &Info) -> bool {
    !is_replica(info) && Run::of(info, "").is_none()
}

/// Looks at what lies on the server of one connection. An error where nothing may be charged over the connection: it was
/// to be made cold and could not be, or that could not be seen.
pub async fn look(live: &mut Live, info: &Info, marks: &[String]) -> RedisResult<()> {
    let settings = Arc::clone(live.settings());
    warn_of_snapshots(live, info);
    if marks.is_empty() {
        return Ok(());
    }
    let Some(run) = Run::of(info, &settings.guarded.node) else {
        if hides_its_run(info) && !settings.said.untold.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                redis = %live.target(),
                "Redis hides its run_id or master_replid, or refuses INFO: one that began anew from a snapshot, which lacks what was admitted since, goes unnoticed; make the region cold then"
            );
        }
        return Ok(());
    };
    let origin = Origin::of(info);
    let beside = beside(live, marks).await?;
    let (mut forgotten, mut noted) = (Vec::new(), Vec::new());
    for (mark, beside) in marks.iter().zip(&beside) {
        let Some(Beside { kept, id }) = beside else { continue };
        let run = Run { node: id.as_deref().unwrap_or(run.node), ..run };
        match run.finds(kept.as_deref(), &settings.guarded.node, origin) {
            Finding::Same => continue,
            Finding::Moved => {}
            Finding::Forgotten => forgotten.push(mark),
        }
        noted.push((mark, run));
    }
    if !forgotten.is_empty() {
        cool(live, &forgotten).await?;
    }
    // Only now: another gateway that finds this run there charges at once.
    let note = |(mark, run): &(&String, Run<'_>)| {
        let mut command = redis::cmd("SET");
        command.arg(keys::run(mark)).arg(run.to_string());
        command
    };
    let noted = set(live, noted.iter().map(note)).await;
    if let Err(error) = noted {
        tracing::warn!(redis = %live.target(), %error, "the run of Redis could not be kept beside the region's marks; trying again soon");
    }
    Ok(())
}

/// The same by a fresh look at the server.
pub async fn renew(live: &mut Live, marks: &[String]) -> RedisResult<()> {
    let info = Info::of(live).await?;
    look(live, &info, marks).await
}

async fn cool(live: &mut Live, marks: &[&String]) -> RedisResult<()> {
    const COLD: Marking = Marking::All(Temperature::Cold);
    let began_us = marks::began_us(live, COLD).await?;
    set(live, marks.iter().map(|mark| marks::command(mark, began_us, COLD))).await?;
    live.counters().rewound.inc();
    tracing::error!(
        critical = true, redis = %live.target(), marks = marks.len(),
        "Redis began anew from a snapshot, which lacks what was admitted since: the region is cold there; after a shutdown in good order nothing is lacking, and it may be declared warm"
    );
    Ok(())
}

/// What lies beside each mark; `None` where the mark lies elsewhere.
async fn beside(live: &mut Live, marks: &[String]) -> RedisResult<Vec<Option<Beside>>> {
    let get = |mark: &String| {
        let mut command = redis::cmd("GET");
        command.arg(keys::run(mark));
        command
    };
    // Whose slots they are that it answers for itself, it says in the same breath.
    let served = (!live.settings().guarded.node.is_empty()).then(|| {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        command
    });
    let is_one_of_several = served.is_some();
    let mut answers =
        each(live, served.into_iter().chain(marks.iter().map(get))).await?.into_iter();
    let served = is_one_of_several.then(|| answers.next()).flatten().and_then(Result::ok);
    let id = |mark: &str| slots::id_of(slots::slot(mark), served.as_ref()?);
    let read = |(mark, answer): (&String, RedisResult<Value>)| match answer {
        Err(error) if is_elsewhere(&error) => Ok(None),
        // It is overwritten.
        Err(error) if error.code() == Some("WRONGTYPE") => {
            Ok(Some(Beside { kept: None, id: id(mark) }))
        }
        // A node of a Cluster that is not whole yet, for one.
        Err(error) => Err(error),
        Ok(value) => Ok(Some(Beside { kept: redis::from_redis_value(value)?, id: id(mark) })),
    };
    marks.iter().zip(answers).map(read).collect()
}

/// Sets what lies here; what lies elsewhere by now is looked at there.
async fn set(live: &mut Live, commands: impl Iterator<Item = Cmd>) -> RedisResult<()> {
    let answers = each(live, commands).await?;
    let refused = answers.into_iter().filter_map(Result::err).find(|error| !is_elsewhere(error));
    refused.map_or(Ok(()), Err)
}

async fn each(
    live: &mut Live,
    commands: impl Iterator<Item = Cmd>,
) -> RedisResult<Vec<RedisResult<Value>>> {
    let (mut all, mut count) = (Pipeline::new(), 0);
    for command in commands {
        all.add_command(command);
        count += 1;
    }
    if count == 0 { Ok(Vec::new()) } else { live.send_each(&all, count).await }
}

/// On a Cluster: at another node, or at none, which is no reason to leave what lies here. One that is down as a whole is.
fn is_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    match error.kind() {
        ErrorKind::Server(Moved | Ask | TryAgain) => true,
        ErrorKind::Server(ClusterDown) => {
            error.detail().is_some_and(|why| why.contains("slot not served"))
        }
        _ => false,
    }
}

/// Once, as soon as there is a snapshot.
fn warn_of_snapshots(live: &Live, info: &Info) {
    if takes_snapshots(info) && !live.settings().said.snapshots.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            redis = %live.target(),
            "Redis takes snapshots and keeps no append-only file: a restart from a snapshot forgets what was admitted since, and makes the region cold; use appendonly yes, or save \"\" and no dump file"
        );
    }
}

/// Whether it has made a snapshot since it began, with nothing that holds what came behind it. What it is configured to do is
/// not for every user to see.
fn takes_snapshots(info: &Info) -> bool {
    if info.number("aof_enabled") != Some(0) {
        return false;
    }
    let numbers = ["server_time_usec", "uptime_in_seconds", "rdb_last_save_time"];
    let [Some(now_us), Some(up_s), Some(saved_s)] = numbers.map(|name| info.number(name)) else {
        return false;
    };
    // It begins as if it had saved.
    let began_s = (now_us / 1_000_000).saturating_sub(up_s);
    info.number("rdb_saves").is_some_and(|saves| saves > 0) || saved_s > began_s.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccc";
    const D: &str = "dddddddddddddddddddddddddddddddddddddddd";

    #[test]
    fn only_a_new_process_that_followed_nobody_and_kept_no_log_has_forgotten() {
        use Finding::{Forgotten, Moved, Same};
        let zeros = "0".repeat(40);
        let told = |process, history, before: &str, octets, log| {
            Info::from(format!("role:master\r\nrun_id:{process}\r\nmaster_replid:{history}\r\nmaster_replid2:{before}\r\n{octets}aof_enabled:{log}\r\n").as_str())
        };
        let (none, some) = ("total_net_repl_input_bytes:0\r\n", "total_net_repl_input_bytes:9\r\n");
        let kept = format!("{A} {B} n1");
        let restarted = || told(C, D, &zeros, none, 0);
        for (info, node, expected) in [
            (told(A, B, &zeros, none, 0), "n1", Same),
            (told(A, D, &zeros, none, 0), "n1", Moved),
            (restarted(), "n1", Forgotten),
            (told(C, D, &zeros, "", 0), "n1", Forgotten),
            // A snapshot of a master that had replicas.
            (told(C, D, B, none, 0), "n1", Forgotten),
            // A replica that took over, here and of Redis 6, and one of a master that had forgotten.
            (told(C, D, B, some, 0), "n1", Moved),
            (told(C, D, B, "", 0), "n1", Moved),
            (told(C, D, A, some, 0), "n1", Forgotten),
            (told(C, D, &zeros, none, 1), "n1", Moved),
            // Its slot moved here.
            (restarted(), "n2", Moved),
            // It says no more who it is.
            (restarted(), "h:1", Forgotten),
        ] {
            let run = Run::of(&info, node).expect("told");
            let finds = |kept| run.finds(kept, "h:1", Origin::of(&info));
            assert_eq!(finds(Some(&kept)), expected, "{info:?} {node}");
            assert_eq!(finds(None), Moved);
            assert_eq!(finds(Some(&run.to_string())), Same);
        }
        // Kept by gateways that knew addresses only: the run says more than they do.
        for (info, at, expected) in [
            (told(A, B, &zeros, none, 0), "h:1", Moved),
            (told(A, B, &zeros, none, 0), "h:2", Moved),
            (restarted(), "h:1", Forgotten),
            (restarted(), "h:2", Moved),
        ] {
            let kept = format!("{A} {B} h:1");
            let run = Run::of(&info, "n1").expect("told");
            assert_eq!(run.finds(Some(&kept), at, Origin::of(&info)), expected, "{info:?} {at}");
        }
        let alone = restarted();
        let run = Run::of(&alone, "").expect("told");
        assert_eq!(run.finds(Some(&format!("{A} {B} ")), "", Origin::of(&alone)), Forgotten);
        assert_eq!(Run::of(&told(A, "-", B, some, 0), ""), None);
    }

    #[test]
    fn whoever_says_nothing_may_be_a_master_that_hides_its_run() {
        let ids = format!("run_id:{A}\r\nmaster_replid:{B}\r\n");
        for (told, tells, hides) in [
            ("", false, true),
            ("role:master\r\n", false, true),
            ("role:slave\r\n", false, false),
            (format!("role:slave\r\n{ids}").as_str(), false, false),
            (format!("role:master\r\n{ids}").as_str(), true, false),
        ] {
            let info = Info::from(told);
            assert_eq!(
                (Run::of(&info, "").is_some(), hides_its_run(&info)),
                (tells, hides),
                "{told}"
            );
        }
    }

    #[test]
    fn a_snapshot_is_told_from_the_beginning() {
        let told = |log, up_s, saved_s, more: &str| {
            takes_snapshots(&Info::from(format!("server_time_usec:1000500000\r\nuptime_in_seconds:{up_s}\r\nrdb_last_save_time:{saved_s}\r\naof_enabled:{log}\r\n{more}").as_str()))
        };
        assert!(!told(0, 100, 900, "") && !told(0, 100, 901, "rdb_saves:0\r\n"));
        assert!(told(0, 100, 990, "") && told(0, 100, 900, "rdb_saves:1\r\n"));
        assert!(!told(1, 100, 990, "rdb_saves:1\r\n") && !takes_snapshots(&Info::default()));
    }
}
