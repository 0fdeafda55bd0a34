//! The read database: a pool with short waits, a deadline on every statement, and one more try
//! where a pooled connection turns out to be dead.

use crate::metrics::QueryMetrics;
use crate::statement::Statement;
use foldstream_service::{Problem, ProblemKind};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow, Postgres};
use sqlx::{AssertSqlSafe, pool::PoolConnection};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Connections that are kept open.
const WARM: u32 = 4;
/// The server ends a statement at its timeout; past so much more the connection is given up.
const GRACE: Duration = Duration::from_secs(1);
/// Dead connections of the pool are tried past for no longer than this.
const REVIVAL: Duration = Duration::from_secs(1);

/// What the read side bears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections: u32,
    pub(crate) pool_wait: Duration,
    pub(crate) statement: Duration,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no connection within {0:?}, all are in use")]
    Busy(Duration),
    #[error("the read database is away: {0}")]
    Away(sqlx::Error),
    #[error("the statement took longer than {0:?}")]
    TooSlow(Duration),
    /// The build that was asked is dropped.
    #[error("the build is gone")]
    NoSuchBuild,
    #[error("the read database: {0}")]
    Fault(String),
}

impl ReadError {
    /// The answer; what happened goes to the log alone.
    pub(crate) fn into_problem(self) -> Problem {
        match &self {
            ReadError::Busy(_) => Problem::new(ProblemKind::Overloaded),
            ReadError::Away(_) => {
                tracing::warn!(error = %self, "a query failed");
                Problem::new(ProblemKind::Unavailable).detail("the read models cannot be reached")
            }
            ReadError::TooSlow(limit) => {
                tracing::warn!(error = %self, "a query failed");
                let detail = format!(
                    "the query took longer than {} s; filter more narrowly, or order by a column \
                     that is filtered by",
                    limit.as_secs_f64()
                );
                Problem::new(ProblemKind::Unavailable).detail(detail)
            }
            ReadError::NoSuchBuild => Problem::new(ProblemKind::Unavailable)
                .detail("the read model is being exchanged for a new build"),
            ReadError::Fault(_) => Problem::internal(&self),
        }
    }
}

/// A pool of connections that can only read.
#[derive(Clone)]
pub(crate) struct Database {
    pool: PgPool,
    bounds: Bounds,
    metrics: QueryMetrics,
}

impl Database {
    /// Connects when it is first asked.
    pub(crate) fn new(
        url: &str,
        bounds: Bounds,
        metrics: QueryMetrics,
    ) -> Result<Self, sqlx::Error> {
        let timeout = bounds.statement.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)?.application_name("foldstream queries");
        let options = options.options([
            ("statement_timeout", timeout.as_str()),
            ("default_transaction_read_only", "on"),
        ]);
        let pool = PgPoolOptions::new()
            // Some are made before they are needed: the first requests are not to pay for them.
            .min_connections(WARM.min(bounds.connections))
            .max_connections(bounds.connections)
            .acquire_timeout(bounds.pool_wait)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Database { pool, bounds, metrics })
    }

    /// The rows of a statement.
    pub(crate) async fn rows(&self, statement: &Statement) -> Result<Vec<PgRow>, ReadError> {
        let started = Instant::now();
        let mut tries = 0;
        loop {
            let error = match self.once(statement).await {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            tries += 1;
            // Reads have no effect: past the pool's dead connections comes a live one.
            let again = matches!(error, ReadError::Away(sqlx::Error::Io(_)))
                || matches!(&error, ReadError::Away(e) if e.as_database_error().is_some());
            if !again || tries > self.bounds.connections || started.elapsed() > REVIVAL {
                return Err(error);
            }
        }
    }

    async fn once(&self, statement: &Statement) -> Result<Vec<PgRow>, ReadError> {
        let mut connection = self.acquire().await?;
        let arguments = statement.arguments().map_err(|e| ReadError::Fault(e.to_string()))?;
        let query = sqlx::query_with(AssertSqlSafe(statement.text.as_str()), arguments);
        let limit = self.bounds.statement + GRACE;
        match tokio::time::timeout(limit, query.fetch_all(&mut *connection)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                let error = classify(error, self.bounds.statement);
                if matches!(error, ReadError::Away(_)) {
                    connection.close_on_drop();
                }
                Err(error)
            }
            Err(_) => {
                // Nobody knows what the connection is at: it does not go back to the pool.
                connection.close_on_drop();
                Err(ReadError::TooSlow(self.bounds.statement))
            }
        }
    }

    /// A connection, if one is had soon.
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Postgres>, ReadError> {
        let started = Instant::now();
        let acquired = tokio::time::timeout(self.bounds.pool_wait, self.pool.acquire()).await;
        self.metrics.pool_waited(started.elapsed());
        match acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(connection) => Ok(connection),
            Err(sqlx::Error::PoolTimedOut) => {
                // Connections that are in use answer soon; ones that are not made mean trouble.
                let full = self.pool.size() >= self.bounds.connections && self.pool.num_idle() == 0;
                match full {
                    true => Err(ReadError::Busy(self.bounds.pool_wait)),
                    false => Err(ReadError::Away(sqlx::Error::PoolTimedOut)),
                }
            }
            Err(error) => Err(classify(error, self.bounds.statement)),
        }
    }
}

fn classify(error: sqlx::Error, limit: Duration) -> ReadError {
    let code = error.as_database_error().and_then(|e| e.code()).map(|code| code.into_owned());
    match (code.as_deref(), &error) {
        (Some("57014"), _) => ReadError::TooSlow(limit),
        (Some("42P01" | "3F000" | "42883"), _) => ReadError::NoSuchBuild,
        // 08: connection, 53: out of resources, 57P: shutting or starting, 3D000: not there yet.
        (Some(code), _) if ["08", "53", "57P", "3D000"].iter().any(|c| code.starts_with(c)) => {
            ReadError::Away(error)
        }
        (
            None,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed,
        ) => ReadError::Away(error),
        _ => ReadError::Fault(error.to_string()),
    }
}
