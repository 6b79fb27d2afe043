//! Owns the command line's shape. Values stay texts here: they are checked together with the
//! environment's, by one table, so that both give the same errors. Knows no environment.

use clap::{Args, Parser, Subcommand};

/// The gateway of Tidegate: shared state for the Envoy filter, in Redis or in memory.
#[derive(Debug, Parser)]
#[command(name = "tidegate-gateway", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve decisions until SIGTERM or SIGINT.
    Serve(Box<ServeArgs>),
}

/// Every flag has an environment variable; the flag wins.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address of the filter's listener [env: TIDEGATE_LISTEN] [default: 127.0.0.1:10080]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Address of health, metrics and status [env: TIDEGATE_ADMIN_LISTEN] [default: 127.0.0.1:10081]
    #[arg(long, value_name = "IP:PORT")]
    pub admin_listen: Option<String>,
    /// TLS of the listeners.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// redis://[user:password@]host:port[/db], rediss:// for TLS, or redis+unix:///path; without it
    /// state is kept in memory [env: TIDEGATE_REDIS_URL]
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,
    /// TLS to Redis.
    #[command(flatten)]
    pub redis_tls: RedisTlsArgs,
    /// Threads that answer the filter [env: TIDEGATE_CORES] [default: as many as the process may use]
    #[arg(long, value_name = "N")]
    pub cores: Option<String>,
    /// Multiplexed connections to Redis [env: TIDEGATE_REDIS_CONNECTIONS] [default: one for each core]
    #[arg(long, value_name = "N")]
    pub redis_connections: Option<String>,
    /// After that long a Redis call has failed for good and frees its place
    /// [env: TIDEGATE_REDIS_RESPONSE_TIMEOUT] [default: 250ms]
    #[arg(long, value_name = "DURATION")]
    pub redis_response_timeout: Option<String>,
    /// Store calls that may be out at once [env: TIDEGATE_MAX_IN_FLIGHT or REDIS_POOL_SIZE]
    /// [default: 100]
    #[arg(long, value_name = "N")]
    pub max_in_flight: Option<String>,
    /// How long a call waits for a place before it is told 429 service-overloaded; shorter than
    /// --deadline [env: TIDEGATE_POOL_WAIT] [default: 15ms]
    #[arg(long, value_name = "DURATION")]
    pub pool_wait: Option<String>,
    /// How often the statistics of these calls are logged [env: TIDEGATE_POOL_LOG_INTERVAL]
    /// [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub pool_log_interval: Option<String>,
    /// How long one decision may take; shorter than the filter's callout timeout
    /// [env: TIDEGATE_DEADLINE] [default: 30ms]
    #[arg(long, value_name = "DURATION")]
    pub deadline: Option<String>,
    /// Failures in a row (no connection, no answer) after which the store is left alone for a while
    /// [env: TIDEGATE_STORE_BREAKER_FAILURES] [default: 5]
    #[arg(long, value_name = "N")]
    pub store_breaker_failures: Option<String>,
    /// How long it is left alone, more or less a fifth [env: TIDEGATE_STORE_BREAKER_OPEN]
    /// [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub store_breaker_open: Option<String>,
    /// Successful tests in a row, one call at a time, after which it is used as before
    /// [env: TIDEGATE_STORE_BREAKER_SUCCESSES] [default: 3]
    #[arg(long, value_name = "N")]
    pub store_breaker_successes: Option<String>,
    /// Region that names the keys [env: TIDEGATE_REGION or CLOUD_RUN_REGION] [default: "default",
    /// not compared with the filter's]
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Environment that names the keys [env: TIDEGATE_ENVIRONMENT] [default: default]
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
    /// How long a region whose store holds no mark of it admits at most half of each limit in any
    /// period; or off. A store in memory is exempt unless this is given
    /// [env: TIDEGATE_COLD_START] [default: 5m with Redis, off in memory]
    #[arg(long, value_name = "DURATION")]
    pub cold_start: Option<String>,
    /// sharded (256 hash tags per region) or plain (ratelimit:REGION:…, for one Redis only)
    /// [env: TIDEGATE_KEY_STYLE] [default: sharded]
    #[arg(long, value_name = "STYLE")]
    pub key_style: Option<String>,
    /// File with the filter's token, one per line, read again when it changes; or the token itself
    /// in TIDEGATE_TOKEN [env: TIDEGATE_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// File with administrators' tokens, one `actor:role:token` per line (roles: viewer, operator,
    /// admin); or the entries, separated by `;`, in TIDEGATE_ADMIN_TOKENS
    /// [env: TIDEGATE_ADMIN_TOKENS_FILE]
    #[arg(long, value_name = "FILE")]
    pub admin_tokens_file: Option<String>,
    /// Accept callers without a token where none is configured; for one's own machine only
    /// [env: TIDEGATE_DEV=1]
    #[arg(long)]
    pub dev: bool,
    /// How long calls under way may take to finish at the end [env: TIDEGATE_DRAIN_TIMEOUT]
    /// [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub drain_timeout: Option<String>,
    /// Most keys of the memory store [env: TIDEGATE_MEMORY_KEYS_MAX] [default: 1000000]
    #[arg(long, value_name = "N")]
    pub memory_keys_max: Option<String>,
    /// text or json, on standard error; filtered by RUST_LOG [env: TIDEGATE_LOG_FORMAT]
    /// [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// File to write the bound addresses to, as lines `data=IP:PORT` and `admin=IP:PORT`, once both
    /// listen [env: TIDEGATE_ADDRESSES_FILE]
    #[arg(long, value_name = "FILE")]
    pub addresses_file: Option<String>,
    /// The audit chain.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// The audit chain. It is kept if AUDIT_PRIVATE_KEY_V1 (or _V2, …), AUDIT_PRIVATE_KEY_V1_FILE or
/// AUDIT_PRIVATE_KEY_DIR gives a key; REVOKED_KEY_VERSIONS names versions that must not sign.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Folder for audit events that wait for the store, and for how far the chain had come; on a disk
    /// that outlives a restart, and of this gateway alone [env: TIDEGATE_AUDIT_DIR]
    #[arg(long, value_name = "DIR")]
    pub audit_dir: Option<String>,
    /// How long audit events are gathered before they are appended together
    /// [env: TIDEGATE_AUDIT_TICK] [default: 50ms]
    #[arg(long, value_name = "DURATION")]
    pub audit_tick: Option<String>,
    /// Most bytes of audit events that wait on the disk [env: TIDEGATE_AUDIT_SPOOL_MAX]
    /// [default: 100000000]
    #[arg(long, value_name = "BYTES")]
    pub audit_spool_max: Option<String>,
    /// What becomes of administrators' commands when neither store nor disk take their audit event:
    /// refuse or drop (carried out; the lost event is counted in the chain)
    /// [env: TIDEGATE_AUDIT_WHEN_FULL] [default: refuse]
    #[arg(long, value_name = "RULE")]
    pub audit_when_full: Option<String>,
    /// Actions whose audit event is waited for, such as admin,deny; or none. Commands wait all the same,
    /// unless --audit-when-full drop [env: TIDEGATE_AUDIT_SYNC] [default: admin]
    #[arg(long, value_name = "ACTIONS")]
    pub audit_sync: Option<String>,
    /// Folder for signed checkpoints of the chain, where whoever writes the store cannot write
    /// [env: TIDEGATE_AUDIT_CHECKPOINT_DIR]
    #[arg(long, value_name = "DIR")]
    pub audit_checkpoint_dir: Option<String>,
    /// The chain's name in checkpoints: a URL without its scheme, such as log.example/eu
    /// [env: TIDEGATE_AUDIT_CHECKPOINT_NAME]
    #[arg(long, value_name = "NAME")]
    pub audit_checkpoint_name: Option<String>,
    /// File with the key that signs checkpoints, another one than the records'; or the key itself in
    /// TIDEGATE_AUDIT_CHECKPOINT_KEY [env: TIDEGATE_AUDIT_CHECKPOINT_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub audit_checkpoint_key_file: Option<String>,
    /// File with the secret by which subjects in audit records are hashed; without it they are left
    /// out. Or the secret itself in TIDEGATE_AUDIT_SUBJECT_KEY
    /// [env: TIDEGATE_AUDIT_SUBJECT_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub audit_subject_key_file: Option<String>,
}

/// TLS of the listeners.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// File with the certificate of the filter's listener, in PEM, followed by what leads to a CA;
    /// without it there is no TLS [env: TIDEGATE_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// File with the certificate's private key, in PEM [env: TIDEGATE_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// File with the CAs of clients' certificates, in PEM; with it a client must have one
    /// [env: TIDEGATE_TLS_CLIENT_CA]
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<String>,
    /// The same certificate on the admin listener; its clients need none
    /// [env: TIDEGATE_ADMIN_TLS=1]
    #[arg(long)]
    pub admin_tls: bool,
}

/// TLS to Redis, for rediss:// only.
#[derive(Debug, Args)]
pub struct RedisTlsArgs {
    /// File with the CAs of Redis's certificate, in PEM; without it the system's
    /// [env: TIDEGATE_REDIS_TLS_CA]
    #[arg(long, value_name = "FILE")]
    pub redis_tls_ca: Option<String>,
    /// File with the certificate that the gateway shows to Redis, in PEM
    /// [env: TIDEGATE_REDIS_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    pub redis_tls_cert: Option<String>,
    /// File with that certificate's private key, in PEM [env: TIDEGATE_REDIS_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    pub redis_tls_key: Option<String>,
}
