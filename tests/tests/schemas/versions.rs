//! Two releases of one service on the same event store and topic: each reads what the other wrote,
//! as a state from the event table and as rows folded from the topic.

use crate::{one, two};
use std::sync::Arc;
use std::time::Duration;

use foldstream_core::{
    AnyAggregate, AnyReadModel, At, CommandSet, EventSet, Refusal, Rejection, StreamRef, Timestamp,
    Topic, TopicPartition, Uuid, aggregate, stream_id,
};
use foldstream_kafka::{Cluster, PartitionReader, Relay, RelayOptions, SchemaRegistry, TopicSpec};
use foldstream_postgres::{
    EventStore, Execute, Expected, Metadata, StoreOptions, Until, Verdict, migrate,
};
use foldstream_projections::{ProjectionMetrics, Projections};
use foldstream_registry::Registry;
use foldstream_testkit::{TestDatabase, database, eventually, infra, unique};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;

stream_id! {
    /// An order.
    pub struct OrderId, check = |_| Ok(());
}

/// Nobody refuses anything.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Never {}
impl Rejection for Never {
    fn refusal(&self) -> Refusal {
        match *self {}
    }
}

/// What both releases share.
struct World {
    app: String,
    events: TestDatabase,
    read: TestDatabase,
    registry: SchemaRegistry,
    _schemas: TestDatabase,
}

impl World {
    async fn new() -> Self {
        let (events, read) = (database("versions").await, database("versions-read").await);
        let schemas = database("versions-registry").await;
        migrate(&events.url).await.unwrap();
        let router = Registry::open(&schemas.url).await.unwrap().router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let app = unique("versions");
        let topic = TopicSpec::new(format!("{app}.orders"), PARTITIONS);
        Cluster::new(&infra().kafka).unwrap().ensure(&[topic]).await.unwrap();
        let registry = SchemaRegistry::new(&url).unwrap();
        World { app, events, read, registry, _schemas: schemas }
    }

    /// The event store as one release opens it.
    async fn open(&self, aggregate: Arc<dyn AnyAggregate>) -> EventStore {
        let mut options = StoreOptions::new(self.events.url.clone(), &self.app, "orders");
        options.partitions = PARTITIONS;
        let scrape = prometheus::Registry::new();
        let store = EventStore::open(options, vec![aggregate], &scrape).await.unwrap();
        for missing in store.missing_schemas() {
            let subject = format!("{}-{}", missing.topic, missing.schema.full_name);
            let text = missing.schema.json.to_string();
            assert_eq!(self.registry.objections(&subject, &text).await, Ok(Vec::new()));
            let id = self.registry.register(&subject, &text).await.unwrap();
            let known = [(missing.schema.full_name.clone(), id, text)];
            store.learn_schemas(&known).await.unwrap();
        }
        assert!(store.missing_schemas().is_empty());
        store
    }

    fn stream(&self, id: &str) -> StreamRef {
        StreamRef { topic: format!("{}.orders", self.app), stream_id: id.into() }
    }

    fn relay(&self, store: &EventStore, shutdown: &CancellationToken) {
        let options = RelayOptions::new(infra().kafka.as_str(), self.registry.url());
        let relay = Relay::new(Arc::new(store.outbox()), options, None);
        tokio::spawn(relay.run(shutdown.clone()));
    }

    /// A projection of one release; its client of the registry is its own, as its process is.
    fn projection(&self, model: Arc<dyn AnyReadModel>, shutdown: &CancellationToken) {
        let projections = Projections {
            app: self.app.clone(),
            models: vec![model],
            read_database_url: self.read.url.clone(),
            bootstrap: infra().kafka.clone(),
            registry: SchemaRegistry::new(self.registry.url()).unwrap(),
            metrics: ProjectionMetrics::new(&prometheus::Registry::new()).unwrap(),
            session_timeout: Duration::from_secs(10),
        };
        let token = shutdown.clone();
        tokio::spawn(async move { projections.run(token).await.unwrap() });
    }
}

async fn sell<C: CommandSet>(store: &EventStore, id: &str, command: C) {
    let at = At { now: Timestamp::EPOCH, actor: "test".into(), command_id: Uuid::new_v4() };
    let execute = Execute {
        aggregate: "orders",
        stream_id: id.into(),
        command: Arc::new(command),
        expected: Expected::Any,
        at,
        creates: false,
        idempotency: None,
        metadata: Metadata::default(),
        deadline: LONG,
    };
    let done = store.execute(execute).await.unwrap();
    assert!(matches!(done.verdict, Verdict::Accepted { .. }), "{:?}", done.verdict);
}

/// What a release's aggregate makes of a stream.
async fn state(store: &EventStore, aggregate: &dyn AnyAggregate, stream: &StreamRef) -> Value {
    let (_, state) = store.state(stream, Until::Latest).await.unwrap().unwrap();
    aggregate.state_json(&state)
}

/// What a release makes of every record of the topic, in the order of partitions and offsets.
async fn topic<E: EventSet>(world: &World) -> Vec<(String, Value)> {
    let (topic, registry) = (Topic::of::<E>(), SchemaRegistry::new(world.registry.url()).unwrap());
    let mut found = Vec::new();
    for number in 0..PARTITIONS {
        let at = TopicPartition::new(format!("{}.orders", world.app), number);
        let mut reader = PartitionReader::new(&infra().kafka).unwrap();
        let (low, high) = reader.watermarks(&at).await.unwrap();
        if low == high {
            continue;
        }
        reader.open(&at, low).await.unwrap();
        loop {
            let chunk = reader.next(1_000, LONG).await.unwrap();
            for record in chunk.records {
                let record = record.unwrap();
                let writer = registry.schema(record.schema_id).await.unwrap();
                let raw = record.raw(writer);
                found.push((raw.stream_id.to_string(), (topic.json)(&raw).unwrap()));
            }
            if chunk.at_end {
                break;
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn two_releases_read_each_other_from_the_event_table_and_the_topic() {
    let world = World::new().await;
    let shutdown = CancellationToken::new();
    let (old, new) = (aggregate::<one::Order>(), aggregate::<two::Order>());

    // The old release alone.
    let old_store = world.open(old.clone()).await;
    sell(&old_store, "a", one::OrderCommand::from(one::sell("Ada Lovelace", 2, "2.55"))).await;
    world.relay(&old_store, &shutdown);
    world.projection(one::rows(), &shutdown);

    // The new one beside it, on the same database, as in a rolling update.
    let new_store = world.open(new.clone()).await;
    assert_eq!(
        state(&new_store, &*new, &world.stream("a")).await,
        json!({ "first": ["Ada"], "units": 2, "paid": "5.10", "channel": "Shop" })
    );
    sell(&new_store, "a", two::OrderCommand::from(two::sell("Grace", "Hopper", 3, "1"))).await;
    sell(&new_store, "b", two::OrderCommand::from(two::sell("Alan", "Turing", 4, "0.5"))).await;
    world.projection(two::rows(), &shutdown);

    // And both go on.
    sell(&old_store, "b", one::OrderCommand::from(one::sell("Kurt Gödel", 1, "10"))).await;
    for (store, aggregate, stream, expected) in [
        (
            &new_store,
            &new,
            "a",
            json!({ "first": ["Ada", "Grace"], "units": 5, "paid": "8.10",
            "channel": "Web" }),
        ),
        (
            &new_store,
            &new,
            "b",
            json!({ "first": ["Alan", "Kurt"], "units": 5, "paid": "12.00",
            "channel": "Shop" }),
        ),
        // The old one has no field for the new names, and no symbol for the new channel.
        (
            &old_store,
            &old,
            "a",
            json!({ "buyers": ["Ada Lovelace", ""], "units": 5,
            "paid": "8.10", "channel": "Other" }),
        ),
        (
            &old_store,
            &old,
            "b",
            json!({ "buyers": ["", "Kurt Gödel"], "units": 5,
            "paid": "12.00", "channel": "Shop" }),
        ),
    ] {
        assert_eq!(state(store, &**aggregate, &world.stream(stream)).await, expected, "{stream}");
    }

    folded(&world).await;
    record_by_record(&world).await;

    shutdown.cancel();
    old_store.close().await;
    new_store.close().await;
}

/// The same from the topic, folded by each release's projection.
async fn folded(world: &World) {
    let pool = foldstream_tables::pool(&world.read.url, 2, LONG).unwrap();
    for table in ["read.orders_one", "read.orders_two"] {
        eventually(LONG, table, async || {
            let rows = format!("select order_id, units::int8, paid::text from {table} order by 1");
            let rows: Result<Vec<(String, i64, String)>, _> =
                sqlx::query_as(sqlx::AssertSqlSafe(rows)).fetch_all(&pool).await;
            let rows = rows.map_err(|error| error.to_string())?;
            let expected = [
                ("a".to_owned(), 5, "8.1000".to_owned()),
                ("b".to_owned(), 5, "12.0000".to_owned()),
            ];
            if rows == expected { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
    }
}

/// And record by record.
async fn record_by_record(world: &World) {
    let by_old = topic::<one::OrderEvent>(world).await;
    let by_new = topic::<two::OrderEvent>(world).await;
    assert_eq!((by_old.len(), by_new.len()), (4, 4));
    let names = |records: &[(String, Value)], field: &str| -> Vec<Value> {
        records.iter().map(|(_, event)| event[field].clone()).collect()
    };
    assert_eq!(names(&by_old, "buyer"), ["Ada Lovelace", "", "", "Kurt Gödel"]);
    assert_eq!(names(&by_new, "first_name"), ["Ada", "Grace", "Alan", "Kurt"]);
    assert_eq!(names(&by_new, "last_name"), ["Lovelace", "Hopper", "Turing", "Gödel"]);
    assert_eq!(names(&by_new, "note"), [Value::Null, json!("now"), json!("now"), Value::Null]);
    assert_eq!(names(&by_new, "days"), [14, 3, 3, 14]);
}
