//! A small service for the tests of the store: carts that items are put into.

use apache_avro::AvroSchema;
use foldstream_core::{
    Aggregate, AnyAggregate, At, Decision, Event, Events, Refusal, Rejection, Timestamp, Uuid,
    aggregate, commands, emit, events, nothing, stream_id,
};
use foldstream_postgres::{
    EventStore, Execute, ExecuteError, Executed, Expected, Idempotency, Metadata, StoreOptions,
    Verdict, migrate,
};
use foldstream_testkit::TestDatabase;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::time::Duration;

stream_id! {
    /// A cart.
    pub struct CartId, check = |_| Ok(());
}

/// An item was put into the cart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "test.carts")]
pub struct ItemAdded {
    /// What.
    pub sku: String,
    /// How many were in the cart before.
    pub before: i64,
}
/// The cart was closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "test.carts")]
pub struct CartClosed {
    /// How many items it held.
    pub items: i64,
}

events! {
    /// What happened to a cart.
    pub enum CartEvent on "carts" of CartId { ItemAdded, CartClosed }
}

/// Puts so many items into the cart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddItems {
    /// What.
    pub sku: String,
    /// How many events.
    pub count: usize,
}
/// Closes the cart; again changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloseCart {}
/// A bug in a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Panic {}

commands! {
    /// What a cart can be asked.
    pub enum CartCommand for "carts" of CartId as "cart_id" { AddItems, CloseCart, Panic }
}

/// A cart.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cart {
    pub items: Vec<String>,
    pub closed: bool,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CartRejection {
    #[error("the cart is closed, with {0} items")]
    Closed(usize),
}
impl Rejection for CartRejection {
    fn refusal(&self) -> Refusal {
        match self {
            CartRejection::Closed(_) => Refusal::Conflict("cart-closed"),
        }
    }
}

impl Aggregate for Cart {
    type Command = CartCommand;
    type Event = CartEvent;
    type Rejection = CartRejection;

    fn decide(&self, command: CartCommand, _: &At) -> Decision<Self> {
        match command {
            CartCommand::AddItems(_) if self.closed => Err(CartRejection::Closed(self.items.len())),
            CartCommand::AddItems(AddItems { sku, count }) => {
                let before = self.items.len();
                let added = |n| ItemAdded { sku: sku.clone(), before: (before + n) as i64 }.into();
                Ok(Events((0..count).map(added).collect()))
            }
            CartCommand::CloseCart(_) if self.closed => Ok(nothing()),
            CartCommand::CloseCart(_) => Ok(emit(CartClosed { items: self.items.len() as i64 })),
            CartCommand::Panic(_) => panic!("a bug in a rule"),
        }
    }
    fn evolve(mut self, event: &CartEvent) -> Self {
        match event {
            CartEvent::ItemAdded(added) => {
                assert_eq!(added.before, self.items.len() as i64, "events are folded in order");
                self.items.push(added.sku.clone());
            }
            CartEvent::CartClosed(_) => self.closed = true,
        }
        self
    }
}

pub async fn database(hint: &str) -> TestDatabase {
    let database = foldstream_testkit::database(hint).await;
    migrate(&database.url).await.unwrap();
    database
}

pub fn options(database: &TestDatabase) -> StoreOptions {
    StoreOptions::new(database.url.clone(), "test", "carts")
}

pub async fn open(options: StoreOptions) -> EventStore {
    open_with(options, vec![aggregate::<Cart>()]).await
}

pub async fn open_with(
    options: StoreOptions,
    aggregates: Vec<Arc<dyn AnyAggregate>>,
) -> EventStore {
    let registry = prometheus::Registry::new();
    let store = EventStore::open(options, aggregates, &registry).await.unwrap();
    let missing = store.missing_schemas();
    let id = |(n, missing): (usize, &foldstream_postgres::MissingSchema)| {
        (missing.schema.full_name.clone(), n as u32 + 1, missing.schema.json.to_string())
    };
    let ids: Vec<_> = missing.iter().enumerate().map(id).collect();
    store.learn_schemas(&ids).await.unwrap();
    assert!(store.missing_schemas().is_empty());
    store
}

pub async fn store(database: &TestDatabase) -> EventStore {
    open(options(database)).await
}

pub async fn connection(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(&database.url).await.unwrap()
}

pub fn command(cart: &str, command: impl Into<CartCommand>) -> Execute {
    Execute {
        aggregate: "carts",
        stream_id: cart.into(),
        command: Arc::new(command.into()),
        expected: Expected::Any,
        creates: false,
        at: At { now: Timestamp::EPOCH, actor: "test".into(), command_id: Uuid::new_v4() },
        idempotency: None,
        metadata: Metadata::default(),
        deadline: Duration::from_secs(20),
    }
}
pub fn add(cart: &str, sku: &str) -> Execute {
    command(cart, AddItems { sku: sku.into(), count: 1 })
}
pub fn with_key(execute: Execute, key: &str, hash: u8) -> Execute {
    let idempotency =
        Idempotency { scope: "test".into(), key: key.into(), request_hash: [hash; 32] };
    Execute { idempotency: Some(idempotency), ..execute }
}
pub fn expecting(execute: Execute, expected: Expected) -> Execute {
    Execute { expected, ..execute }
}
pub fn version(executed: &Result<Executed, ExecuteError>) -> u64 {
    match executed {
        Ok(Executed { verdict: Verdict::Accepted { version, .. }, .. }) => *version,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Positions and versions are 1..n without a gap, and position order is the order of time.
pub async fn check_table(connection: &mut PgConnection) -> i64 {
    let holes: i64 = sqlx::query_scalar(
        "select count(*) from (
            select position - row_number() over (partition by topic, partition order by position)
                     as p,
                   version - row_number() over (partition by topic, stream_id order by position)
                     as v,
                   recorded_at < lag(recorded_at) over (partition by topic, partition
                                                        order by position) as back
            from events) as e
         where p <> 0 or v <> 0 or back",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    assert_eq!(holes, 0, "holes, or time going back");
    let wrong_heads: i64 = sqlx::query_scalar(
        "select count(*) from heads h
         where position <> (select count(*) from events e
                            where e.topic = h.topic and e.partition = h.partition)",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    assert_eq!(wrong_heads, 0, "heads that are not the last position");
    sqlx::query_scalar("select count(*) from events").fetch_one(connection).await.unwrap()
}
