//! Lists over all subjects.

use sqlx::PgConnection;

use crate::refusal::Refusal;
use crate::store::Scope;

/// A version with its subject.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Listed {
    pub(crate) subject: String,
    pub(crate) version: i32,
    pub(crate) id: i32,
    pub(crate) text: String,
    pub(crate) deleted: bool,
}

/// The most versions that one answer lists.
const MOST: i64 = 1_000;

/// The versions of all subjects whose name begins with `prefix`, by subject and version; of each
/// only the latest where `latest_only`.
pub(crate) async fn schemas(
    connection: &mut PgConnection,
    prefix: &str,
    scope: Scope,
    latest_only: bool,
    offset: i64,
    limit: Option<i64>,
) -> Result<Vec<Listed>, Refusal> {
    Ok(sqlx::query_as(
        "select v.subject, v.version, s.id, s.text, v.deleted
         from schema_registry.versions v join schema_registry.schemas s on s.id = v.schema_id
         where starts_with(v.subject, $1) and (($2 and not v.deleted) or ($3 and v.deleted))
           and (not $4 or not exists (
                select from schema_registry.versions later
                where later.subject = v.subject and later.version > v.version
                  and (($2 and not later.deleted) or ($3 and later.deleted))))
         order by v.subject, v.version offset $5 limit $6",
    )
    .bind(prefix)
    .bind(scope.takes_live())
    .bind(scope.takes_deleted())
    .bind(latest_only)
    .bind(offset)
    .bind(limit.unwrap_or(MOST).min(MOST))
    .fetch_all(connection)
    .await?)
}

/// The last id given out.
pub(crate) async fn last_id(connection: &mut PgConnection) -> Result<i32, Refusal> {
    Ok(sqlx::query_scalar("select last_id from schema_registry.ids").fetch_one(connection).await?)
}
