use crate::error::MigrateError;
use crate::{Place, declaration, definition, quoted};
use foldstream_core::{AnyReadModel, Table};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The whole of a migration takes no longer, waiting for another process's included.
const PATIENCE: Duration = Duration::from_secs(60);
/// The advisory lock under which one process at a time migrates: "fold" in ASCII.
const LOCK: i64 = 0x666f_6c64;

/// The live build of a read model.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// Where its table lies.
    pub place: Place,
    /// The version of the declaration it was made from.
    pub version: u32,
}

/// Makes the read database what these read models need: the database itself (locale C) when it is
/// missing and may be made, the `meta` schema, and build 1 of each read model that has none.
/// Comments and missing indexes of builds that are there are brought up to date. Safe to run from
/// several processes at once. Answers the live builds in the order of the models.
///
/// # Errors
/// When Postgres is away or refuses, a declaration changed without its version, or the live build
/// is of another version than the declaration.
pub async fn migrate(
    read_database_url: &str,
    app: &str,
    models: &[Arc<dyn AnyReadModel>],
) -> Result<Vec<Build>, MigrateError> {
    declaration::check(models)?;
    let work = async {
        let mut connection = open(read_database_url).await?;
        sqlx::query("select pg_advisory_lock($1)").bind(LOCK).execute(&mut connection).await?;
        let mut meta = sqlx::migrate!("./migrations");
        meta.create_schema("meta");
        meta.dangerous_set_table_name("meta.migrations");
        meta.run_direct(None, &mut connection, false).await?;
        let mut builds = Vec::with_capacity(models.len());
        for model in models {
            builds.push(one(&mut connection, app, &**model).await?);
        }
        // The end of the session gives the lock back.
        connection.close().await?;
        Ok(builds)
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(MigrateError::Deadline(PATIENCE)))
}

/// Connects, and makes the database when there is none.
async fn open(url: &str) -> Result<PgConnection, MigrateError> {
    let options = PgConnectOptions::from_str(url)?.application_name("foldstream migrate");
    let missing = match options.connect().await {
        Ok(connection) => return Ok(connection),
        Err(error) if has_code(&error, "3D000") => error,
        Err(error) => return Err(error.into()),
    };
    let Some(name) = options.get_database().map(str::to_owned) else {
        return Err(missing.into());
    };
    let create = async {
        let mut connection = options.clone().database("postgres").connect().await?;
        let statement = format!(
            "create database {} template template0 encoding 'UTF8' locale 'C'",
            quoted(&name)
        );
        let created = connection.execute(AssertSqlSafe(statement)).await;
        connection.close().await?;
        match created {
            // Another process was faster.
            Err(error) if has_code(&error, "42P04") || has_code(&error, "23505") => Ok(()),
            other => other.map(drop),
        }
    };
    match create.await {
        Ok(()) => Ok(options.connect().await?),
        Err(cause) => Err(MigrateError::CannotCreate { name, cause }),
    }
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|found| found == code)
}

/// The live build of one read model; build 1 is made when there is none.
async fn one(
    connection: &mut PgConnection,
    app: &str,
    model: &dyn AnyReadModel,
) -> Result<Build, MigrateError> {
    let table = model.table();
    let declared = declaration::text(model);
    let live: Option<(i32, i32, String)> = sqlx::query_as(
        "select build, version, declaration from meta.builds
         where read_model = $1 and state = 'live'",
    )
    .bind(table.name)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((build, version, stored)) = live else {
        return first(connection, app, model, &declared).await;
    };
    let version = u32::try_from(version).unwrap_or_default();
    check(table, build, version, &stored, &declared)?;
    let place = Place::new(table, build);
    refresh(connection, &place).await?;
    Ok(Build { place, version })
}

fn check(
    table: &Table,
    build: i32,
    live: u32,
    stored: &str,
    declared: &str,
) -> Result<(), MigrateError> {
    let advice = match table.version.cmp(&live) {
        std::cmp::Ordering::Equal if stored == declared => return Ok(()),
        std::cmp::Ordering::Equal => {
            let difference = declaration::difference(stored, declared);
            return Err(MigrateError::Changed { name: table.name, version: live, difference });
        }
        std::cmp::Ordering::Greater => {
            "this program cannot serve the live build; rebuild the read model, or run the program \
             that declares the live version"
        }
        std::cmp::Ordering::Less => "this program is older than the live build; run a newer one",
    };
    Err(MigrateError::Version { name: table.name, declared: table.version, build, live, advice })
}

async fn first(
    connection: &mut PgConnection,
    app: &str,
    model: &dyn AnyReadModel,
    declared: &str,
) -> Result<Build, MigrateError> {
    let table = model.table();
    let mut transaction = connection.begin().await?;
    // Not simply 1: builds that failed may be there.
    let build: i32 = sqlx::query_scalar(
        "insert into meta.builds (read_model, build, version, state, declaration)
         select $1, coalesce(max(build), 0) + 1, $2, 'live', $3
         from meta.builds where read_model = $1 returning build",
    )
    .bind(table.name)
    .bind(i64::from(table.version))
    .bind(declared)
    .fetch_one(&mut *transaction)
    .await?;
    for topic in model.topics() {
        sqlx::query(
            "insert into meta.lineage (read_model, build, topic, kind) values ($1, $2, $3, $4)
             on conflict do nothing",
        )
        .bind(table.name)
        .bind(build)
        .bind(topic.full_name(app))
        .bind(if table.additive { "added" } else { "folded" })
        .execute(&mut *transaction)
        .await?;
    }
    let place = Place::new(table, build);
    let statements = [
        definition::create(&place),
        vec![definition::primary_key(&place)],
        definition::indexes(&place),
        definition::comments(&place),
        definition::views(&place),
    ];
    for statement in statements.into_iter().flatten() {
        transaction.execute(AssertSqlSafe(statement)).await?;
    }
    transaction.commit().await?;
    tracing::info!(read_model = table.name, build, version = table.version, "build made");
    Ok(Build { place, version: table.version })
}

/// What may change without a new version: comments, and indexes of new filters.
async fn refresh(connection: &mut PgConnection, place: &Place) -> Result<(), MigrateError> {
    let mut statements = definition::indexes(place);
    statements.extend(definition::comments(place));
    statements.extend(definition::view_comments(place, "read"));
    statements.extend(definition::view_comments(place, "analytics"));
    // One round trip; each statement is its own transaction's worth of locks otherwise.
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.join(";\n")))).await?;
    Ok(())
}
