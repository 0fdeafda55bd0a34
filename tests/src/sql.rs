//! Questions in SQL, answered as texts, as `psql` would.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

/// The rows of a query whose columns are all texts.
///
/// # Errors
/// The server does not answer, or refuses.
pub async fn rows(url: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let ask = async {
        let mut connection = PgConnection::connect(url).await?;
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
        connection.close().await?;
        let texts = |row: &PgRow| (0..row.len()).map(|n| row.try_get(n)).collect();
        rows.iter().map(texts).collect::<Result<Vec<_>, sqlx::Error>>()
    };
    match timeout(DEADLINE, ask).await {
        Ok(rows) => rows.map_err(|error| format!("{sql}: {error}")),
        Err(_) => Err(format!("{sql}: no answer within {DEADLINE:?}")),
    }
}

/// One number.
///
/// # Errors
/// The server does not answer, or refuses.
pub async fn number(url: &str, sql: &str) -> Result<i64, String> {
    let rows = rows(url, &format!("select ({sql})::text")).await?;
    let text = rows.first().and_then(|row| row.first().cloned().flatten());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("{sql}: no number"))
}

/// Does something.
///
/// # Errors
/// The server does not answer, or refuses.
pub async fn run(url: &str, sql: &str) -> Result<(), String> {
    let run = async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
        connection.close().await
    };
    match timeout(DEADLINE, run).await {
        Ok(done) => done.map_err(|error| format!("{sql}: {error}")),
        Err(_) => Err(format!("{sql}: no answer within {DEADLINE:?}")),
    }
}
