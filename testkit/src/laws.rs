//! What every read model must hold, by one line per model:
//!
//! ```ignore
//! #[test] fn merges() { laws::additive::<SalesByDay>() }
//! #[test] fn folds() { laws::folds(&read_model::<SalesByDay>(), histories()) }
//! ```
//!
//! [`additive`] makes rows from the table's description: merging has no order, and Postgres merges
//! as memory does. [`folds`] takes histories of events: the rows are the same however streams
//! interleave, wherever batches are cut and whatever is delivered again, in memory and in Postgres.

mod cells;

use crate::{TestDatabase, database};
use cells::{held, random_rows};
use foldstream_core::{
    Additive, AnyReadModel, AnyRows, Decoded, EventSet, Merge, ReadModel, Recorded, Table,
    Timestamp, Uuid, read_model,
};
use foldstream_tables::{Place, TableError, definition, rows::TableSql};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Cases that need no database, and those that do.
const CASES: u32 = 256;
const SQL_CASES: u32 = 48;

/// The laws of an additive read model: merging commutes and associates, and rows merged by
/// Postgres, in any batches and any order, are those merged in memory.
///
/// # Panics
/// When a law is broken, with the smallest rows that break it.
pub fn additive<R: Additive>() {
    check(CASES, random_rows::<R>(3..4), |rows| merging_has_no_order(&rows));
    let mut table = TestTable::new(&read_model::<R>());
    let batches = (random_rows::<R>(1..12), 1..6_usize);
    check(SQL_CASES, batches, |(mut rows, size)| {
        let expected = merged_in_memory(&rows);
        let expected = held(&expected.values().collect::<Vec<&R>>(), R::TABLE.columns.len());
        for turn in ["in order", "in reverse"] {
            let batches = rows.chunks(size).map(merged_in_memory).collect::<Vec<_>>();
            let stored = table.merge(&batches);
            prop_assert_eq!(&stored, &expected, "{}", turn);
            rows.reverse();
        }
        Ok(())
    });
}

fn merging_has_no_order<R: Additive>(rows: &[R]) -> Result<(), TestCaseError> {
    let [a, b, c] = [&rows[0], &same_key(&rows[0], &rows[1]), &same_key(&rows[0], &rows[2])];
    let merge = |a: &R, b: &R| {
        let mut merged = a.clone();
        merged.merge(b.clone());
        merged
    };
    prop_assert_eq!(merge(a, b), merge(b, a), "merging does not commute");
    let (left, right) = (merge(&merge(a, b), c), merge(a, &merge(b, c)));
    prop_assert_eq!(left, right, "merging does not associate");
    Ok(())
}

/// The row with the key of the first.
fn same_key<R: ReadModel>(first: &R, row: &R) -> R {
    let columns = R::TABLE.columns.iter().enumerate();
    let cells = columns.map(|(i, c)| match c.merge == Merge::Key {
        true => first.value(i),
        false => row.value(i),
    });
    R::from_values(cells.collect()).expect("cells of a row are of the row's types")
}

fn merged_in_memory<R: Additive>(rows: &[R]) -> BTreeMap<R::Key, R> {
    let mut merged: BTreeMap<R::Key, R> = BTreeMap::new();
    for row in rows {
        match merged.get_mut(&row.row_key()) {
            Some(own) => own.merge(row.clone()),
            None => drop(merged.insert(row.row_key(), row.clone())),
        }
    }
    merged
}

/// What happened in one topic: streams with their events.
pub struct History {
    /// The number of events of each stream.
    streams: Vec<usize>,
    /// These events (stream, index in it, position), as they arrive together.
    decoded: Arrive,
    told: String,
}
impl Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.told)
    }
}

/// Makes events arrive.
type Arrive = Box<dyn Fn(&[Arrival]) -> Decoded>;

#[derive(Debug, Clone, Copy)]
struct Arrival {
    stream: usize,
    index: usize,
    position: u64,
}

/// A history of these streams; an id that comes twice is one stream.
pub fn history<E: EventSet>(streams: impl IntoIterator<Item = (E::Id, Vec<E>)>) -> History {
    let mut by_id: BTreeMap<E::Id, Vec<E>> = BTreeMap::new();
    for (id, events) in streams {
        by_id.entry(id).or_default().extend(events);
    }
    let streams: Vec<(E::Id, Vec<E>)> = by_id.into_iter().collect();
    let told = format!("{streams:#?}");
    History {
        streams: streams.iter().map(|(_, events)| events.len()).collect(),
        decoded: Box::new(move |arrivals| {
            let recorded = arrivals.iter().map(|arrival| {
                let (id, events) = &streams[arrival.stream];
                let version = arrival.index as u64 + 1;
                // The same event has the same identity whatever its place among others.
                let name = format!("{}/{}/{version}", E::TOPIC, id.as_ref());
                Recorded {
                    id: id.clone(),
                    version,
                    position: arrival.position,
                    event_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
                    recorded_at: Timestamp::EPOCH,
                    data: events[arrival.index].clone(),
                }
            });
            Decoded::new(recorded.collect::<Vec<Recorded<E>>>())
        }),
        told,
    }
}

/// The law of every read model: its rows follow from the events of each stream in their order, and
/// from nothing else. Histories are one per topic that the model reads.
///
/// # Panics
/// When it is broken, with the smallest histories and the arrival that break it.
pub fn folds(model: &Arc<dyn AnyReadModel>, histories: impl Strategy<Value = Vec<History>>) {
    let arrival = (prop::collection::vec(any::<u16>(), 1..40), 1..8_usize);
    let mut table = TestTable::new(model);
    let columns = model.table().columns.len();
    check(SQL_CASES, (histories, arrival), |(histories, (picks, size))| {
        let mut expected = model.empty();
        for batch in in_turn(&histories) {
            expected.apply(&batch);
        }
        let expected = held(&*expected.changes().write, columns);
        let mut rows = model.empty();
        let batches = shuffled(&histories, &picks, size);
        batches.iter().flatten().for_each(|batch| rows.apply(batch));
        prop_assert_eq!(held(&*rows.changes().write, columns), &expected[..], "in memory");
        let stored = table.fold(&batches);
        prop_assert_eq!(stored, expected, "in Postgres");
        Ok(())
    });
}

/// Stream after stream, all at once.
fn in_turn(histories: &[History]) -> Vec<Decoded> {
    let all = |history: &History| {
        let mut arrivals = Vec::new();
        for (stream, count) in history.streams.iter().enumerate() {
            for index in 0..*count {
                arrivals.push(Arrival { stream, index, position: arrivals.len() as u64 + 1 });
            }
        }
        (history.decoded)(&arrivals)
    };
    histories.iter().map(all).collect()
}

/// The streams of all topics interleaved as `picks` say, cut into batches of `size`; now and then
/// the topic delivers earlier records again, which the position rule drops.
fn shuffled(histories: &[History], picks: &[u16], size: usize) -> Vec<Vec<Decoded>> {
    let mut left: Vec<(usize, usize)> = histories
        .iter()
        .enumerate()
        .flat_map(|(topic, history)| (0..history.streams.len()).map(move |stream| (topic, stream)))
        .filter(|(topic, stream)| histories[*topic].streams[*stream] > 0)
        .collect();
    let mut next: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut delivered: Vec<Vec<Arrival>> = histories.iter().map(|_| Vec::new()).collect();
    let mut order: Vec<(usize, Arrival)> = Vec::new();
    let mut picks = picks.iter().cycle().copied().map(usize::from);
    while !left.is_empty() {
        let pick = picks.next().unwrap_or(0);
        let at = pick % left.len();
        let (topic, stream) = left[at];
        let index = next.entry((topic, stream)).or_default();
        let position = delivered[topic].len() as u64 + 1;
        let arrival = Arrival { stream, index: *index, position };
        delivered[topic].push(arrival);
        order.push((topic, arrival));
        *index += 1;
        if *index == histories[topic].streams[stream] {
            left.swap_remove(at);
        }
        if pick % 5 == 0 {
            let again = delivered[topic].len().saturating_sub(1 + pick % 3);
            order.extend(delivered[topic][again..].iter().map(|arrival| (topic, *arrival)));
        }
    }
    let mut applied = vec![0; histories.len()];
    let mut rule = |(topic, arrival): &(usize, Arrival)| {
        let fresh = arrival.position == applied[*topic] + 1;
        applied[*topic] += u64::from(fresh);
        fresh
    };
    order.retain(|arrival| rule(arrival));
    let batch = |arrivals: &[(usize, Arrival)]| {
        let of = |topic: usize| {
            let own = arrivals.iter().filter(|(t, _)| *t == topic).map(|(_, arrival)| *arrival);
            (histories[topic].decoded)(&own.collect::<Vec<_>>())
        };
        (0..histories.len()).map(of).collect()
    };
    order.chunks(size).map(batch).collect()
}

/// A table of its own in a database of its own.
struct TestTable {
    runtime: Runtime,
    model: Arc<dyn AnyReadModel>,
    sql: TableSql,
    connection: PgConnection,
    // Dropped last: it drops the database.
    _database: TestDatabase,
}
impl TestTable {
    fn new(model: &Arc<dyn AnyReadModel>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let table: &'static Table = model.table();
        let place = Place::new(table, 1);
        let (connection, database) = runtime.block_on(async {
            let database = database("laws").await;
            let mut connection = PgConnection::connect(&database.url).await.expect("just made");
            let mut statements = definition::create(&place);
            statements.push(definition::primary_key(&place));
            for statement in statements {
                let text = statement.clone();
                let made = connection.execute(AssertSqlSafe(statement)).await;
                made.unwrap_or_else(|error| panic!("{error} in {text}"));
            }
            (connection, database)
        });
        let sql = TableSql::new(place);
        TestTable { runtime, model: model.clone(), sql, connection, _database: database }
    }

    /// The rows after these batches were merged in Postgres.
    fn merge<R: Additive>(&mut self, batches: &[BTreeMap<R::Key, R>]) -> cells::Held {
        let (sql, connection) = (&self.sql, &mut self.connection);
        let merged = self.runtime.block_on(async {
            empty(sql, connection).await?;
            for batch in batches {
                sql.upsert(connection, &batch.values().collect::<Vec<&R>>()).await?;
            }
            stored(sql, connection, self.model.empty()).await
        });
        merged.expect("Postgres takes the rows")
    }

    /// The rows after these batches were folded as a worker does it.
    fn fold(&mut self, batches: &[Vec<Decoded>]) -> cells::Held {
        let (sql, connection) = (&self.sql, &mut self.connection);
        let folded = self.runtime.block_on(async {
            empty(sql, connection).await?;
            for batch in batches {
                let mut rows = self.model.empty();
                let needed = rows.needs(batch);
                sql.load(connection, &*needed, &mut *rows).await?;
                batch.iter().for_each(|decoded| rows.apply(decoded));
                let changes = rows.changes();
                sql.upsert(connection, &*changes.write).await?;
                sql.delete(connection, &*changes.delete).await?;
            }
            stored(sql, connection, self.model.empty()).await
        });
        folded.expect("Postgres takes the rows")
    }
}

async fn empty(sql: &TableSql, connection: &mut PgConnection) -> Result<(), TableError> {
    let delete = format!("delete from {}", sql.place().qualified());
    connection.execute(AssertSqlSafe(delete)).await?;
    Ok(())
}

async fn stored(
    sql: &TableSql,
    connection: &mut PgConnection,
    mut rows: Box<dyn AnyRows>,
) -> Result<cells::Held, TableError> {
    sql.all(connection, &mut *rows).await?;
    let stored = held(&*rows.changes().write, sql.place().table.columns.len());
    Ok(stored)
}

/// Runs so many cases. A runner of its own each time: one counts its cases over all that it runs.
fn check<S: Strategy>(
    cases: u32,
    strategy: S,
    law: impl FnMut(S::Value) -> Result<(), TestCaseError>,
) {
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let law = std::cell::RefCell::new(law);
    let ran = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&strategy, |value| {
        ran.set(ran.get() + 1);
        (law.borrow_mut())(value)
    });
    match result {
        Ok(()) => assert!(ran.get() >= cases, "only {} of {cases} cases ran", ran.get()),
        Err(TestError::Fail(reason, value)) => panic!("{reason}\nwith {value:#?}"),
        Err(TestError::Abort(reason)) => panic!("the law was not checked: {reason}"),
    }
}
