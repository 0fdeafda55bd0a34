//! The read database: made once, shared by many, refused when it does not fit.

#[allow(dead_code, reason = "shared with the other tests")]
mod models;

use foldstream_core::{AnyReadModel, Head, Timestamp, TopicPartition, read_model};
use foldstream_tables::checkpoints::{self, Advance, BuildRef, PartitionState};
use foldstream_tables::rows::TableSql;
use foldstream_tables::{
    MigrateError, Place, grant_analyst, migrate, pool, read_snapshot, write_heads,
};
use foldstream_testkit::database;
use models::{Everything, NoteRow, changed};
use sqlx::{Connection, Executor, PgConnection, Row};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const NOTES: BuildRef = BuildRef { read_model: "notes", build: 1 };

fn models() -> Vec<Arc<dyn AnyReadModel>> {
    vec![read_model::<NoteRow>(), read_model::<Everything>()]
}
fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("test.notes", partition)
}
async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("Postgres answers")
}

#[tokio::test]
async fn a_missing_database_is_made_once_by_many() {
    let given = database("tables").await;
    // A sibling that is not there yet; dropped by hand.
    let (server, name) = given.url.rsplit_once('/').unwrap();
    let (name, url) = (format!("{name}_made"), format!("{server}/{name}_made"));
    let models = models();
    let (a, b, c) = tokio::join!(
        migrate(&url, "test", &models),
        migrate(&url, "test", &models),
        migrate(&url, "test", &models)
    );
    for builds in [a.unwrap(), b.unwrap(), c.unwrap()] {
        let found: Vec<_> = builds.iter().map(|b| (b.place.build, b.version)).collect();
        assert_eq!(found, [(1, 1), (1, 1)]);
    }
    let mut connection = connect(&url).await;
    let locale: String =
        sqlx::query_scalar("select datcollate from pg_database where datname = current_database()")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(locale, "C");
    connection.close().await.unwrap();
    let mut connection = connect(&given.url).await;
    let drop = format!("drop database \"{name}\" with (force)");
    connection.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
}

#[tokio::test]
async fn analysts_find_every_column_explained_and_nothing_else() {
    let database = database("tables").await;
    migrate(&database.url, "test", &models()).await.unwrap();
    let own = pool(&database.url, 2, Duration::from_secs(5)).unwrap();
    grant_analyst(&own, "it's \\ secret").await.unwrap();
    // Again, with another password, as a restart does.
    grant_analyst(&own, "analyst-of-a-test").await.unwrap();
    let authority = database.url.split_once('@').unwrap().1;
    let mut analyst = connect(&format!("postgres://analyst:analyst-of-a-test@{authority}")).await;
    let columns: Vec<(String, Option<String>)> = sqlx::query_as(
        "select column_name, description from meta.dictionary where read_model = 'notes'",
    )
    .fetch_all(&mut analyst)
    .await
    .unwrap();
    let described = |name: &str, text: &str| (name.to_owned(), Some(text.to_owned()));
    assert_eq!(columns[0], described("note_id", "The note."));
    assert_eq!(columns[1], described("order", "It's every text, one after another."));
    let hidden = "select count(*) from meta.dictionary where column_name like 'by!_%' escape '!'";
    let hidden: i64 = sqlx::query_scalar(hidden).fetch_one(&mut analyst).await.unwrap();
    assert_eq!(hidden, 0);
    for allowed in [
        "select * from analytics.notes",
        "select * from read.everything",
        "select read_model, version, build, state, position, last_event_at, updated_at, \
         lag_events, lag_seconds from meta.freshness",
        "select * from meta.lineage",
        "select * from meta.checkpoints",
    ] {
        analyst.execute(allowed).await.unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
    analyst.execute("set default_transaction_read_only = off").await.unwrap();
    for refused in [
        "select * from rm_notes_b1.notes",
        "delete from analytics.notes",
        "insert into meta.heads values ('t', 0, 1)",
        "create table public.mine ()",
        "create schema mine",
    ] {
        let error = analyst.execute(refused).await.expect_err(refused);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{refused}");
    }
}

#[tokio::test]
async fn a_declaration_that_does_not_fit_is_refused() {
    let database = database("tables").await;
    migrate(&database.url, "test", &models()).await.unwrap();
    let refused = async |model: Arc<dyn AnyReadModel>| {
        migrate(&database.url, "test", &[model]).await.expect_err("refused").to_string()
    };
    let text = refused(read_model::<changed::OtherColumns>()).await;
    assert!(text.contains("its version is still 1"), "{text}");
    assert!(text.contains("`order text replace` became `order int8 replace`"), "{text}");
    let text = refused(read_model::<changed::HigherVersion>()).await;
    assert!(text.contains("declared at version 2, its live build 1 holds version 1"), "{text}");
    let twice = [read_model::<NoteRow>(), read_model::<NoteRow>()];
    let error = migrate(&database.url, "test", &twice).await.expect_err("refused");
    assert!(matches!(error, MigrateError::Declaration { name: "notes", .. }), "{error}");
    // Nothing of it harmed what is there.
    migrate(&database.url, "test", &models()).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_moves_a_checkpoint() {
    let database = database("tables").await;
    migrate(&database.url, "test", &models()).await.unwrap();
    let mut connection = connect(&database.url).await;
    let both = [at(1), at(0)];
    let first = checkpoints::claim(&mut connection, NOTES, &both).await.unwrap();
    assert_eq!(first.iter().map(|c| (c.epoch, c.position)).collect::<Vec<_>>(), [(1, 0), (1, 0)]);
    let step = |partition: i32, epoch: i64, from: u64, to: u64| Advance {
        partition: at(partition),
        epoch,
        from,
        to,
        offset: to as i64 + 100,
        store_id: Some(Uuid::max()),
        event_id: Uuid::from_u128(u128::from(to)),
        last_event_at: Timestamp::EPOCH,
    };
    let steps = [step(0, 1, 0, 5), step(1, 1, 0, 7)];
    let moved = checkpoints::advance(&mut connection, NOTES, &steps).await.unwrap();
    assert_eq!(moved.len(), 2);
    // Another worker takes one over.
    let second = checkpoints::claim(&mut connection, NOTES, &[at(0)]).await.unwrap().remove(0);
    assert_eq!((second.epoch, second.position, second.offset), (2, 5, Some(105)));
    assert_eq!((second.store_id, second.attempts), (Some(Uuid::max()), 1));
    assert_eq!(second.event_id, Some(Uuid::from_u128(5)));
    // The first one comes back: it moves what is still its own, and nothing else.
    let zombie = [step(0, 1, 5, 9), step(1, 1, 7, 8)];
    let moved = checkpoints::advance(&mut connection, NOTES, &zombie).await.unwrap();
    assert_eq!(moved, [at(1)]);
    // The right epoch does not help from a wrong position.
    let wrong = [step(0, 2, 4, 9)];
    assert!(checkpoints::advance(&mut connection, NOTES, &wrong).await.unwrap().is_empty());
    // A zombie cannot say anything about the partition either.
    let gap = PartitionState::Gap;
    let told = checkpoints::tell(&mut connection, NOTES, &at(0), 1, gap, "no").await.unwrap();
    assert!(!told);
    assert!(checkpoints::tell(&mut connection, NOTES, &at(0), 2, gap, "yes").await.unwrap());
    let state = "select state from meta.freshness where read_model = 'notes'";
    let found: String = sqlx::query_scalar(state).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, "gap");
    let steps = [step(0, 2, 5, 6)];
    assert_eq!(checkpoints::advance(&mut connection, NOTES, &steps).await.unwrap().len(), 1);
    let found: String = sqlx::query_scalar(state).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, "live");
}

#[tokio::test]
async fn lag_follows_from_heads_and_checkpoints() {
    let database = database("tables").await;
    migrate(&database.url, "test", &models()).await.unwrap();
    let own = pool(&database.url, 2, Duration::from_secs(5)).unwrap();
    let mut connection = connect(&database.url).await;
    let snapshot = read_snapshot(&mut connection, "notes").await.unwrap().unwrap();
    assert_eq!((snapshot.build, snapshot.version, snapshot.lag_events()), (1, 1, None));
    assert_eq!(read_snapshot(&mut connection, "none").await.unwrap(), None);
    let now = Timestamp::from(sqlx::types::chrono::Utc::now());
    let head =
        |partition, position| Head { partition: at(partition), position, recorded_at: Some(now) };
    write_heads(&own, &[head(0, 10), head(1, 0)]).await.unwrap();
    // A head never goes back.
    write_heads(&own, &[head(0, 9), head(1, 0)]).await.unwrap();
    let snapshot = read_snapshot(&mut connection, "notes").await.unwrap().unwrap();
    assert_eq!((snapshot.lag_events(), snapshot.events()), (Some(10), 0));
    let lag = "select lag_events, lag_seconds from meta.freshness where read_model = 'notes'";
    let (events, seconds): (i64, f64) =
        sqlx::query_as(lag).fetch_one(&mut connection).await.unwrap();
    assert_eq!(events, 10);
    assert!((0.0..60.0).contains(&seconds), "{seconds}");
    checkpoints::claim(&mut connection, NOTES, &[at(0)]).await.unwrap();
    let step = Advance {
        partition: at(0),
        epoch: 1,
        from: 0,
        to: 10,
        offset: 9,
        store_id: None,
        event_id: Uuid::nil(),
        last_event_at: now,
    };
    checkpoints::advance(&mut connection, NOTES, &[step]).await.unwrap();
    let row = connection.fetch_one(lag).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<f64, _>(1)), (0, 0.0));
    let snapshot = read_snapshot(&mut connection, "notes").await.unwrap().unwrap();
    assert_eq!((snapshot.lag_events(), snapshot.position(&at(0))), (Some(0), 10));
    assert_eq!(snapshot.partitions[0].last_event_at, Some(now));
    // Old heads are not known.
    connection
        .execute("update meta.heads set updated_at = updated_at - interval '6 s'")
        .await
        .unwrap();
    let (events, seconds): (Option<i64>, Option<f64>) =
        sqlx::query_as(lag).fetch_one(&mut connection).await.unwrap();
    assert_eq!((events, seconds), (None, None));
    let snapshot = read_snapshot(&mut connection, "notes").await.unwrap().unwrap();
    assert_eq!(snapshot.lag_events(), None);
}

#[tokio::test]
async fn copied_rows_are_upserted_rows_up_to_the_limits() {
    use foldstream_core::{Json, Money};
    let database = database("tables").await;
    migrate(&database.url, "test", &models()).await.unwrap();
    let mut connection = connect(&database.url).await;
    let sql = TableSql::new(Place::new(models()[0].table(), 1));
    let row = |id: &str, order: &str| NoteRow {
        note_id: id.into(),
        order: order.into(),
        times: i64::MIN,
        words: Json(vec![1, 2]),
    };
    let rows = [row("a", "\t\\N\n"), row("b", "")];
    assert_eq!(sql.copy(&mut connection, &rows.iter().collect::<Vec<_>>()).await.unwrap(), 2);
    let mut stored = models()[0].empty();
    sql.all(&mut connection, &mut *stored).await.unwrap();
    let changes = stored.changes();
    for (place, row) in rows.iter().enumerate() {
        use foldstream_core::ReadModel;
        let cells = (0..4).map(|column| changes.write.value(place, column));
        assert_eq!(NoteRow::from_values(cells.collect()).unwrap(), *row);
    }
    // A text that Postgres cannot hold is the data's fault.
    let error = sql.upsert(&mut connection, &vec![&row("c", "\0")]).await.expect_err("no NUL");
    assert!(error.is_data(), "{error}");
    // The widest amounts come back through `numeric(28,4)`.
    for text in ["999999999999999999999999.9999", "-999999999999999999999999.9999", "-0.0001"] {
        let amount: Money = text.parse().unwrap();
        let cell = foldstream_tables::cells::Cell {
            value: foldstream_core::Value::Numeric(amount),
            column_type: foldstream_core::ColumnType::Numeric,
        };
        let row = sqlx::query("select $1::numeric(28,4), $1::text")
            .bind(cell)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.get::<String, _>(1), text);
        let column_type = foldstream_core::ColumnType::Numeric;
        let back = foldstream_tables::cells::decode(&row, 0, column_type).unwrap();
        assert_eq!(back, foldstream_core::Value::Numeric(amount));
    }
}
