//! A small Confluent-compatible schema registry over Postgres.
//!
//! It keeps Avro schemas for development, tests and small deployments; any other registry with
//! the same API can take its place. What it holds to:
//!
//! - One id per distinct schema, the same under every subject. Ids count up from 1 in commit
//!   order, are never used twice, and keep answering after a permanent delete: a record in a
//!   topic names its schema by id for as long as the topic lives.
//! - Registering is idempotent, also when many do it at once: one row lock puts them in line.
//! - Compatibility levels as Confluent defines them. A schema that can read only a part of what
//!   another writes is not compatible with it.
//! - Modes: a subject, or the whole registry, can be read-only.
//! - Every database call has a deadline. Without its database the registry answers 500 with
//!   code 50001 within seconds, and goes on by itself once the database is back.
//!
//! Not there: schema references, metadata, rule sets, contexts, import mode, JSON Schema and
//! Protobuf. A request that needs one of them is refused with a sentence that says so.

mod answer;
mod canonical;
mod compatibility;
mod levels;
mod lists;
mod modes;
mod refusal;
mod request;
mod routes;
mod schema;
mod store;

use std::str::FromStr;
use std::time::Duration;

use axum::Router;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool, Postgres};

use crate::refusal::Refusal;

/// How long a request waits for a connection, be it for a free or for a new one.
const ACQUIRE: Duration = Duration::from_secs(2);
/// How long the work on a connection may take in all.
const WORK: Duration = Duration::from_secs(5);
/// How long the question whether the database is there may take.
const CHECK: Duration = Duration::from_millis(2_500);
/// How long bringing the tables up to date may take.
const MIGRATE: Duration = Duration::from_secs(30);
const MAX_CONNECTIONS: u32 = 8;

/// Why the registry cannot work with its database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The address of the database is not one.
    #[error("the registry's database address is not understood")]
    Address(#[source] sqlx::Error),
    /// The database cannot be reached, or it refuses.
    #[error("the registry's database does not answer")]
    Database(#[source] sqlx::Error),
    /// The registry's tables could not be brought up to date.
    #[error("the registry's tables could not be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// The database took longer than it may.
    #[error("the registry's database did not answer within {} ms", .0.as_millis())]
    Deadline(Duration),
}

/// Why a schema cannot read all that an older one wrote; none when it can. What the registry
/// answers at `BACKWARD`, for schemas in hand.
///
/// # Errors
/// A sentence when one of the texts is no Avro schema.
pub fn cannot_read(reader: &str, writer: &str) -> Result<Option<String>, String> {
    let reader = schema::AvroSchema::parse(reader)?;
    let earlier = [compatibility::Earlier { version: 1, text: writer.to_owned() }];
    let level = compatibility::Level::Backward;
    Ok(compatibility::objections(level, &reader, &earlier)?.into_iter().next())
}

/// A schema registry over one Postgres database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Registry {
    pool: PgPool,
}

/// Brings the registry's tables in a database up to date, as [`Registry::open`] does first.
///
/// # Errors
/// Those of [`Registry::open`].
pub async fn migrate(database_url: &str) -> Result<(), RegistryError> {
    let registry = Registry::open(database_url).await?;
    registry.pool.close().await;
    Ok(())
}

impl Registry {
    /// Connects to `database_url` and brings the registry's tables up to date. They live in the
    /// schema `schema_registry` of that database; nothing is made outside of it.
    ///
    /// # Errors
    /// When the address is malformed, the database cannot be reached within seconds, or its
    /// tables cannot be brought up to date.
    pub async fn open(database_url: &str) -> Result<Self, RegistryError> {
        let pool = connect(database_url).await?;
        let mut migrator = sqlx::migrate!("./migrations");
        migrator.create_schema("schema_registry");
        migrator.dangerous_set_table_name("schema_registry.migrations");
        tokio::time::timeout(MIGRATE, migrator.run(&pool))
            .await
            .map_err(|_| RegistryError::Deadline(MIGRATE))?
            .map_err(RegistryError::Migration)?;
        Ok(Self { pool })
    }

    /// The registry's HTTP routes.
    pub fn router(&self) -> Router {
        routes::router(self.clone())
    }

    /// Whether the registry could answer a request now.
    ///
    /// # Errors
    /// When its database does not answer, or not in time.
    pub async fn check(&self) -> Result<(), RegistryError> {
        let question = async {
            sqlx::query("select last_id from schema_registry.ids").fetch_one(&self.pool).await
        };
        match tokio::time::timeout(CHECK, question).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(RegistryError::Database(error)),
            Err(_) => Err(RegistryError::Deadline(CHECK)),
        }
    }

    /// Runs `work` on a connection, within a deadline. A connection whose work was cut off is
    /// closed: nobody knows what it still has to say.
    async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut lease = Lease { connection: self.pool.acquire().await?, settled: false };
        match tokio::time::timeout(WORK, work(&mut lease.connection)).await {
            Ok(outcome) => {
                lease.settled = true;
                outcome
            }
            Err(elapsed) => Err(Refusal::store(&elapsed)),
        }
    }
}

async fn connect(database_url: &str) -> Result<PgPool, RegistryError> {
    let options = PgConnectOptions::from_str(database_url)
        .map_err(RegistryError::Address)?
        .application_name("foldstream-registry")
        .options([
            ("statement_timeout", "4s"),
            ("lock_timeout", "3s"),
            // A process that hangs with the lock in hand must not stop the others.
            ("idle_in_transaction_session_timeout", "10s"),
        ]);
    PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        // Requests are few: a round trip more is a small price for not failing each idle
        // connection's first request after Postgres was restarted.
        .test_before_acquire(true)
        .connect_with(options)
        .await
        .map_err(RegistryError::Database)
}

/// A connection that goes back to the pool only if its work came to an end; also a client that
/// hangs up cuts it off.
struct Lease {
    connection: PoolConnection<Postgres>,
    settled: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            self.connection.close_on_drop();
        }
    }
}
