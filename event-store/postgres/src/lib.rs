//! The event store on Postgres: append, load, idempotency, leases.
//!
//! One database per service. The event table is the outbox: an append locks the head row of its
//! topic-partition, checks versions and hands out positions, so that position order is commit
//! order and a reader of `position > n` can never miss an event. Commands that queue up during a
//! commit make up the next one (group commit).

mod append;
mod backlog;
mod batch;
mod cache;
mod connection;
mod error;
mod execute;
mod jobs;
mod metrics;
mod migrate;
mod options;
mod outbox;
mod reading;
mod schemas;
mod served;
mod settle;
mod store;
mod upkeep;
mod writer;

pub use backlog::Backlog;
pub use error::{ExecuteError, StoreError};
pub use execute::{EventRef, Execute, Executed, Expected, Idempotency, Metadata, Verdict};
pub use migrate::migrate;
pub use options::{Limits, StoreOptions, Timings};
pub use outbox::PostgresOutbox;
pub use reading::{HistoryEntry, Until};
pub use schemas::MissingSchema;
pub use store::EventStore;
