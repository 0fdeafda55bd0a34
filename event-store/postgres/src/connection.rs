//! Connections whose every call has a deadline, and what their errors mean.

use crate::{StoreError, Timings};
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions, PgSeverity};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres, pool::PoolConnection};
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A connection that answered within this time is taken to be alive. An older one is asked first:
/// after a restart of the database those of before are dead.
pub(crate) const TRUSTED: Duration = Duration::from_millis(50);

/// The database's own limits come a little before ours, so that its answer is a definite one.
const EARLIER: Duration = Duration::from_millis(500);

pub(crate) fn options(
    url: &str,
    name: &str,
    timings: &Timings,
) -> Result<PgConnectOptions, StoreError> {
    let millis = |time: Duration| time.as_millis().max(1).to_string();
    let statement = timings.call.saturating_sub(EARLIER).max(timings.call / 2);
    let settings = [
        ("statement_timeout", millis(statement)),
        ("lock_timeout", millis(statement / 2)),
        ("idle_in_transaction_session_timeout", "10000".into()),
        // Plans are made once and kept, some of them while the tables are still empty: each
        // statement of the store has an index, and must use it.
        ("enable_seqscan", "off".into()),
        ("plan_cache_mode", "force_generic_plan".into()),
        ("jit", "off".into()),
    ];
    let options = PgConnectOptions::from_str(url).map_err(StoreError::Address)?;
    Ok(options.application_name(name).options(settings).disable_statement_logging())
}

/// A connection of one's own.
pub(crate) async fn connect(
    options: &PgConnectOptions,
    within: Duration,
) -> Result<PgConnection, StoreError> {
    match timeout(within, PgConnection::connect_with(options)).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(StoreError::Unavailable(None)),
    }
}

/// A call that ends in time. The caller drops the connection when it does not.
pub(crate) async fn in_time<T>(
    within: Duration,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match timeout(within, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Unavailable(None)),
    }
}

/// Whether the error says that the database is not there, or not for us now.
pub(crate) fn is_away(error: &sqlx::Error) -> bool {
    match error.as_database_error().map(|e| e.code().unwrap_or_default()) {
        // Connections broken or refused, resources gone, an operator at work, a read-only standby.
        Some(code) => ["08", "53", "57", "25006", "55P03"].iter().any(|c| code.starts_with(c)),
        None => matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
        ),
    }
}

/// What an error of an append means for its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The connection broke: nobody knows.
    Broken,
    /// Nothing was done; the same again may go well.
    Busy,
    /// Nothing was done; it took too long.
    Slow,
    /// Nothing was done; the id of a command was used before.
    Repeated,
    /// Nothing was done; something in the data is at fault.
    Data,
}

pub(crate) fn class(error: &sqlx::Error) -> Class {
    let Some(error) = error.as_database_error().map(|e| e.downcast_ref::<PgDatabaseError>()) else {
        return match error {
            // What cannot be encoded was never sent.
            sqlx::Error::Encode(_) => Class::Data,
            _other => Class::Broken,
        };
    };
    // Only an ERROR is an answer to the statement; FATAL and PANIC are the end of the connection,
    // and may come after the commit.
    if !matches!(error.severity(), PgSeverity::Error) {
        return Class::Broken;
    }
    match error.code() {
        "40001" | "40P01" => Class::Busy,
        "57014" | "55P03" => Class::Slow,
        "23505" if error.constraint() == Some("events_once") => Class::Repeated,
        code if code.starts_with("53") || code.starts_with("57") || code.starts_with("25") => {
            Class::Busy
        }
        _other => Class::Data,
    }
}

/// A few connections for reads and the relay.
#[derive(Clone)]
pub(crate) struct Connections {
    pool: PgPool,
    wait: prometheus::Histogram,
    pub(crate) call: Duration,
}

impl Connections {
    /// Opens none yet.
    pub(crate) fn new(
        options: PgConnectOptions,
        most: u32,
        timings: &Timings,
        wait: prometheus::Histogram,
    ) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(timings.connect)
            .test_before_acquire(false)
            .before_acquire(|connection, past| {
                Box::pin(
                    async move { Ok(past.idle_for < TRUSTED || connection.ping().await.is_ok()) },
                )
            })
            .idle_timeout(Duration::from_secs(600))
            .connect_lazy_with(options);
        Connections { pool, wait, call: timings.call }
    }
    /// One of them, until [`Borrowed::give_back`].
    pub(crate) async fn borrow(&self) -> Result<Borrowed, StoreError> {
        let start = Instant::now();
        let connection = self.pool.acquire().await;
        self.wait.observe(start.elapsed().as_secs_f64());
        Ok(Borrowed { connection: Some(connection?) })
    }
    pub(crate) async fn close(&self) {
        // Waits for those in use, which are in time; idle ones say goodbye.
        let _ = timeout(self.call, self.pool.close()).await;
    }
}

/// A connection that is closed unless it is given back: after an error, a timeout or a cancelled
/// caller nobody knows in which state it is.
pub(crate) struct Borrowed {
    connection: Option<PoolConnection<Postgres>>,
}

impl Borrowed {
    /// All calls on it ended as they should: the next one may have it.
    pub(crate) fn give_back(mut self) {
        self.connection = None;
    }
}
impl Deref for Borrowed {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("only `give_back` takes it, and that ends the borrower")
    }
}
impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("only `give_back` takes it, and that ends the borrower")
    }
}
impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}
