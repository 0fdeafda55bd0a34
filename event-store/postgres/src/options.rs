use std::time::Duration;

/// How a store is opened. Holds a password: not to be logged.
#[derive(Clone)]
pub struct StoreOptions {
    /// The event database, `postgres://user:password@host:port/database`.
    pub database_url: String,
    /// The application: the first part of topic names.
    pub app: String,
    /// The service whose database it is, such as `invoicing`.
    pub service: String,
    /// Partitions of each topic. Fixed for life: the store refuses another number than its first.
    pub partitions: i32,
    /// How many tasks append, each on a connection of its own.
    pub writers: usize,
    /// Whether states are kept as snapshots, for aggregates that ask for it.
    pub snapshots: bool,
    /// What names this process in leases; a process id of its own is added.
    pub owner: String,
    /// How long things may take.
    pub timings: Timings,
    /// How much there may be.
    pub limits: Limits,
}

impl StoreOptions {
    /// Of this database of this service, everything else as it comes.
    pub fn new(
        database_url: impl Into<String>,
        app: impl Into<String>,
        service: impl Into<String>,
    ) -> Self {
        StoreOptions {
            database_url: database_url.into(),
            app: app.into(),
            service: service.into(),
            partitions: 8,
            writers: 2,
            snapshots: true,
            owner: "relay".into(),
            timings: Timings::default(),
            limits: Limits::default(),
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Timings {
    /// Opening a connection, and waiting for a free one.
    pub connect: Duration,
    /// One call of the database; past it its connection is dropped.
    pub call: Duration,
    /// How long a relay owns a partition without renewing its lease.
    pub lease: Duration,
    /// How long the verdict of an idempotency key is kept.
    pub idempotency: Duration,
    /// How often verdicts that ran out are removed.
    pub prune: Duration,
    /// How often the backlog of the outbox is measured while there is one.
    pub backlog: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            connect: Duration::from_secs(2),
            call: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            idempotency: Duration::from_secs(24 * 60 * 60),
            prune: Duration::from_secs(60),
            backlog: Duration::from_secs(1),
        }
    }
}

/// How much there may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Commands that wait for one writer; more are refused as overload.
    pub queue: usize,
    /// States kept in memory, over all writers; 0 keeps none.
    pub cached_states: usize,
    /// Bytes of states kept in memory, over all writers; about twice their size as JSON each.
    pub cached_bytes: usize,
    /// The Avro datum of one event; must fit into a Kafka message with its headers.
    pub event_bytes: usize,
    /// All data of one command.
    pub command_bytes: usize,
    /// Events that wait for the relay; past it the log warns and the state of the backlog says so.
    pub backlog_warning: u64,
    /// Events that wait for the relay; past it commands are refused.
    pub backlog_events: u64,
    /// Age of the oldest event that waits for the relay; past it commands are refused. `None`
    /// bounds only their number.
    pub backlog_age: Option<Duration>,
    /// Connections for everything but appends.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            queue: 4_096,
            cached_states: 20_000,
            cached_bytes: 24 << 20,
            event_bytes: 1_000_000,
            command_bytes: 16 << 20,
            backlog_warning: 50_000,
            backlog_events: 1_000_000,
            backlog_age: Some(Duration::from_secs(60 * 60)),
            connections: 4,
        }
    }
}
