//! Workers against a real Postgres, a real registry and, in `kafka`, a real Kafka.

mod kafka;
mod models;
mod rule;
mod worker;

use crate::metrics::ProjectionMetrics;
use foldstream_core::{EventSet, Timestamp, Uuid};
use foldstream_kafka::{Received, SchemaRegistry};
use foldstream_testkit::{TestDatabase, database};
use models::AccountEvent;
use std::time::Duration;

pub(crate) const LONG: Duration = Duration::from_secs(30);
/// The event store of the tests.
pub(crate) const STORE: Uuid = Uuid::from_u128(7);

/// A read database and a registry that knows the schemas of the events.
pub(crate) struct Fixture {
    pub(crate) database: TestDatabase,
    pub(crate) registry: SchemaRegistry,
    /// Of each event of the set, by its place in it.
    pub(crate) schema_ids: Vec<u32>,
    _registry_database: TestDatabase,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let registry_database = database("registry").await;
        let open = foldstream_registry::Registry::open(&registry_database.url).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, open.router()).await });
        let registry = SchemaRegistry::new(&url).unwrap();
        let mut schema_ids = Vec::new();
        for schema in AccountEvent::schemas() {
            let subject = format!("test.accounts-{}", schema.full_name);
            schema_ids.push(registry.register(&subject, &schema.json.to_string()).await.unwrap());
        }
        let database = database("projections").await;
        Fixture { database, registry, schema_ids, _registry_database: registry_database }
    }

    /// A record of the topic.
    pub(crate) fn record(
        &self,
        (partition, offset): (i32, i64),
        position: u64,
        stream: &str,
        event: impl Into<AccountEvent>,
    ) -> Received {
        let event = event.into();
        Received {
            partition,
            offset,
            stream_id: stream.into(),
            position,
            version: position,
            event_id: event_id(partition, position),
            event_type: "test".into(),
            recorded_at: Timestamp::EPOCH,
            store_id: STORE,
            schema_id: self.schema_ids[event.index()],
            datum: event.encode().unwrap(),
            correlation_id: None,
            causation_id: None,
            actor: None,
            traceparent: None,
        }
    }
}

/// The same event has the same id.
pub(crate) fn event_id(partition: i32, position: u64) -> Uuid {
    Uuid::from_u64_pair(partition.unsigned_abs().into(), position)
}

pub(crate) fn metrics() -> (prometheus::Registry, ProjectionMetrics) {
    let registry = prometheus::Registry::new();
    let metrics = ProjectionMetrics::new(&registry).unwrap();
    (registry, metrics)
}
