//! Projections from a real topic, filled by the relay.

use super::{Fixture, LONG, STORE, event_id, metrics, models};
use crate::{Projections, status};
use foldstream_core::{
    Claim, Claims, EventSet, Head, Lease, Outbox, OutboxEvent, Progress, Timestamp, TopicPartition,
    Uuid, WriterSchema, partition_of,
};
use foldstream_kafka::{Cluster, Relay, RelayOptions, TopicSpec};
use foldstream_tables::{pool, write_heads};
use foldstream_testkit::{eventually, infra, unique};
use models::{AccountEvent, accounts, closed, deposited, totals};
use sqlx::postgres::PgPool;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PARTITIONS: i32 = 4;

/// An event store of one topic, in memory.
struct Memory {
    topic: String,
    schema_ids: Vec<u32>,
    inner: Mutex<Inner>,
    appended: Notify,
}
#[derive(Default)]
struct Inner {
    events: BTreeMap<i32, Vec<OutboxEvent>>,
    progress: BTreeMap<i32, Progress>,
    epoch: i64,
}
#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Memory {
    fn append(&self, stream: &str, event: impl Into<AccountEvent>) {
        let event = event.into();
        let partition = partition_of(stream, PARTITIONS);
        let mut inner = self.inner.lock().unwrap();
        let events = inner.events.entry(partition).or_default();
        let position = events.len() as u64 + 1;
        let version = events.iter().filter(|e| e.stream_id == stream).count() as u64 + 1;
        events.push(OutboxEvent {
            position,
            stream_id: stream.into(),
            version,
            event_id: event_id(partition, position),
            event_type: "test.accounts.Event".into(),
            schema_id: self.schema_ids[event.index()],
            datum: event.encode().unwrap(),
            recorded_at: Timestamp::EPOCH,
            correlation_id: None,
            causation_id: None,
            actor: None,
            traceparent: None,
        });
        drop(inner);
        self.appended.notify_waiters();
    }
    fn count(&self) -> i64 {
        self.inner.lock().unwrap().events.values().map(|events| events.len() as i64).sum()
    }
    /// As after an operator said that the topic is to be filled again.
    fn forget_progress(&self) {
        self.inner.lock().unwrap().progress.clear();
    }
}
impl Outbox for Memory {
    type Error = Never;
    fn store_id(&self) -> Uuid {
        STORE
    }
    async fn claim(&self) -> Result<Claims, Never> {
        let mut inner = self.inner.lock().unwrap();
        inner.epoch = inner.epoch.max(1);
        let claim = |partition| Claim {
            partition: TopicPartition::new(self.topic.as_str(), partition),
            epoch: inner.epoch,
            progress: inner.progress.get(&partition).copied().unwrap_or_default(),
        };
        let held = (0..PARTITIONS).map(claim).collect();
        Ok(Claims { held, share: PARTITIONS as usize })
    }
    async fn give_up(&self, _: &[Claim]) -> Result<(), Never> {
        Ok(())
    }
    async fn release(&self) -> Result<(), Never> {
        self.inner.lock().unwrap().epoch += 1;
        Ok(())
    }
    async fn read(
        &self,
        partition: &TopicPartition,
        after: u64,
        max_events: usize,
        _: usize,
    ) -> Result<Vec<OutboxEvent>, Never> {
        let inner = self.inner.lock().unwrap();
        let events = inner.events.get(&partition.partition).into_iter().flatten();
        Ok(events.skip(after as usize).take(max_events).cloned().collect())
    }
    async fn record(&self, progress: &[(Claim, Progress)]) -> Result<Vec<TopicPartition>, Never> {
        let mut inner = self.inner.lock().unwrap();
        for (claim, progress) in progress {
            inner.progress.insert(claim.partition.partition, *progress);
        }
        Ok(Vec::new())
    }
    async fn leases(&self) -> Result<Vec<Lease>, Never> {
        Ok(Vec::new())
    }
    async fn rewind(&self, _: &TopicPartition, _: Progress) -> Result<bool, Never> {
        Ok(false)
    }
    async fn heads(&self) -> Result<Vec<Head>, Never> {
        let inner = self.inner.lock().unwrap();
        let head = |partition| Head {
            partition: TopicPartition::new(self.topic.as_str(), partition),
            position: inner.events.get(&partition).map_or(0, |events| events.len() as u64),
            recorded_at: Some(Timestamp::EPOCH),
        };
        Ok((0..PARTITIONS).map(head).collect())
    }
    async fn woken(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(50), self.appended.notified()).await;
    }
}

/// A task that can be told to end.
struct Part {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}
impl Part {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// An application: a topic, its event store, its read database.
struct App {
    fixture: Fixture,
    name: String,
    store: Arc<Memory>,
    pool: PgPool,
}
impl App {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let name = unique("test");
        let store = Arc::new(Memory {
            topic: format!("{name}.accounts"),
            schema_ids: fixture.schema_ids.clone(),
            inner: Mutex::default(),
            appended: Notify::new(),
        });
        let pool = pool(&fixture.database.url, 3, LONG).unwrap();
        let app = App { fixture, name, store, pool };
        app.make_topic().await;
        app
    }
    async fn make_topic(&self) {
        let spec = TopicSpec::new(self.store.topic.as_str(), PARTITIONS);
        Cluster::new(&infra().kafka).unwrap().ensure(&[spec]).await.unwrap();
    }
    fn relay(&self) -> Part {
        let options = RelayOptions::new(infra().kafka.as_str(), self.fixture.registry.url());
        let relay = Relay::new(self.store.clone(), options, None);
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        Part { shutdown, task: tokio::spawn(async move { relay.run(token).await }) }
    }
    fn projections(&self) -> Part {
        let projections = Projections {
            app: self.name.clone(),
            models: vec![accounts(), totals()],
            read_database_url: self.fixture.database.url.clone(),
            bootstrap: infra().kafka.clone(),
            registry: self.fixture.registry.clone(),
            metrics: metrics().1,
            session_timeout: Duration::from_secs(10),
        };
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { projections.run(token).await.unwrap() });
        Part { shutdown, task }
    }
    fn append(&self, events: std::ops::Range<i64>) {
        for number in events {
            let stream = format!("{}-{}", ["a", "b", "c"][number as usize % 3], number % 37);
            if number % 50 == 49 {
                self.store.append(&stream, closed());
            } else {
                self.store.append(&stream, deposited(number));
            }
        }
    }
    /// Waits until all is folded, and compares it with what is in the store.
    async fn check(&self, within: Duration) {
        eventually(within, "all is folded", async || {
            let now = status(&self.pool).await.map_err(|error| error.to_string())?;
            let done = now.len() == 2 && now.iter().all(|p| p.position == self.store.count());
            if done { Ok(()) } else { Err(format!("of {}: {now:?}", self.store.count())) }
        })
        .await;
        let (mut rows, mut sums) = (BTreeMap::new(), BTreeMap::<String, (i64, i64)>::new());
        for event in self.store.inner.lock().unwrap().events.values().flatten() {
            let ids = &self.store.schema_ids;
            let place = ids.iter().position(|id| *id == event.schema_id).unwrap();
            let schema = AccountEvent::schemas()[place].json.to_string();
            let schema = WriterSchema::parse(event.schema_id, &schema).unwrap();
            match AccountEvent::decode(&schema, &event.datum).unwrap() {
                AccountEvent::Deposited(deposited) => {
                    let units = deposited.amount.as_ten_thousandths() as i64 / 10_000;
                    let row: &mut (i64, i64) = rows.entry(event.stream_id.clone()).or_default();
                    *row = (row.0 + units, row.1 + 1);
                    let sum = sums.entry(event.stream_id[..1].to_owned()).or_default();
                    *sum = (sum.0 + units, sum.1 + 1);
                }
                AccountEvent::Closed(_) => drop(rows.remove(&event.stream_id)),
            }
        }
        let stored = async |sql: &'static str| -> BTreeMap<String, (i64, i64)> {
            let rows: Vec<(String, i64, i64)> =
                sqlx::query_as(sql).fetch_all(&self.pool).await.unwrap();
            rows.into_iter().map(|(key, amount, count)| (key, (amount, count))).collect()
        };
        let accounts = "select account_id, balance::int8, deposits from read.accounts";
        assert_eq!(stored(accounts).await, rows);
        assert_eq!(stored("select letter, total::int8, deposits from read.totals").await, sums);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_rebalances_change_no_row() {
    let app = App::new().await;
    app.append(0..500);
    let relay = app.relay();
    let first = app.projections();
    app.check(LONG).await;
    // A second one shares the partitions; events go on meanwhile.
    let second = app.projections();
    for part in 0..20 {
        app.append(500 + part * 50..550 + part * 50);
        tokio::time::sleep(Duration::from_millis(100)).await; // paces the load, waits for nothing
    }
    app.check(LONG).await;
    // The first one goes in the middle of a batch of work.
    app.append(1500..3500);
    first.stop().await;
    app.check(LONG).await;
    second.stop().await;
    app.append(3500..3600);
    let third = app.projections();
    app.check(LONG).await;
    write_heads(&app.pool, &app.store.heads().await.unwrap()).await.unwrap();
    let now = status(&app.pool).await.unwrap();
    let lags: Vec<_> = now.iter().map(|p| (p.lag_events, p.lag_seconds)).collect();
    assert_eq!(lags, [(Some(0), Some(0.0)), (Some(0), Some(0.0))]);
    third.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_created_again_is_read_from_its_beginning() {
    let app = App::new().await;
    app.append(0..300);
    let relay = app.relay();
    let projections = app.projections();
    app.check(LONG).await;
    relay.stop().await;
    projections.stop().await;
    let cluster = Cluster::new(&infra().kafka).unwrap();
    cluster.delete(&[&app.store.topic]).await.unwrap();
    app.make_topic().await;
    app.store.forget_progress();
    app.append(300..400);
    let (relay, projections) = (app.relay(), app.projections());
    app.check(LONG).await;
    projections.stop().await;
    relay.stop().await;
}
