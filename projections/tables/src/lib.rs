//! Read-model tables in Postgres: what a [`Table`](foldstream_core::Table) is there, how cells get
//! in and out, and the `meta` schema with builds, checkpoints and heads. The projections write
//! through this crate, the query side reads through it; neither writes such SQL of its own.
//!
//! | Module | Holds |
//! |---|---|
//! | [`place`](Place) | where a build lies: `"rm_orders_b3"."orders"` |
//! | [`definition`] | DDL, comments, indexes, views |
//! | [`cells`] | a cell as a parameter, in an array, in COPY, and back |
//! | [`rows`] | load, upsert or merge, delete, copy |
//! | [`migrate`](migrate()) | the database, the `meta` schema, the first build of each model |
//! | [`checkpoints`] | ownership by epoch, compare-and-set, states |
//! | [`snapshot`](Snapshot) | the live build with its checkpoints, in one snapshot with rows |
//! | [`heads`](write_heads) | last positions of the topics, from the relay |
//! | [`analyst`](grant_analyst) | the analysts' role |

mod analyst;
pub mod cells;
pub mod checkpoints;
mod declaration;
pub mod definition;
mod error;
mod heads;
mod migrate;
mod numeric;
mod place;
pub mod rows;
mod snapshot;
mod statements;

pub use analyst::grant_analyst;
pub use error::{MigrateError, TableError};
pub use heads::write_heads;
pub use migrate::{Build, migrate};
pub use place::{Place, quoted};
pub use snapshot::{PartitionSnapshot, SNAPSHOT, Snapshot, read_snapshot};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::str::FromStr;
use std::time::Duration;

/// A pool on the read database as the platform wants it: nothing is tested before use, waiting for
/// a connection is short, and no statement runs longer than `statement` (zero: without end).
/// Connects when it is first used.
///
/// # Errors
/// When the URL is none.
pub fn pool(url: &str, connections: u32, statement: Duration) -> Result<PgPool, sqlx::Error> {
    let timeout = statement.as_millis().to_string();
    let options = PgConnectOptions::from_str(url)?
        .application_name("foldstream")
        .options([("statement_timeout", timeout.as_str())]);
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(2))
        .test_before_acquire(false);
    Ok(pool.connect_lazy_with(options))
}
