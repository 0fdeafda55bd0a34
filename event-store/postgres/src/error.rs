use foldstream_core::{Invalid, TopicPartition, Undecodable};

/// What can go wrong with the event database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or does not answer in time.
    #[error("the event database does not answer")]
    Unavailable(#[source] Option<sqlx::Error>),
    /// It refuses a statement.
    #[error("the event database refuses a statement")]
    Database(#[source] sqlx::Error),
    /// Its address is none.
    #[error("the address of the event database is wrong")]
    Address(#[source] sqlx::Error),
    /// It has no tables, or not those of this version: run the migration.
    #[error("the event database cannot be brought to this version")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// It was made with another number of partitions, which is fixed for life.
    #[error("the event store has {stored} partitions per topic, not {given}: fixed for life")]
    Partitions {
        /// The number it was made with.
        stored: i32,
        /// The number it was to be opened with.
        given: i32,
    },
    /// It belongs to another service.
    #[error("the event database belongs to {app}/{service}")]
    OtherService {
        /// Its application.
        app: String,
        /// Its service.
        service: String,
    },
    /// The registry gave an id to another schema than before: it is not the same registry.
    #[error("schema id {id} stood for another schema: is this another registry?")]
    SchemaId {
        /// The id.
        id: u32,
    },
    /// A stored event cannot be read.
    #[error("a stored event cannot be read")]
    Undecodable(#[from] Undecodable),
    /// The store holds no such topic.
    #[error("no aggregate of this service has the topic {0}")]
    UnknownTopic(String),
    /// A position is missing in a partition: the table was changed by other means.
    #[error("{partition}: position {position} is missing")]
    Gap {
        /// Where.
        partition: TopicPartition,
        /// The missing one.
        position: u64,
    },
    /// An option or a stored value is not one that can be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The metrics are registered already: one store per service and process.
    #[error("the metrics of this store cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if crate::connection::is_away(&error) {
            return StoreError::Unavailable(Some(error));
        }
        StoreError::Database(error)
    }
}

/// Why a command was not decided, or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// The stream has another version than the command builds on.
    #[error("the stream is at version {current}")]
    VersionMismatch {
        /// The version it has.
        current: u64,
    },
    /// The command wanted a stream without events.
    #[error("the stream exists already, at version {current}")]
    Exists {
        /// The version it has.
        current: u64,
    },
    /// Others were faster, again and again.
    #[error("too many writers on the same stream")]
    Contended,
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The request with this idempotency key is still running.
    #[error("the request with this idempotency key is still running")]
    KeyInProgress,
    /// The events are larger than a message or a command may be.
    #[error("the command leads to more data than an event or a command may hold")]
    TooLarge,
    /// The connection was lost around the commit and no verdict came before the deadline. The same
    /// command again, with the same command id or key, gives it.
    #[error("whether the command took effect is not known")]
    OutcomeUnknown,
    /// Too many commands wait. Nothing was done.
    #[error("too many commands wait")]
    Overloaded,
    /// Too many events wait for the relay. Nothing was done.
    #[error("too many events wait for the relay")]
    OutboxFull,
    /// The event database does not answer. Nothing was done.
    #[error("the event database does not answer: {0}")]
    Unavailable(String),
    /// The schema of an event has no id in the registry yet. Nothing was done.
    #[error("the schema {0} is not registered yet")]
    NoSchema(String),
    /// A bug: a stored event that cannot be read, an event that cannot be written, a panic.
    #[error("{0}")]
    Broken(String),
}
