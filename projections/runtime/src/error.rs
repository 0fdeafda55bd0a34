use foldstream_kafka::KafkaError;
use foldstream_tables::{MigrateError, TableError};

/// Projections cannot run, or cannot tell how they are.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The read database is not as the declared read models need it.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A read of the read database failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A Kafka client cannot be made of the configuration.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A URL is none.
    #[error("the read database's address: {0}")]
    Address(sqlx::Error),
    /// `only` names what is not there.
    #[error("there is no read model `{0}`")]
    Unknown(String),
}
impl ProjectionError {
    /// Whether the same may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            ProjectionError::Migrate(MigrateError::Sql(error)) => is_away(error),
            ProjectionError::Migrate(MigrateError::Deadline(_)) => true,
            ProjectionError::Table(error) => !error.is_data(),
            ProjectionError::Kafka(error) => error.is_transient(),
            ProjectionError::Migrate(_)
            | ProjectionError::Address(_)
            | ProjectionError::Unknown(_) => false,
        }
    }
}

/// Whether Postgres is away, not refusing.
fn is_away(error: &sqlx::Error) -> bool {
    match error.as_database_error().and_then(|e| e.code()) {
        // 08: connection, 40: rolled back, 53: out of resources, 55: in use, 57: shutting down.
        Some(code) => matches!(&code[..2], "08" | "40" | "53" | "55" | "57"),
        None => !matches!(error, sqlx::Error::Configuration(_)),
    }
}
