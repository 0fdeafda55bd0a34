//! Where levels of compatibility are kept.

use sqlx::PgConnection;

use crate::compatibility::Level;
use crate::refusal::Refusal;
use crate::store::Unreadable;

/// Stands for all subjects where levels are kept: no subject is empty.
pub(crate) const GLOBAL: &str = "";

/// The level set for a subject; that of [`GLOBAL`] holds for the others.
pub(crate) async fn level(
    connection: &mut PgConnection,
    subject: &str,
) -> Result<Option<Level>, Refusal> {
    let name: Option<String> =
        sqlx::query_scalar("select level from schema_registry.levels where subject = $1")
            .bind(subject)
            .fetch_optional(connection)
            .await?;
    match name {
        None => Ok(None),
        Some(name) => match Level::from_name(&name) {
            Some(level) => Ok(Some(level)),
            None => Err(Refusal::store(&Unreadable(format!("stored level {name} is unknown")))),
        },
    }
}

/// The level that holds for a subject: its own, else the global one.
pub(crate) async fn effective_level(
    connection: &mut PgConnection,
    subject: &str,
) -> Result<Level, Refusal> {
    if let Some(own) = level(&mut *connection, subject).await? {
        return Ok(own);
    }
    Ok(level(connection, GLOBAL).await?.unwrap_or(Level::DEFAULT))
}

/// Sets the level of a subject, or of [`GLOBAL`].
pub(crate) async fn set_level(
    connection: &mut PgConnection,
    subject: &str,
    level: Level,
) -> Result<(), Refusal> {
    sqlx::query(
        "insert into schema_registry.levels (subject, level) values ($1, $2)
         on conflict (subject) do update set level = excluded.level",
    )
    .bind(subject)
    .bind(level.name())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the level of a subject and answers what it was.
pub(crate) async fn forget_level(
    connection: &mut PgConnection,
    subject: &str,
) -> Result<Option<Level>, Refusal> {
    let name: Option<String> =
        sqlx::query_scalar("delete from schema_registry.levels where subject = $1 returning level")
            .bind(subject)
            .fetch_optional(connection)
            .await?;
    Ok(name.as_deref().and_then(Level::from_name))
}
