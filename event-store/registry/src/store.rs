//! The statements behind the routes. Each function runs on a connection that the caller got and
//! watches; none opens or keeps one.

use sqlx::{Connection, PgConnection};

use crate::compatibility::{Earlier, Level, objections};
use crate::levels::effective_level;
use crate::modes::require_writable;
use crate::refusal::Refusal;
use crate::schema::AvroSchema;

/// Which versions and subjects count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that are not deleted.
    Live,
    /// Those and the soft-deleted ones.
    All,
    /// Only the soft-deleted ones.
    DeletedOnly,
}

impl Scope {
    pub(crate) fn takes_live(self) -> bool {
        self != Self::DeletedOnly
    }

    pub(crate) fn takes_deleted(self) -> bool {
        self != Self::Live
    }
}

/// A version as the path names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Latest,
    Number(i32),
}

/// A version of a subject.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Version {
    pub(crate) version: i32,
    pub(crate) id: i32,
    pub(crate) text: String,
    pub(crate) deleted: bool,
}

/// Registers a schema under a subject and answers its id.
pub(crate) async fn register(
    connection: &mut PgConnection,
    subject: &str,
    schema: &AvroSchema,
) -> Result<i32, Refusal> {
    if let Some(id) = registered_id(&mut *connection, subject, schema).await? {
        return Ok(id);
    }
    let mut transaction = connection.begin().await?;
    let last_id = lock(&mut transaction).await?;
    // What was committed while we waited for the lock is seen from here on.
    if let Some(id) = registered_id(&mut transaction, subject, schema).await? {
        return Ok(id);
    }
    require_writable(&mut transaction, subject).await?;
    let level = effective_level(&mut transaction, subject).await?;
    let earlier = earlier(&mut transaction, subject, level).await?;
    let against = compare(level, schema.clone(), earlier).await?;
    if !against.is_empty() {
        return Err(Refusal::incompatible(subject, &against));
    }
    let known: Option<i32> =
        sqlx::query_scalar("select id from schema_registry.schemas where hash = $1")
            .bind(schema.hash.as_slice())
            .fetch_optional(&mut *transaction)
            .await?;
    let id = match known {
        Some(id) => id,
        None => add_schema(&mut transaction, last_id, schema).await?,
    };
    sqlx::query(
        "insert into schema_registry.versions (subject, version, schema_id)
         select $1, coalesce(max(version), 0) + 1, $2
         from schema_registry.versions where subject = $1",
    )
    .bind(subject)
    .bind(id)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(id)
}

async fn add_schema(
    connection: &mut PgConnection,
    last_id: i32,
    schema: &AvroSchema,
) -> Result<i32, Refusal> {
    let id = last_id + 1;
    sqlx::query("update schema_registry.ids set last_id = $1")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    sqlx::query("insert into schema_registry.schemas (id, text, hash) values ($1, $2, $3)")
        .bind(id)
        .bind(&schema.text)
        .bind(schema.hash.as_slice())
        .execute(&mut *connection)
        .await?;
    Ok(id)
}

/// Makes this transaction the only one that writes, to its end. Answers the last id given.
async fn lock(connection: &mut PgConnection) -> Result<i32, Refusal> {
    Ok(sqlx::query_scalar("select last_id from schema_registry.ids for update")
        .fetch_one(connection)
        .await?)
}

async fn registered_id(
    connection: &mut PgConnection,
    subject: &str,
    schema: &AvroSchema,
) -> Result<Option<i32>, Refusal> {
    Ok(version_of_schema(connection, subject, schema, Scope::Live).await?.map(|found| found.id))
}

/// The newest version of the subject that is this schema.
pub(crate) async fn version_of_schema(
    connection: &mut PgConnection,
    subject: &str,
    schema: &AvroSchema,
    scope: Scope,
) -> Result<Option<Version>, Refusal> {
    Ok(sqlx::query_as(
        "select v.version, s.id, s.text, v.deleted
         from schema_registry.versions v join schema_registry.schemas s on s.id = v.schema_id
         where v.subject = $1 and s.hash = $2
           and (($3 and not v.deleted) or ($4 and v.deleted))
         order by v.version desc limit 1",
    )
    .bind(subject)
    .bind(schema.hash.as_slice())
    .bind(scope.takes_live())
    .bind(scope.takes_deleted())
    .fetch_optional(connection)
    .await?)
}

/// The earlier versions that a new schema must be compared with at this level.
async fn earlier(
    connection: &mut PgConnection,
    subject: &str,
    level: Level,
) -> Result<Vec<Earlier>, Refusal> {
    let most = match (level, level.is_transitive()) {
        (Level::None, _) => 0,
        (_, true) => i64::from(i32::MAX),
        (_, false) => 1,
    };
    let rows: Vec<(i32, String)> = sqlx::query_as(
        "select v.version, s.text
         from schema_registry.versions v join schema_registry.schemas s on s.id = v.schema_id
         where v.subject = $1 and not v.deleted
         order by v.version desc limit $2",
    )
    .bind(subject)
    .bind(most)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(version, text)| Earlier { version, text }).collect())
}

/// What stands against a schema: compared with one version, or with all that the subject's level
/// asks for.
pub(crate) async fn check(
    connection: &mut PgConnection,
    subject: &str,
    schema: &AvroSchema,
    wanted: Option<Wanted>,
) -> Result<Vec<String>, Refusal> {
    let level = effective_level(&mut *connection, subject).await?;
    let earlier = match wanted {
        None => earlier(connection, subject, level).await?,
        Some(wanted) => match version(connection, subject, wanted, Scope::Live).await? {
            Some(found) => vec![Earlier { version: found.version, text: found.text }],
            None => match wanted {
                Wanted::Latest => Vec::new(),
                Wanted::Number(number) => return Err(Refusal::version_not_found(number)),
            },
        },
    };
    compare(level, schema.clone(), earlier).await
}

/// Compares on a thread of its own: it is arithmetic, and large schemas make much of it.
async fn compare(
    level: Level,
    schema: AvroSchema,
    earlier: Vec<Earlier>,
) -> Result<Vec<String>, Refusal> {
    tokio::task::spawn_blocking(move || objections(level, &schema, &earlier))
        .await
        .map_err(|error| Refusal::store(&error))?
        .map_err(|sentence| Refusal::store(&Unreadable(sentence)))
}

/// The store holds what this program does not understand.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(pub(crate) String);

/// One version of a subject.
pub(crate) async fn version(
    connection: &mut PgConnection,
    subject: &str,
    wanted: Wanted,
    scope: Scope,
) -> Result<Option<Version>, Refusal> {
    let number = match wanted {
        Wanted::Latest => None,
        Wanted::Number(number) => Some(number),
    };
    Ok(sqlx::query_as(
        "select v.version, s.id, s.text, v.deleted
         from schema_registry.versions v join schema_registry.schemas s on s.id = v.schema_id
         where v.subject = $1 and ($2::integer is null or v.version = $2)
           and (($3 and not v.deleted) or ($4 and v.deleted))
         order by v.version desc limit 1",
    )
    .bind(subject)
    .bind(number)
    .bind(scope.takes_live())
    .bind(scope.takes_deleted())
    .fetch_optional(connection)
    .await?)
}

/// The version numbers of a subject, ascending; empty where there is no such subject.
pub(crate) async fn version_numbers(
    connection: &mut PgConnection,
    subject: &str,
    scope: Scope,
) -> Result<Vec<i32>, Refusal> {
    Ok(sqlx::query_scalar(
        "select version from schema_registry.versions
         where subject = $1 and (($2 and not deleted) or ($3 and deleted)) order by version",
    )
    .bind(subject)
    .bind(scope.takes_live())
    .bind(scope.takes_deleted())
    .fetch_all(connection)
    .await?)
}

/// The subjects whose name begins with `prefix`, by name.
pub(crate) async fn subjects(
    connection: &mut PgConnection,
    prefix: &str,
    scope: Scope,
) -> Result<Vec<String>, Refusal> {
    // A subject is deleted once all of its versions are.
    Ok(sqlx::query_scalar(
        "select subject from schema_registry.versions where starts_with(subject, $1)
         group by subject
         having ($2 and not bool_and(deleted)) or ($3 and bool_and(deleted))
         order by subject",
    )
    .bind(prefix)
    .bind(scope.takes_live())
    .bind(scope.takes_deleted())
    .fetch_all(connection)
    .await?)
}

/// The text of the schema of that id.
pub(crate) async fn schema_text(connection: &mut PgConnection, id: i32) -> Result<String, Refusal> {
    sqlx::query_scalar("select text from schema_registry.schemas where id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| Refusal::schema_id_not_found(id))
}

/// Subjects and versions that are the schema of that id.
pub(crate) async fn uses_of_schema(
    connection: &mut PgConnection,
    id: i32,
    scope: Scope,
) -> Result<Vec<(String, i32)>, Refusal> {
    Ok(sqlx::query_as(
        "select subject, version from schema_registry.versions
         where schema_id = $1 and (($2 and not deleted) or ($3 and deleted))
         order by subject, version",
    )
    .bind(id)
    .bind(scope.takes_live())
    .bind(scope.takes_deleted())
    .fetch_all(connection)
    .await?)
}

/// Deletes all versions of a subject and answers their numbers.
pub(crate) async fn delete_subject(
    connection: &mut PgConnection,
    subject: &str,
    permanent: bool,
) -> Result<Vec<i32>, Refusal> {
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    require_writable(&mut transaction, subject).await?;
    let live = version_numbers(&mut transaction, subject, Scope::Live).await?;
    let all = version_numbers(&mut transaction, subject, Scope::All).await?;
    match (all.is_empty(), live.is_empty(), permanent) {
        (true, _, _) => return Err(Refusal::subject_not_found(subject)),
        (false, true, false) => return Err(Refusal::subject_soft_deleted(subject)),
        (false, false, true) => return Err(Refusal::subject_not_soft_deleted(subject)),
        (false, true, true) | (false, false, false) => {}
    }
    if permanent {
        sqlx::query("delete from schema_registry.versions where subject = $1")
            .bind(subject)
            .execute(&mut *transaction)
            .await?;
    } else {
        sqlx::query("update schema_registry.versions set deleted = true where subject = $1")
            .bind(subject)
            .execute(&mut *transaction)
            .await?;
        // A subject that comes back begins with the global level and mode.
        for forget in [
            "delete from schema_registry.levels where subject = $1",
            "delete from schema_registry.modes where subject = $1",
        ] {
            sqlx::query(forget).bind(subject).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(if permanent { all } else { live })
}

/// Deletes one version of a subject and answers its number.
pub(crate) async fn delete_version(
    connection: &mut PgConnection,
    subject: &str,
    wanted: Wanted,
    permanent: bool,
) -> Result<i32, Refusal> {
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    require_writable(&mut transaction, subject).await?;
    let scope = match wanted {
        Wanted::Latest if !permanent => Scope::Live,
        Wanted::Latest | Wanted::Number(_) => Scope::All,
    };
    let Some(found) = version(&mut transaction, subject, wanted, scope).await? else {
        return Err(no_version(&mut transaction, subject, wanted, Scope::All).await?);
    };
    let number = found.version;
    match (found.deleted, permanent) {
        (true, false) => return Err(Refusal::version_soft_deleted(subject, number)),
        (false, true) => return Err(Refusal::version_not_soft_deleted(subject, number)),
        (true, true) | (false, false) => {}
    }
    let statement = if permanent {
        "delete from schema_registry.versions where subject = $1 and version = $2"
    } else {
        "update schema_registry.versions set deleted = true where subject = $1 and version = $2"
    };
    sqlx::query(statement).bind(subject).bind(number).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(number)
}

/// Whether it is the subject or only the version that is missing.
pub(crate) async fn no_version(
    connection: &mut PgConnection,
    subject: &str,
    wanted: Wanted,
    scope: Scope,
) -> Result<Refusal, Refusal> {
    let has_others = !version_numbers(connection, subject, scope).await?.is_empty();
    Ok(match (has_others, wanted) {
        (true, Wanted::Number(number)) => Refusal::version_not_found(number),
        (true, Wanted::Latest) => Refusal::version_not_found("latest"),
        (false, _) => Refusal::subject_not_found(subject),
    })
}
