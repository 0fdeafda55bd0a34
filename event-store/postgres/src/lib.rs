//! The event store on Postgres: append, load, idempotency, leases.
//!
//! One database per service. The event table is the outbox: an append locks the head row of its
//! topic-partition, checks versions and hands out positions, so that position order is commit
//! order and a reader of `position > n` can never miss an event. Commands that queue up during a
//! commit make up the next one (group commit). A command may touch several streams: then all of it
//! is appended, or nothing ([`EventStore::execute_all`]).
//!
//! States are kept in memory, and now and then as snapshots for aggregates that ask for it. Both
//! may be lost or wrong at any time: what is decided on a state is confirmed by version at the
//! append.

mod append;
mod backlog;
mod batch;
mod cache;
mod connection;
mod error;
mod execute;
mod jobs;
mod leases;
mod listing;
mod metrics;
mod migrate;
mod options;
mod outbox;
mod planted;
mod reading;
mod schemas;
mod served;
mod settle;
mod several;
mod snapshots;
mod store;
mod upkeep;
mod writer;

pub use backlog::{Backlog, BacklogState};
pub use error::{ExecuteError, StoreError};
pub use execute::{EventRef, Execute, Executed, Expected, Idempotency, Metadata, Verdict};
pub use listing::{Appended, HistoryPage, StreamSummary};
pub use migrate::migrate;
pub use options::{Limits, StoreOptions, Timings};
pub use outbox::PostgresOutbox;
pub use reading::{HistoryEntry, Until};
pub use schemas::MissingSchema;
pub use several::{AcceptedPart, ExecuteAll, ExecuteAllError, ExecutedAll, Part, VerdictOfAll};
pub use store::EventStore;
