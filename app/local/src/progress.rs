//! What is going on, for people who wait.

use std::fmt;
use std::time::Duration;

/// A step on the way to running infrastructure; `Display` is a line for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Kafka jars come from Maven Central.
    Fetching {
        /// Jars so far, of about 90 with what Maven itself needs.
        jars: usize,
        /// Bytes so far, about 54 MB in all.
        bytes: u64,
    },
    /// The Kafka jars are in the cache.
    Fetched {
        /// How many.
        jars: usize,
        /// Their size.
        bytes: u64,
    },
    /// A new Kafka storage is formatted.
    FormattingKafka,
    /// A new Postgres cluster is created.
    CreatingPostgres,
    /// The broker starts.
    StartingKafka,
    /// Postgres starts.
    StartingPostgres,
    /// Kafka answers.
    KafkaReady {
        /// Where.
        port: u16,
        /// Since the start of everything.
        after: Duration,
    },
    /// Postgres answers.
    PostgresReady {
        /// Where.
        port: u16,
        /// Since the start of everything.
        after: Duration,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: &u64| bytes / 1_000_000;
        match self {
            Self::Fetching { jars, bytes } => {
                write!(f, "fetching Kafka from Maven Central: {jars} jars, {} MB", mb(bytes))
            }
            Self::Fetched { jars, bytes } => {
                write!(f, "fetched Kafka: {jars} jars, {} MB", mb(bytes))
            }
            Self::FormattingKafka => f.write_str("formatting Kafka's storage"),
            Self::CreatingPostgres => f.write_str("creating a Postgres cluster"),
            Self::StartingKafka => f.write_str("starting Kafka"),
            Self::StartingPostgres => f.write_str("starting Postgres"),
            Self::KafkaReady { port, after } => {
                write!(f, "Kafka answers on 127.0.0.1:{port} ({:.1} s)", after.as_secs_f64())
            }
            Self::PostgresReady { port, after } => {
                write!(f, "Postgres answers on 127.0.0.1:{port} ({:.1} s)", after.as_secs_f64())
            }
        }
    }
}
