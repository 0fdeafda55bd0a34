//! What a process is told: `foldstream.toml` < environment < flags.

use foldstream_service::config::{ConfigError, Key, Kind, Loaded, Loader};
use foldstream_service::server::Limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The file that is read when it is there and no other is named.
pub(crate) const FILE: &str = "foldstream.toml";

/// Every key, for checks, `config show` and documentation.
pub const KEYS: &[Key] = &[
    text("kafka.bootstrap", "KAFKA_BOOTSTRAP", "Kafka's bootstrap servers, host:port[,…]."),
    number("kafka.partitions", 1, 1_000, "Partitions of each topic, fixed for life. Default 8."),
    number("kafka.replication_factor", 1, 9, "Copies of each topic. Default 1."),
    text("registry.url", "SCHEMA_REGISTRY_URL", "The schema registry clients use."),
    Key {
        path: "registry.compatibility",
        env: "",
        kind: Kind::OneOf(&[
            "BACKWARD",
            "BACKWARD_TRANSITIVE",
            "FULL",
            "FULL_TRANSITIVE",
            "FORWARD",
            "FORWARD_TRANSITIVE",
            "NONE",
        ]),
        secret: false,
        doc: "What `schemas register` sets for each subject. Default BACKWARD_TRANSITIVE.",
    },
    text("registry.database_url", "REGISTRY_DATABASE_URL", "Database of the registry role."),
    text("read.database_url", "READ_DATABASE_URL", "Database of the read models."),
    text("services.*.database_url", "*_DATABASE_URL", "Event database of a service."),
    number("commands.writers", 1, 64, "Group commit writers of a service. Default 2."),
    number("commands.deadline_ms", 100, 60_000, "Longest time of a command. Default 5,000."),
    number("commands.idempotency_hours", 1, 720, "How long keys are remembered. Default 24."),
    number("commands.max_in_flight", 1, 100_000, "More commands are told 503. Default 512."),
    number("outbox.warn_events", 1, 1_000_000_000, "Events waiting: a warning. Default 50,000."),
    number("outbox.max_events", 1, 1_000_000_000, "More waiting: 503. Default 1,000,000."),
    number("outbox.max_age_minutes", 0, 525_600, "Longer waiting: 503. 0 never. Default 60."),
    number("queries.max_in_flight", 1, 100_000, "More queries are told 503. Default 128."),
    Key {
        path: "queries.cursor_secret",
        env: "CURSOR_SECRET",
        kind: Kind::Text,
        secret: true,
        doc: "Signs cursors; the same in all query processes. Default: made from the database.",
    },
    text("listen.api", "LISTEN_API", "Commands and queries on one port. Default 127.0.0.1:7400."),
    text("listen.commands", "LISTEN_COMMANDS", "The commands role. Default 127.0.0.1:7401."),
    text("listen.queries", "LISTEN_QUERIES", "The queries role. Default 127.0.0.1:7402."),
    text("listen.registry", "LISTEN_REGISTRY", "The registry role. Default 127.0.0.1:7404."),
    text("listen.admin", "LISTEN_ADMIN", "Health, metrics, operations. Default 127.0.0.1:7409."),
    number("http.max_connections", 1, 1_000_000, "Connections of a port. Default 2,000."),
    number("http.header_deadline_ms", 10, 600_000, "Time for a request's head. Default 5,000."),
    number("http.body_deadline_ms", 10, 600_000, "Time for a request's body. Default 10,000."),
    number("http.idle_deadline_ms", 10, 3_600_000, "Time between requests. Default 60,000."),
    number("http.write_deadline_ms", 10, 3_600_000, "Time to take an answer. Default 30,000."),
    number("http.drain_deadline_ms", 10, 600_000, "Time to drain at shutdown. Default 10,000."),
    number("http.max_header_bytes", 8_192, 1_048_576, "All headers of a request. Default 32 KiB."),
    number("http.max_headers", 1, 10_000, "Headers of a request. Default 100."),
    number("http.max_uri_bytes", 64, 65_536, "Path and query of a request. Default 8 KiB."),
    Key {
        path: "log.format",
        env: "LOG_FORMAT",
        kind: Kind::OneOf(&["json", "text"]),
        secret: false,
        doc: "How logs are written to standard error. Default json.",
    },
    text("log.filter", "LOG_FILTER", "Which logs, such as `info` or `foldstream=debug,warn`."),
];

const fn text(path: &'static str, env: &'static str, doc: &'static str) -> Key {
    Key { path, env, kind: Kind::Text, secret: false, doc }
}
const fn number(path: &'static str, min: i64, max: i64, doc: &'static str) -> Key {
    Key { path, env: "", kind: Kind::Integer { min, max }, secret: false, doc }
}

/// The effective configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where Kafka is.
    pub kafka: KafkaSettings,
    /// Where the schema registry is.
    pub registry: RegistrySettings,
    /// Where the read models are.
    pub read: DatabaseSettings,
    /// Where each service keeps its events.
    pub services: BTreeMap<String, DatabaseSettings>,
    /// How commands are handled.
    pub commands: CommandSettings,
    /// How much may wait for the relay.
    pub outbox: OutboxSettings,
    /// How queries are handled.
    pub queries: QuerySettings,
    /// Where to listen.
    pub listen: Listen,
    /// What a port bears.
    pub http: Limits,
    /// What is logged.
    pub log: LogSettings,
}

/// `[kafka]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the keys are documented in KEYS
pub struct KafkaSettings {
    pub bootstrap: Option<String>,
    pub partitions: i32,
    pub replication_factor: i32,
}
impl Default for KafkaSettings {
    fn default() -> Self {
        KafkaSettings { bootstrap: None, partitions: 8, replication_factor: 1 }
    }
}

/// `[registry]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the keys are documented in KEYS
pub struct RegistrySettings {
    pub url: Option<String>,
    pub compatibility: String,
    pub database_url: Option<String>,
}
impl Default for RegistrySettings {
    fn default() -> Self {
        // The newest schema reads what every older one wrote.
        let compatibility = "BACKWARD_TRANSITIVE".to_owned();
        RegistrySettings { url: None, compatibility, database_url: None }
    }
}

/// `[read]`, `[services.…]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the keys are documented in KEYS
pub struct DatabaseSettings {
    pub database_url: Option<String>,
}

/// `[commands]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the keys are documented in KEYS
pub struct CommandSettings {
    pub writers: usize,
    pub deadline_ms: u64,
    pub idempotency_hours: u64,
    pub max_in_flight: usize,
}
impl Default for CommandSettings {
    fn default() -> Self {
        let (writers, deadline_ms) = (2, 5_000);
        CommandSettings { writers, deadline_ms, idempotency_hours: 24, max_in_flight: 512 }
    }
}

/// `[outbox]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the keys are documented in KEYS
pub struct OutboxSettings {
    pub warn_events: u64,
    pub max_events: u64,
    pub max_age_minutes: u64,
}
impl Default for OutboxSettings {
    fn default() -> Self {
        OutboxSettings { warn_events: 50_000, max_events: 1_000_000, max_age_minutes: 60 }
    }
}

/// `[queries]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the keys are documented in KEYS
pub struct QuerySettings {
    pub max_in_flight: usize,
    pub cursor_secret: Option<String>,
}
impl Default for QuerySettings {
    fn default() -> Self {
        QuerySettings { max_in_flight: 128, cursor_secret: None }
    }
}

/// `[listen]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the keys are documented in KEYS
pub struct Listen {
    pub api: String,
    pub commands: String,
    pub queries: String,
    pub registry: String,
    pub admin: String,
}
impl Default for Listen {
    fn default() -> Self {
        Listen::on(7400)
    }
}
impl Listen {
    /// The ports of a port base, on loopback.
    pub(crate) fn on(base: u16) -> Self {
        let at = |offset: u16| format!("127.0.0.1:{}", base + offset);
        Listen { api: at(0), commands: at(1), queries: at(2), registry: at(4), admin: at(9) }
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the keys are documented in KEYS
pub struct LogSettings {
    pub format: String,
    pub filter: String,
}
impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { format: "json".into(), filter: "info".into() }
    }
}

/// Reads all layers.
///
/// # Errors
/// Everything that is wrong, at once; the process ends with 78 before it opens a socket.
pub(crate) fn load(file: Option<&Path>) -> Result<Loaded<Settings>, ConfigError> {
    let loader = Loader::new(KEYS);
    let loader = match file {
        Some(file) => loader.file(file),
        None => loader.file_if_present(FILE),
    };
    loader.environment(std::env::vars()).load()
}
