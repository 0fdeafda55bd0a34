//! A read model with a column of every kind that can be filtered by.

use apache_avro::AvroSchema;
use foldstream_core::{
    Column, Date, Event, Fold, Json, Money, ReadModel, Recorded, Timestamp, Uuid, events, stream_id,
};
use serde::{Deserialize, Serialize};

stream_id! {
    /// A thing.
    pub struct ThingId;
}

/// A thing was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
#[avro(namespace = "test.things")]
pub struct ThingSeen {
    /// What it is called.
    pub name: String,
}

events! {
    /// What happens to things.
    pub enum ThingEvent on "things" of ThingId { ThingSeen }
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Column)]
pub enum Shape {
    /// Round.
    Round,
    /// Square.
    Square,
}

/// One row per thing.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "things", version = 1, from(ThingEvent))]
pub struct ThingRow {
    /// What the thing is called; free text.
    #[key]
    pub name: String,
    /// Which of that name.
    #[key]
    pub number: i32,
    /// Its shape.
    #[filter]
    pub shape: Option<String>,
    /// Its price.
    #[filter]
    pub price: Option<Money>,
    /// The day it was made.
    #[filter]
    pub made_on: Date,
    /// When it was last seen.
    #[filter]
    pub seen_at: Option<Timestamp>,
    /// How many there are.
    #[filter]
    pub count: i64,
    /// Whether it is sold.
    #[filter]
    pub sold: bool,
    /// Its tag.
    #[filter]
    pub tag: Option<Uuid>,
    /// How it looks.
    #[filter]
    pub look: Shape,
    /// What else is known.
    pub extra: Json<Vec<i64>>,
    /// Not for everyone.
    #[hidden]
    pub secret: String,
}

impl Fold<ThingEvent> for ThingRow {
    fn key(stream: &ThingId) -> (String, i32) {
        (stream.to_string(), 0)
    }
    fn fold(row: Option<Self>, _: &Recorded<ThingEvent>) -> Option<Self> {
        row
    }
}
