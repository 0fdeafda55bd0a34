//! Databases that do not exist yet.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use std::str::FromStr;

const DOES_NOT_EXIST: &str = "3D000";
const EXISTS_ALREADY: &str = "42P04";
const MADE_MEANWHILE: &str = "23505";

/// Makes the database of a URL (UTF-8, locale C) unless it is there. The user of the URL must be
/// allowed to.
pub(crate) async fn ensure(url: &str) -> Result<(), sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?;
    match options.connect().await {
        Ok(connection) => return connection.close().await,
        Err(error) if !has_code(&error, &[DOES_NOT_EXIST]) => return Err(error),
        Err(_) => {}
    }
    let name = options.get_database().unwrap_or(options.get_username()).replace('"', "\"\"");
    let sql = format!("create database \"{name}\" template template0 encoding 'UTF8' locale 'C'");
    let mut admin: PgConnection = options.clone().database("postgres").connect().await?;
    match admin.execute(AssertSqlSafe(sql)).await {
        Err(error) if !has_code(&error, &[EXISTS_ALREADY, MADE_MEANWHILE]) => return Err(error),
        Ok(_) | Err(_) => {}
    }
    admin.close().await
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}
