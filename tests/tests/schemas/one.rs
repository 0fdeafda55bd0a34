//! The first release.

use crate::versions::{Never, OrderId};
use apache_avro::AvroSchema;
use foldstream_core::{
    Aggregate, AnyReadModel, At, Decision, Event, Fold, Money, ReadModel, Recorded, commands, emit,
    events, read_model,
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
}

/// Something was sold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "versions.orders")]
pub struct Sold {
    /// First and last name.
    #[avro(default = r#""""#)]
    pub buyer: String,
    /// Where to.
    pub country: String,
    /// How many.
    pub units: i32,
    /// What one costs.
    pub price: Money,
    /// What was given up.
    pub discount: f32,
    /// Where it came from.
    pub channel: Channel,
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
    buyers: Vec<String>,
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
        self.buyers.push(sold.buyer.clone());
        self.units += i64::from(sold.units);
        self.paid = self.paid + sold.price.times(i64::from(sold.units));
        self.channel = sold.channel;
        self
    }
}

/// Orders, as the one release folds them.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "orders_one", version = 1, from(OrderEvent))]
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
        let units = units + i64::from(sold.units);
        let paid = paid + sold.price.times(i64::from(sold.units));
        Some(OrderRow { order_id: event.id.to_string(), units, paid })
    }
}

/// The read model of this release.
pub fn rows() -> Arc<dyn AnyReadModel> {
    read_model::<OrderRow>()
}

/// A command.
pub fn sell(buyer: &str, units: i32, price: &str) -> Sell {
    Sell(Sold {
        buyer: buyer.into(),
        country: "United Kingdom".into(),
        units,
        price: price.parse().unwrap(),
        discount: 0.5,
        channel: Channel::Shop,
    })
}
