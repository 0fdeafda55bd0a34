//! A worker whose records come from the test.

use super::{Fixture, LONG, metrics, models};
use crate::metrics::State;
use crate::source::Source;
use crate::worker::Worker;
use crate::writer::Writer;
use crate::{ProjectionStatus, status};
use foldstream_core::EventSet;
use foldstream_core::{AnyReadModel, Topic, TopicPartition, Uuid};
use foldstream_kafka::{Batch, ConsumerEvent, Delivered, Received};
use foldstream_tables::checkpoints::BuildRef;
use foldstream_tables::rows::TableSql;
use foldstream_tables::{migrate, pool};
use foldstream_testkit::eventually;
use models::{AccountEvent, accounts, closed, deposited, totals};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("test.accounts", partition)
}

/// Hands a worker what the test sends, and the test what the worker asks for.
struct Fake {
    events: mpsc::UnboundedReceiver<ConsumerEvent>,
    started: mpsc::UnboundedSender<(i32, i64)>,
}
impl Source for Fake {
    async fn next(&mut self) -> Option<ConsumerEvent> {
        self.events.recv().await
    }
    fn start(&self, partition: &TopicPartition, _: u64, offset: i64) {
        // The test may be over.
        let _ = self.started.send((partition.partition, offset));
    }
    fn pause(&self, _: &TopicPartition) {}
    async fn close(self, _: Duration) {}
}

/// A worker that runs.
struct Running {
    events: mpsc::UnboundedSender<ConsumerEvent>,
    started: mpsc::UnboundedReceiver<(i32, i64)>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    scrape: prometheus::Registry,
    generation: u64,
}
impl Running {
    async fn new(fixture: &Fixture, model: Arc<dyn AnyReadModel>) -> Self {
        let build = migrate(&fixture.database.url, "test", std::slice::from_ref(&model)).await;
        let place = build.unwrap()[0].place;
        let (scrape, metrics) = metrics();
        let shutdown = CancellationToken::new();
        let writer = Writer {
            build: BuildRef { read_model: model.table().name, build: place.build },
            sql: TableSql::new(place),
            model,
            topics: [("test.accounts".to_owned(), Topic::of::<AccountEvent>())].into(),
            pool: pool(&fixture.database.url, 2, LONG).unwrap(),
            registry: fixture.registry.clone(),
            metrics,
            waiting: AtomicBool::new(false),
            shutdown: shutdown.clone(),
        };
        let (events, received) = mpsc::unbounded_channel();
        let (starts, started) = mpsc::unbounded_channel();
        let fake = Fake { events: received, started: starts };
        let task = tokio::spawn(Worker::new(Arc::new(writer), fake).run());
        Running { events, started, shutdown, task, scrape, generation: 0 }
    }
    /// Assigns partitions and answers from which offsets they are read, by number.
    async fn assign(&mut self, partitions: &[i32]) -> Vec<(i32, i64)> {
        self.generation += 1;
        let generation = self.generation;
        let assigned = partitions.iter().map(|number| at(*number)).collect();
        self.send(ConsumerEvent::Assigned { partitions: assigned, generation });
        let mut starts = Vec::new();
        for _ in partitions {
            starts.push(self.start().await);
        }
        starts.sort_unstable();
        starts
    }
    async fn start(&mut self) -> (i32, i64) {
        tokio::time::timeout(LONG, self.started.recv()).await.expect("in time").expect("running")
    }
    fn send(&self, event: ConsumerEvent) {
        self.events.send(event).unwrap();
    }
    fn deliver(&self, partition: i32, records: impl IntoIterator<Item = Received>) {
        self.deliver_any(partition, records.into_iter().map(Ok));
    }
    fn deliver_any(&self, partition: i32, records: impl IntoIterator<Item = Delivered>) {
        let (records, generation) = (records.into_iter().collect(), self.generation);
        self.send(ConsumerEvent::Batch(Batch { partition: at(partition), generation, records }));
    }
    fn state(&self) -> String {
        let families = self.scrape.gather();
        let states = families.iter().find(|f| f.name() == "projection_state").unwrap();
        let on = states.get_metric().iter().find(|m| m.get_gauge().get_value() == 1.0).unwrap();
        let labels = on.get_label().iter().find(|label| label.name() == "state");
        labels.unwrap().value().to_owned()
    }
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

async fn rows(pool: &PgPool) -> Vec<(String, String, i64)> {
    let rows = "select account_id, balance::text, deposits from read.accounts order by 1";
    sqlx::query_as(rows).fetch_all(pool).await.unwrap()
}
fn row(id: &str, balance: &str, deposits: i64) -> (String, String, i64) {
    (id.into(), balance.into(), deposits)
}
async fn the_status(pool: &PgPool) -> Result<ProjectionStatus, String> {
    // Where Postgres is sent away, so is this.
    Ok(status(pool).await.map_err(|error| error.to_string())?.remove(0))
}
async fn reaches(pool: &PgPool, position: i64) {
    eventually(LONG, "the position is reached", async || {
        let now = the_status(pool).await?;
        if now.position == position { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}
async fn is_in_state(pool: &PgPool, state: &str) -> ProjectionStatus {
    eventually(LONG, "the state", async || {
        let now = the_status(pool).await?;
        if now.state == state { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await
}

#[tokio::test]
async fn repeats_change_nothing_and_a_gap_waits_for_what_is_missing() {
    let fixture = Fixture::new().await;
    let pool = pool(&fixture.database.url, 2, LONG).unwrap();
    let mut worker = Running::new(&fixture, accounts()).await;
    assert_eq!(worker.assign(&[0, 1]).await, [(0, 0), (1, 0)]);
    let record = |offset, position| fixture.record((0, offset), position, "a", deposited(1));
    worker.deliver(0, [record(0, 1), record(1, 2), record(2, 2), record(3, 1), record(4, 3)]);
    worker.deliver(1, [fixture.record((1, 0), 1, "b", deposited(5))]);
    reaches(&pool, 4).await;
    worker.deliver(0, [record(5, 1), record(6, 5)]);
    assert_eq!(worker.start().await, (0, 4), "the last applied record is looked at");
    worker.deliver(0, [record(4, 3), record(5, 1), record(6, 5)]);
    let now = is_in_state(&pool, "gap").await;
    assert!(now.last_error.as_ref().unwrap().contains("test.accounts/0: position 4"), "{now:?}");
    eventually(LONG, "the metric", async || worker.state() == "gap").await;
    // The other partition goes on.
    worker.deliver(1, [fixture.record((1, 1), 2, "b", closed())]);
    reaches(&pool, 5).await;
    worker.deliver(0, [record(7, 4), record(8, 5)]);
    reaches(&pool, 7).await;
    assert_eq!(is_in_state(&pool, "live").await.last_error, None);
    assert_eq!(rows(&pool).await, [row("a", "5.0000", 5)]);
    worker.stop().await;
}

#[tokio::test]
async fn a_fold_that_panics_stops_its_partition_at_that_record() {
    let fixture = Fixture::new().await;
    let pool = pool(&fixture.database.url, 2, LONG).unwrap();
    let mut worker = Running::new(&fixture, accounts()).await;
    worker.assign(&[0, 1]).await;
    let record = |position: u64, amount| {
        let stream = if position.is_multiple_of(2) { "a" } else { "b" };
        fixture.record((0, position as i64 - 1), position, stream, deposited(amount))
    };
    // Enough of them to be folded on another thread.
    let amount = |position| if position == 301 { -1 } else { 1 };
    worker.deliver(0, (1..=400).map(|position| record(position, amount(position))));
    worker.deliver(1, [fixture.record((1, 0), 1, "c", deposited(5))]);
    let now = is_in_state(&pool, "failed").await;
    let error = now.last_error.unwrap();
    assert!(error.contains("position 301"), "{error}");
    assert!(error.contains("a deposit below zero"), "{error}");
    worker.deliver(0, [record(401, 1)]);
    worker.deliver(1, [fixture.record((1, 1), 2, "c", deposited(5))]);
    reaches(&pool, 302).await;
    let expected = [row("a", "150.0000", 150), row("b", "150.0000", 150), row("c", "10.0000", 2)];
    assert_eq!(rows(&pool).await, expected);
    assert_eq!(worker.state(), State::Failed.as_str());
    worker.stop().await;
}

#[tokio::test]
async fn a_value_that_the_table_cannot_hold_stops_its_partition() {
    let fixture = Fixture::new().await;
    let pool = pool(&fixture.database.url, 2, LONG).unwrap();
    let mut worker = Running::new(&fixture, totals()).await;
    worker.assign(&[0]).await;
    let record = |position: u64, points| {
        let event = models::Deposited { points, ..deposited(1) };
        fixture.record((0, position as i64 - 1), position, "a", event)
    };
    worker.deliver(0, [record(1, i64::MAX)]);
    reaches(&pool, 1).await;
    // In memory all is well: the sum is past the limit only in the table.
    worker.deliver(0, [record(2, -5), record(3, 5), record(4, 1), record(5, 1)]);
    let now = is_in_state(&pool, "failed").await;
    assert!(now.last_error.as_ref().unwrap().contains("position 4"), "{now:?}");
    let found: (i64, i64) =
        sqlx::query_as("select deposits, points from read.totals").fetch_one(&pool).await.unwrap();
    assert_eq!(found, (3, i64::MAX));
    worker.stop().await;
}

#[tokio::test]
async fn an_undecodable_record_stops_its_partition_after_those_before_it() {
    let fixture = Fixture::new().await;
    let pool = pool(&fixture.database.url, 2, LONG).unwrap();
    let mut worker = Running::new(&fixture, accounts()).await;
    worker.assign(&[0, 1]).await;
    let record = |p: i32, position: u64| {
        fixture.record((p, position as i64 - 1), position, &format!("a{p}"), deposited(1))
    };
    let cut = Received { datum: vec![1], ..record(0, 2) };
    let foreign = Received { schema_id: 4711, ..record(1, 3) };
    worker.deliver(0, [record(0, 1), cut, record(0, 3)]);
    worker.deliver(1, [record(1, 1), record(1, 2), foreign, record(1, 4)]);
    reaches(&pool, 3).await;
    let states = eventually(LONG, "both fail", async || {
        let now = the_status(&pool).await?;
        let all = now.partitions.iter().all(|p| p.state == "failed");
        if all { Ok(now.partitions) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert!(states[0].detail.as_ref().unwrap().starts_with("position 2: "), "{states:?}");
    assert!(states[1].detail.as_ref().unwrap().contains("no schema 4711"), "{states:?}");
    assert_eq!(rows(&pool).await, [row("a0", "1.0000", 1), row("a1", "2.0000", 2)]);
    worker.stop().await;
}

#[tokio::test]
async fn a_schema_that_the_registry_learns_late_stops_its_partition_only_until_then() {
    let fixture = Fixture::new().await;
    let pool = pool(&fixture.database.url, 2, LONG).unwrap();
    let mut worker = Running::new(&fixture, accounts()).await;
    worker.assign(&[0, 1]).await;
    let record = |p: i32, position: u64| {
        fixture.record((p, position as i64 - 1), position, &format!("a{p}"), deposited(1))
    };
    let next_id = fixture.schema_ids.iter().max().unwrap() + 1;
    let early = Received { schema_id: next_id, ..record(0, 2) };
    worker.deliver(0, [record(0, 1), early.clone(), record(0, 3)]);
    worker.deliver(1, [record(1, 1)]);
    reaches(&pool, 2).await;
    let states = eventually(LONG, "partition 0 stands still", async || {
        let now = the_status(&pool).await?;
        let stands = now.partitions[0].state == "failed" && worker.state() == "waiting";
        if stands { Ok(now.partitions) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert!(states[0].detail.as_ref().unwrap().contains("knows no schema"), "{states:?}");
    let trouble = fixture.registry.trouble().unwrap();
    assert!(trouble.contains(&format!("waiting for schema {next_id}")), "{trouble}");
    // The other partition goes on meanwhile.
    worker.deliver(1, [record(1, 2), record(1, 3)]);
    reaches(&pool, 4).await;

    let schema = AccountEvent::schemas()[0].json.to_string().replace("Money came in.", "Income.");
    let subject = "test.accounts-test.accounts.Deposited";
    assert_eq!(fixture.registry.register(subject, &schema).await, Ok(next_id));
    assert_eq!(worker.start().await, (0, 0), "from the last applied record on");
    worker.deliver(0, [record(0, 1), early, record(0, 3)]);
    reaches(&pool, 6).await;
    assert_eq!(rows(&pool).await, [row("a0", "3.0000", 3), row("a1", "3.0000", 3)]);
    assert_eq!(fixture.registry.trouble(), None);
    eventually(LONG, "running", async || worker.state() == "running").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_zombie_writes_nothing_and_keeps_what_is_its_own() {
    let fixture = Fixture::new().await;
    let pool = pool(&fixture.database.url, 2, LONG).unwrap();
    let mut zombie = Running::new(&fixture, accounts()).await;
    zombie.assign(&[0, 1]).await;
    let record = |p: i32, position: u64| {
        fixture.record((p, position as i64 - 1), position, &format!("a{p}"), deposited(1))
    };
    zombie.deliver(0, [record(0, 1)]);
    zombie.deliver(1, [record(1, 1)]);
    reaches(&pool, 2).await;
    // Another worker gets partition 0, and the first one does not hear of it.
    let mut other = Running::new(&fixture, accounts()).await;
    assert_eq!(other.assign(&[0]).await, [(0, 0)], "from the last applied record on");
    zombie.deliver(0, [record(0, 2), record(0, 3)]);
    zombie.deliver(1, [record(1, 2)]);
    reaches(&pool, 3).await;
    assert_eq!(rows(&pool).await, [row("a0", "1.0000", 1), row("a1", "2.0000", 2)]);
    other.deliver(0, [record(0, 1), record(0, 2), record(0, 3)]);
    reaches(&pool, 5).await;
    assert_eq!(rows(&pool).await, [row("a0", "3.0000", 3), row("a1", "2.0000", 2)]);
    zombie.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_refilled_topic_is_read_from_its_beginning_and_another_stores_is_refused() {
    let fixture = Fixture::new().await;
    let pool = pool(&fixture.database.url, 2, LONG).unwrap();
    let record =
        |offset: i64, position: u64| fixture.record((0, offset), position, "a", deposited(1));
    let mut worker = Running::new(&fixture, accounts()).await;
    worker.assign(&[0]).await;
    worker.deliver(0, [record(5, 1), record(6, 2), record(7, 3)]);
    reaches(&pool, 3).await;
    worker.stop().await;
    let mut worker = Running::new(&fixture, accounts()).await;
    assert_eq!(worker.assign(&[0]).await, [(0, 7)]);
    // Refilled: another position stands at that offset.
    worker.deliver(0, [record(7, 8)]);
    assert_eq!(worker.start().await, (0, 0));
    worker.deliver(0, (1..=5).map(|position| record(position as i64 - 1, position)));
    reaches(&pool, 5).await;
    // Shorter than before: the consumer says so.
    let generation = worker.generation;
    worker.send(ConsumerEvent::OutOfRange {
        partition: at(0),
        generation,
        offset: 5,
        low: 2,
        high: 3,
    });
    assert_eq!(worker.start().await, (0, 2));
    worker.deliver(0, [record(2, 5), record(3, 6)]);
    reaches(&pool, 6).await;
    assert_eq!(rows(&pool).await, [row("a", "6.0000", 6)]);
    worker.deliver(0, [Received { store_id: Uuid::max(), ..record(4, 7) }]);
    let now = is_in_state(&pool, "failed").await;
    assert!(now.last_error.unwrap().contains("another store"));
    worker.stop().await;
}

#[tokio::test]
async fn postgres_away_is_waited_for_and_loses_nothing() {
    let fixture = Fixture::new().await;
    let pool = pool(&fixture.database.url, 2, LONG).unwrap();
    let mut worker = Running::new(&fixture, accounts()).await;
    worker.assign(&[0]).await;
    let record =
        |position: u64| fixture.record((0, position as i64 - 1), position, "a", deposited(1));
    worker.deliver(0, [record(1)]);
    reaches(&pool, 1).await;
    let (server, name) = fixture.database.url.rsplit_once('/').unwrap();
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    let allow = |allowed: bool| format!("alter database \"{name}\" allow_connections {allowed}");
    admin.execute(AssertSqlSafe(allow(false))).await.unwrap();
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
    sqlx::query(kill).bind(name).execute(&mut admin).await.unwrap();
    worker.deliver(0, [record(2), record(3)]);
    eventually(LONG, "it waits", async || worker.state() == "waiting").await;
    admin.execute(AssertSqlSafe(allow(true))).await.unwrap();
    reaches(&pool, 3).await;
    assert_eq!(rows(&pool).await, [row("a", "3.0000", 3)]);
    eventually(LONG, "it runs again", async || worker.state() == "running").await;
    worker.stop().await;
}
