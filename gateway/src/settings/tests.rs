//! Tables of flags and variables against settings and exact messages.

use super::*;
use clap::CommandFactory;

fn parse(line: &str, environment: &Environment) -> Result<Settings, SettingsError> {
    let arguments = ["tidegate-gateway", "serve"].into_iter().chain(line.split_whitespace());
    Settings::parse(arguments, environment)
}

fn problems(line: &str, environment: &Environment) -> Vec<String> {
    match parse(line, environment) {
        Err(SettingsError::Values(problems)) => problems,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let settings = parse("--dev", &Environment::default()).expect("sound");
    assert_eq!(settings.listen.to_string(), "127.0.0.1:10080");
    assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:10081");
    assert!(settings.redis.is_none());
    let expected = AdmissionSettings {
        max_in_flight: 100,
        pool_wait: Duration::from_millis(15),
        deadline: Duration::from_millis(30),
    };
    assert_eq!(settings.service.admission, expected);
    let breaker = settings.service.breaker;
    assert_eq!((breaker.failures, breaker.open_ms, breaker.successes), (5, 10_000, 3));
    assert_eq!(settings.service.region.as_str(), "default");
    assert!(!settings.service.region_configured);
    assert_eq!(settings.drain_timeout, Duration::from_secs(10));
    assert_eq!(settings.memory_keys_max, 1_000_000);
}

#[test]
fn a_region_is_guarded_with_redis_and_exempt_in_memory_unless_told() {
    let minutes = |n: u64| Some(Duration::from_secs(60 * n));
    let rows = [
        ("", minutes(5), None),
        ("--cold-start off", None, None),
        ("--cold-start 2m", minutes(2), minutes(2)),
    ];
    for (flags, redis, memory) in rows {
        let line = format!("--dev --redis-url redis://h {flags}");
        let settings = parse(&line, &Environment::default()).expect("sound");
        assert_eq!(settings.redis.expect("given").region.cold, redis, "{flags}");
        assert_eq!(settings.memory_cold, memory, "{flags}");
    }
    let rows = [
        (
            "--cold-start 5",
            "--cold-start (TIDEGATE_COLD_START) is \"5\": is no duration: write a whole number and a unit, such as 15ms, 2s or 1m; or off",
        ),
        (
            "--key-style short",
            "--key-style (TIDEGATE_KEY_STYLE) is \"short\": must be sharded or plain",
        ),
    ];
    for (flags, expected) in rows {
        assert_eq!(problems(&format!("--dev {flags}"), &Environment::default()), [expected]);
    }
}

#[test]
fn a_flag_beats_a_variable_beats_the_default() {
    let environment = Environment::from([
        ("TIDEGATE_DEADLINE", "40ms"),
        ("REDIS_POOL_SIZE", "7"),
        ("CLOUD_RUN_REGION", "us-central1"),
        ("TIDEGATE_DEV", "1"),
        ("TIDEGATE_LISTEN", ""),
    ]);
    let settings = parse("--deadline 50ms", &environment).expect("sound");
    assert_eq!(settings.service.admission.deadline, Duration::from_millis(50));
    assert_eq!(settings.service.admission.max_in_flight, 7);
    assert_eq!(settings.service.region.as_str(), "us-central1");
    assert!(settings.service.region_configured);
    let shown = settings.to_string();
    for part in [
        "deadline=50ms (--deadline)",
        "max-in-flight=7 (REDIS_POOL_SIZE)",
        "region=us-central1 (CLOUD_RUN_REGION)",
        "pool-wait=15ms (default)",
        "listen=127.0.0.1:10080 (default)",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn every_mistake_names_flag_variable_value_and_remedy() {
    let rows = [
        (
            "--dev --pool-wait 30ms",
            "--pool-wait (TIDEGATE_POOL_WAIT) is 30ms, but must be shorter than --deadline (TIDEGATE_DEADLINE), which is 30ms: a caller must know that there is no place before its time is up; lower the first or raise the second",
        ),
        (
            "",
            "no token for the filter: set --token-file (TIDEGATE_TOKEN_FILE) or TIDEGATE_TOKEN, or pass --dev (TIDEGATE_DEV=1) to accept every caller on this machine",
        ),
        (
            "--dev --redis-url http://user:hunter2@host:1",
            "--redis-url (TIDEGATE_REDIS_URL) is \"http://…\": is no Redis URL: write redis://[user:password@]host:port[/db], rediss:// for TLS, or redis+unix:///path (invalid client config)",
        ),
        (
            "--dev --redis-url redis-cluster://h:1/2",
            "--redis-url (TIDEGATE_REDIS_URL) is \"redis-cluster://h:1/2\": a Redis Cluster has one database: leave out what follows the hosts",
        ),
        (
            "--dev --redis-url redis-cluster://h:1 --key-style plain",
            "--key-style (TIDEGATE_KEY_STYLE) is plain, but --redis-url (TIDEGATE_REDIS_URL) names a Redis Cluster: plain keys of one subject share no slot there; write sharded",
        ),
        (
            "--dev --region a:b",
            "--region (TIDEGATE_REGION or CLOUD_RUN_REGION) is \"a:b\": \"a:b\" is no region: write 1 to 64 of the characters a-z A-Z 0-9 . _ -",
        ),
        (
            "--dev --max-in-flight 0",
            "--max-in-flight (TIDEGATE_MAX_IN_FLIGHT or REDIS_POOL_SIZE) is \"0\": must be at least 1",
        ),
        (
            "--dev --deadline 30",
            "--deadline (TIDEGATE_DEADLINE) is \"30\": is no duration: write a whole number and a unit, such as 15ms, 2s or 1m",
        ),
        (
            "--dev --listen localhost:80",
            "--listen (TIDEGATE_LISTEN) is \"localhost:80\": invalid socket address syntax: write an IP address and a port, such as 127.0.0.1:10080 or [::]:10080",
        ),
        (
            "--dev --tls-cert g.crt",
            "--tls-cert (TIDEGATE_TLS_CERT) is given without --tls-key (TIDEGATE_TLS_KEY): name the file with the certificate's private key",
        ),
        (
            "--dev --tls-key g.key",
            "--tls-key (TIDEGATE_TLS_KEY) is given without --tls-cert (TIDEGATE_TLS_CERT): name the file with the key's certificate",
        ),
        (
            "--dev --tls-client-ca ca.crt",
            "--tls-client-ca (TIDEGATE_TLS_CLIENT_CA) is given without a certificate of the gateway's own: add --tls-cert (TIDEGATE_TLS_CERT) and --tls-key (TIDEGATE_TLS_KEY)",
        ),
        (
            "--dev --admin-tls",
            "--admin-tls (TIDEGATE_ADMIN_TLS) is given without a certificate of the gateway's own: add --tls-cert (TIDEGATE_TLS_CERT) and --tls-key (TIDEGATE_TLS_KEY)",
        ),
        (
            "--dev --redis-url redis://h --redis-tls-ca ca.crt",
            "--redis-tls-ca (TIDEGATE_REDIS_TLS_CA) is given, but no connection to Redis would be under TLS: write --redis-url (TIDEGATE_REDIS_URL) with rediss://",
        ),
        (
            "--dev --redis-tls-cert c.crt --redis-tls-key c.key",
            "--redis-tls-cert (TIDEGATE_REDIS_TLS_CERT) is given, but no connection to Redis would be under TLS: write --redis-url (TIDEGATE_REDIS_URL) with rediss://",
        ),
        (
            "--dev --redis-url rediss://h --redis-tls-cert c.crt",
            "--redis-tls-cert (TIDEGATE_REDIS_TLS_CERT) is given without --redis-tls-key (TIDEGATE_REDIS_TLS_KEY): name the file with the certificate's private key",
        ),
        (
            "--dev --log-format xml",
            "--log-format (TIDEGATE_LOG_FORMAT) is \"xml\": must be text or json",
        ),
    ];
    for (line, expected) in rows {
        assert_eq!(problems(line, &Environment::default()), [expected], "{line}");
    }
}

#[test]
fn dev_opens_nothing_to_other_machines() {
    let none = Environment::default();
    let token = Environment::from([("TIDEGATE_TOKEN", "t0psecret")]);
    let admin = Environment::from([("TIDEGATE_ADMIN_TOKENS", "ann:viewer:t0psecret")]);
    let data_problem = |address: &str| {
        format!(
            "--listen (TIDEGATE_LISTEN) is {address}, which other machines reach, and --dev (TIDEGATE_DEV) accepts every caller there: configure a token with --token-file (TIDEGATE_TOKEN_FILE) or TIDEGATE_TOKEN, or listen on 127.0.0.1"
        )
    };
    let admin_problem = |address: &str| {
        format!(
            "--admin-listen (TIDEGATE_ADMIN_LISTEN) is {address}, which other machines reach, and --dev (TIDEGATE_DEV) accepts every caller there: configure a token with --admin-tokens-file (TIDEGATE_ADMIN_TOKENS_FILE) or TIDEGATE_ADMIN_TOKENS, or listen on 127.0.0.1"
        )
    };
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        let data = format!("--dev --listen {address}");
        assert_eq!(problems(&data, &none), [data_problem(address)]);
        assert_eq!(problems(&data, &admin), [data_problem(address)], "the other door's token");
        parse(&data, &token).expect("a token guards it");
        let operators = format!("--dev --admin-listen {address}");
        assert_eq!(problems(&operators, &none), [admin_problem(address)]);
        assert_eq!(problems(&operators, &token), [admin_problem(address)]);
        parse(&operators, &admin).expect("a token guards it");
        let shut = format!("--admin-listen {address}");
        parse(&shut, &token).expect("without --dev the door is shut, not open");
    }
    for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        let line = format!("--dev --listen {address} --admin-listen {address}");
        parse(&line, &none).expect("this machine only");
    }
}

#[test]
fn an_empty_environment_is_no_environment() {
    let empty = Environment::from([("TIDEGATE_ENVIRONMENT", "")]);
    let problem = "TIDEGATE_ENVIRONMENT is empty: write the environment's name into it or unset it";
    assert_eq!(problems("--dev", &empty), [problem]);
    let settings = parse("--dev --environment staging", &empty).expect("the flag beats it");
    assert_eq!(settings.service.environment.as_str(), "staging");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let environment = Environment::from([("TIDEGATE_DEADLINE", "soon"), ("TIDEGATE_TOKEN", " ")]);
    let problems = problems("--region a:b --max-in-flight many", &environment);
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

#[test]
fn a_secret_is_given_once_and_is_not_empty() {
    let environment = Environment::from([("TIDEGATE_TOKEN", "t0psecret")]);
    let twice = problems("--token-file /run/token", &environment);
    assert_eq!(
        twice.first().map(String::as_str),
        Some("--token-file is /run/token and TIDEGATE_TOKEN is set too: give one of them")
    );
    let settings = parse("", &environment).expect("sound");
    assert!(!format!("{settings:?} {settings}").contains("t0psecret"));
    let empty = problems("--dev", &Environment::from([("TIDEGATE_TOKEN", "")]));
    assert_eq!(empty, ["TIDEGATE_TOKEN is empty: write the secret into it or unset it"]);
}

#[test]
fn threads_are_as_many_as_asked_and_each_has_a_connection() {
    let told = |line: &str| {
        let settings = parse(line, &Environment::default()).expect("sound");
        (settings.cores, settings.redis.expect("Redis").connections)
    };
    assert_eq!(told("--dev --redis-url redis://h --cores 3"), (3, 3));
    assert_eq!(told("--dev --redis-url redis://h --cores 3 --redis-connections 1"), (3, 1));
    let (usable, connections) = told("--dev --redis-url redis://h");
    let machine = std::thread::available_parallelism().expect("known").get();
    assert_eq!((usable, connections), (machine.min(256), machine.min(256)));
    for (value, problem) in [
        ("0", "must be at least 1"),
        ("257", "must be at most 256: start more gateways instead"),
        ("two", "invalid digit found in string: write a whole number"),
    ] {
        let told = problems(&format!("--dev --cores {value}"), &Environment::default());
        assert_eq!(told, [format!("--cores (TIDEGATE_CORES) is {value:?}: {problem}")]);
    }
}

#[test]
fn a_pool_setting_without_effect_is_said() {
    let environment =
        Environment::from([("REDIS_POOL_TIMEOUT", "1s"), ("REDIS_MIN_IDLE_CONNS", "10")]);
    let notes = parse("--dev", &environment).expect("sound").notes;
    for part in [
        "REDIS_POOL_TIMEOUT=1s has no effect with multiplexed connections: --pool-wait",
        "REDIS_MIN_IDLE_CONNS=10 has no effect with multiplexed connections: --redis-connections",
        "--dev: every caller is accepted",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(part)), "{part}: {notes:#?}");
    }
}

#[test]
fn the_help_names_every_flag_variable_and_default() {
    let mut command = Cli::command();
    let serve = command.find_subcommand_mut("serve").expect("the subcommand");
    // Undoes the wrapping of doc comments.
    let help = serve.render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for knob in knob::ALL {
        for name in knob.variables.iter().chain([&knob.flag]) {
            assert!(help.contains(name), "{name}");
        }
        if let Some(default) = knob.default.filter(|_| knob.flag.starts_with("--")) {
            assert!(help.contains(&format!("[default: {default}]")), "{} {default}", knob.flag);
        }
    }
}

#[test]
fn help_is_no_failure() {
    let arguments = ["tidegate-gateway", "serve", "--help"];
    let error = Settings::parse(arguments, &Environment::default()).expect_err("help");
    assert_eq!(error.exit_code(), 0);
    let error = Settings::parse(["tidegate-gateway", "fly"], &Environment::default());
    assert_eq!(error.expect_err("usage").exit_code(), 2);
}

/// The table of settings in `docs/gateway.md`: each variable that it names.
fn documented() -> Vec<&'static str> {
    let page = include_str!("../../../docs/gateway.md");
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted.map(|name| name.split('=').next().unwrap_or(name)).collect()
}

#[test]
fn every_documented_variable_is_read_and_every_variable_is_documented() {
    let documented = documented();
    for knob in knob::ALL.iter().filter(|knob| knob.flag.starts_with("--")) {
        for variable in knob.variables {
            assert!(documented.contains(variable), "{variable} is not in docs/gateway.md");
        }
    }
    for variable in &documented {
        // The flag would beat its own variable.
        let line = if *variable == "TIDEGATE_DEV" { "--token-file t" } else { "--dev" };
        let told = match parse(line, &Environment::from([(*variable, "?!")])) {
            Err(SettingsError::Values(problems)) => {
                problems.iter().any(|problem| problem.contains(variable))
            }
            Ok(settings) => {
                let secret = settings.token.is_some() || settings.admin_tokens.is_some();
                secret || settings.to_string().contains(&format!("({variable})"))
            }
            Err(other) => panic!("{other}"),
        };
        assert!(told, "{variable}=?! changes nothing and nobody is told");
    }
    assert!(documented.len() > 30, "{documented:?}");
}

#[test]
fn a_variable_that_is_no_setting_is_said() {
    let rows = [
        ("TIDEGATE_POOLWAIT", "5ms", Some("did you mean TIDEGATE_POOL_WAIT?")),
        ("REDIS_URL", "redis://h", Some("did you mean TIDEGATE_REDIS_URL?")),
        ("REDIS_POOL_SIZES", "5", Some("did you mean REDIS_POOL_SIZE?")),
        ("TIDEGATE_QWERTYUIOPASDFGH", "5", Some("unset it")),
        ("TIDEGATE_POOLWAIT", "", None),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1", None),
        ("TIDEGATE_PORT", "tcp://10.0.0.1:80", None),
        ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1", None),
        ("HOME", "/", None),
        ("TIDEGATE_POOL_WAIT", "5ms", None),
    ];
    for (name, value, expected) in rows {
        let notes = parse("--dev", &Environment::from([(name, value)])).expect("sound").notes;
        let told = notes.iter().find(|note| note.contains("is no setting of the gateway"));
        let sound = match expected {
            Some(expected) => {
                told.is_some_and(|note| note.starts_with(name) && note.ends_with(expected))
            }
            None => told.is_none(),
        };
        assert!(sound, "{name}: {notes:#?}");
    }
}

/// Names that other programs use too: only a slip of the pen is told.
#[test]
fn a_slip_in_the_name_of_an_audit_key_is_said() {
    for (name, meant) in [
        ("REVOKED_KEY_VERSION", Some("REVOKED_KEY_VERSIONS")),
        ("AUDIT_PUBLIC_KEY_1", Some("AUDIT_PUBLIC_KEY_V1")),
        ("AUDIT_PRIVAT_KEY_V1", Some("AUDIT_PRIVATE_KEY_V1")),
        ("AUDIT_PRIVAT_KEY_DIR", Some("AUDIT_PRIVATE_KEY_DIR")),
        ("AUDIT_PUBLIC_KEY_V12", None),
        ("AUDIT_PUBLIC_KEY_V2_FILE", None),
        ("REVOKED_KEY_VERSIONS", None),
        ("AUDIT_LOG_PATH", None),
        ("REVOKED_CERTIFICATES", None),
    ] {
        let notes = parse("--dev", &Environment::from([(name, "v1")])).expect("sound").notes;
        let told = notes.iter().find(|note| note.starts_with(&format!("{name} is no setting")));
        let expected = meant.map(|meant| format!("did you mean {meant}?"));
        let sound = told.is_some() == meant.is_some()
            && told.is_none_or(|told| expected.is_some_and(|end| told.ends_with(&end)));
        assert!(sound, "{name}: {notes:#?}");
    }
}

/// As where a secret was not filled in: the service runs, and not as it was meant.
#[test]
fn a_variable_that_is_empty_says_what_follows() {
    const NAMES: [&str; 4] =
        ["TIDEGATE_REDIS_URL", "TIDEGATE_TLS_CERT", "TIDEGATE_TLS_KEY", "TIDEGATE_TLS_CLIENT_CA"];
    let environment = Environment::from(NAMES.map(|name| (name, "")));
    let told = |line: &str| {
        let notes = parse(line, &environment).expect("sound").notes;
        let empty = notes.into_iter().filter(|note| note.contains("is empty and counts as unset"));
        empty.collect::<Vec<_>>()
    };
    let notes = told("--dev");
    assert_eq!(notes.len(), NAMES.len(), "{notes:#?}");
    let follows = ["the state is in memory", "plain HTTP", "plain HTTP", "need no certificate"];
    for ((note, name), then) in notes.iter().zip(NAMES).zip(follows) {
        assert!(note.starts_with(name) && note.contains(then), "{note}");
    }
    let given = told("--dev --redis-url redis://h --tls-cert /c --tls-key /k --tls-client-ca /a");
    assert!(given.is_empty(), "a flag has said it: {given:#?}");
}

#[test]
fn a_setting_of_the_other_kind_of_store_is_said() {
    let environment = Environment::from([("TIDEGATE_MEMORY_KEYS_MAX", "9")]);
    let notes = |line: &str| parse(line, &environment).expect("sound").notes;
    let memory = notes("--dev --redis-connections 4 --store-breaker-open 5s");
    assert!(memory.iter().any(|n| n.starts_with("--redis-connections (given by")), "{memory:#?}");
    assert!(memory.iter().any(|n| n.starts_with("--store-breaker-open (given by")), "{memory:#?}");
    assert!(!memory.iter().any(|n| n.starts_with("--memory-keys-max")), "{memory:#?}");
    let redis = notes("--dev --redis-url redis://h");
    let said = "--memory-keys-max (given by TIDEGATE_MEMORY_KEYS_MAX) has no effect";
    assert!(redis.iter().any(|note| note.starts_with(said)), "{redis:#?}");
}

#[test]
fn a_variable_that_is_no_text_is_a_mistake() {
    use std::os::unix::ffi::OsStringExt as _;
    let garbled =
        |name: &str| Environment::new([(OsString::from(name), OsString::from_vec(vec![0xff]))]);
    let told = problems("--dev", &garbled("TIDEGATE_DEADLINE"));
    assert_eq!(told, ["TIDEGATE_DEADLINE is no text: write it in UTF-8 or unset it"]);
    parse("--dev", &garbled("LS_COLORS")).expect("somebody else's");
}
