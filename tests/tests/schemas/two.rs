//! The second release: a name in two halves, a field renamed, wider numbers, a new channel, a note
//! that may be there and a number that older events have by default.

use crate::versions::{Never, OrderId};
use apache_avro::AvroSchema;
use foldstream_core::{
    Aggregate, AnyReadModel, At, Decision, Event, Fold, Money, ReadModel, Recorded, Undecodable,
    Written, commands, emit, events, read_model,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where an order came from.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, AvroSchema, JsonSchema,
)]
#[avro(namespace = "versions.orders")]
pub enum Channel {
    #[default]
    Other,
    Shop,
    Web,
}

/// Something was sold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "versions.orders")]
#[event(upcast = split_buyer)]
pub struct Sold {
    /// First name.
    #[avro(default = r#""""#)]
    pub first_name: String,
    /// Last name.
    #[avro(default = r#""""#)]
    pub last_name: String,
    /// Where to.
    #[serde(alias = "country")]
    pub region: String,
    /// How many.
    pub units: i64,
    /// What one costs.
    pub price: Money,
    /// What was given up.
    pub discount: f64,
    /// Where it came from.
    pub channel: Channel,
    /// What the buyer said.
    pub note: Option<String>,
    /// Days until it must be there.
    #[avro(default = "14")]
    pub days: i64,
}

fn split_buyer(written: &mut Written<'_>) -> Result<(), Undecodable> {
    let Some(buyer) = written.take::<String>("buyer")? else { return Ok(()) };
    let (first, last) = buyer.split_once(' ').unwrap_or((&buyer, ""));
    written.put("first_name", first)?;
    written.put("last_name", last)
}

events! {
    /// What happened to an order.
    pub enum OrderEvent on "orders" of OrderId { Sold }
}

/// Sells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sell(pub Sold);

commands! {
    /// What an order can be asked.
    pub enum OrderCommand for "orders" of OrderId as "order_id" { Sell }
}

/// An order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Order {
    first: Vec<String>,
    units: i64,
    paid: Money,
    channel: Channel,
}
impl Aggregate for Order {
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Rejection = Never;
    fn decide(&self, command: OrderCommand, _: &At) -> Decision<Self> {
        let OrderCommand::Sell(Sell(sold)) = command;
        Ok(emit(sold))
    }
    fn evolve(mut self, event: &OrderEvent) -> Self {
        let OrderEvent::Sold(sold) = event;
        self.first.push(sold.first_name.clone());
        self.units += sold.units;
        self.paid = self.paid + sold.price.times(sold.units);
        self.channel = sold.channel;
        self
    }
}

/// Orders, as the two release folds them.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "orders_two", version = 1, from(OrderEvent))]
pub struct OrderRow {
    /// The order.
    #[key]
    pub order_id: String,
    /// How many items.
    pub units: i64,
    /// What they cost.
    pub paid: Money,
}
impl Fold<OrderEvent> for OrderRow {
    fn key(stream: &OrderId) -> String {
        stream.to_string()
    }
    fn fold(row: Option<Self>, event: &Recorded<OrderEvent>) -> Option<Self> {
        let OrderEvent::Sold(sold) = &event.data;
        let (units, paid) = row.map_or((0, Money::ZERO), |row| (row.units, row.paid));
        let units = units + sold.units;
        let paid = paid + sold.price.times(sold.units);
        Some(OrderRow { order_id: event.id.to_string(), units, paid })
    }
}

/// The read model of this release.
pub fn rows() -> Arc<dyn AnyReadModel> {
    read_model::<OrderRow>()
}

/// A command.
pub fn sell(first: &str, last: &str, units: i64, price: &str) -> Sell {
    Sell(Sold {
        first_name: first.into(),
        last_name: last.into(),
        region: "United Kingdom".into(),
        units,
        price: price.parse().unwrap(),
        discount: 0.5,
        channel: Channel::Web,
        note: Some("now".into()),
        days: 3,
    })
}
