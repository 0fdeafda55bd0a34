use crate::connection::connect;
use crate::{StoreError, Timings, connection};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::str::FromStr;
use std::time::Duration;
use tokio::time::timeout;

/// A migration of a large table may take this long.
const PATIENCE: Duration = Duration::from_secs(300);
const CONNECT: Duration = Duration::from_secs(5);

/// Brings the event database to this version of the store. A missing database is created (UTF-8,
/// locale C) when the user of the address may do so. Safe to run by many at once, and again.
///
/// # Errors
/// When the database cannot be reached or made, or is of a later version.
pub async fn migrate(database_url: &str) -> Result<(), StoreError> {
    let options = PgConnectOptions::from_str(database_url).map_err(StoreError::Address)?;
    let mut connection = match connect(&options, CONNECT).await {
        Err(StoreError::Database(error)) if is_missing(&error) => {
            create(&options).await?;
            connect(&options, CONNECT).await?
        }
        connected => connected?,
    };
    let run = sqlx::migrate!("./migrations").run(&mut connection);
    match timeout(PATIENCE, run).await {
        Ok(done) => done.map_err(StoreError::Migration)?,
        Err(_) => return Err(StoreError::Unavailable(None)),
    }
    connection::in_time(Timings::default().call, connection.close()).await
}

async fn create(options: &PgConnectOptions) -> Result<(), StoreError> {
    let name = options.get_database().unwrap_or(options.get_username()).replace('"', "\"\"");
    let sql = format!("create database \"{name}\" template template0 encoding 'UTF8' locale 'C'");
    let mut admin: PgConnection = connect(&options.clone().database("postgres"), CONNECT).await?;
    let created = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin);
    match connection::in_time(PATIENCE, created).await {
        Err(StoreError::Database(error)) if was_made_meanwhile(&error) => Ok(()),
        other => other.map(|_| ()),
    }
}

fn is_missing(error: &sqlx::Error) -> bool {
    has_code(error, &["3D000"])
}
fn was_made_meanwhile(error: &sqlx::Error) -> bool {
    has_code(error, &["42P04", "23505"])
}
fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(|e| e.code());
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}
