use crate::{EventSet, StreamId, Timestamp, Undecodable, WriterSchema};
use std::any::Any;
use std::sync::Arc;
use uuid::Uuid;

/// An event with its place in its stream and in its topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<E: EventSet> {
    /// The aggregate.
    pub id: E::Id,
    /// The 1-based place in its stream.
    pub version: u64,
    /// The 1-based place in its topic-partition.
    pub position: u64,
    /// The event's own id.
    pub event_id: Uuid,
    /// When it was appended, by the database's clock.
    pub recorded_at: Timestamp,
    /// What happened.
    pub data: E,
}

/// An event as it is stored and as it travels: not yet decoded.
#[derive(Debug, Clone)]
pub struct RawRecord {
    /// The aggregate's id.
    pub stream_id: Arc<str>,
    /// The 1-based place in its stream.
    pub version: u64,
    /// The 1-based place in its topic-partition.
    pub position: u64,
    /// The event's own id.
    pub event_id: Uuid,
    /// When it was appended, by the database's clock.
    pub recorded_at: Timestamp,
    /// The schema the datum was written with.
    pub writer: Arc<WriterSchema>,
    /// The Avro datum.
    pub datum: Vec<u8>,
}

/// A record of a topic that is no event of it, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("position {position}: {cause}")]
pub struct BadRecord {
    /// Its position in the topic-partition.
    pub position: u64,
    /// Why it cannot be decoded.
    pub cause: Undecodable,
}

/// Records of one topic, decoded once; every read model looks into the same ones.
pub struct Decoded {
    /// The aggregate type, such as `invoices`.
    pub topic: &'static str,
    records: Box<dyn Any + Send + Sync>,
}
impl Decoded {
    /// These records.
    pub fn new<E: EventSet>(records: Vec<Recorded<E>>) -> Self {
        Decoded { topic: E::TOPIC, records: Box::new(records) }
    }
    /// The records; none when they are of another topic.
    pub fn records<E: EventSet>(&self) -> &[Recorded<E>] {
        self.records.downcast_ref::<Vec<Recorded<E>>>().map_or(&[], Vec::as_slice)
    }
}

/// A topic by the name of its aggregate type, with the way to decode it.
#[derive(Clone, Copy)]
pub struct Topic {
    /// The aggregate type, such as `invoices`; the full name has the application's before it.
    pub name: &'static str,
    /// Decodes records; the first bad one is the error.
    pub decode: fn(&[RawRecord]) -> Result<Decoded, BadRecord>,
    /// Decodes one record to JSON, for people.
    pub json: fn(&RawRecord) -> Result<serde_json::Value, Undecodable>,
}
impl Topic {
    /// The topic of these events.
    pub fn of<E: EventSet>() -> Self {
        let json = |record: &RawRecord| Ok(E::decode(&record.writer, &record.datum)?.json());
        Topic { name: E::TOPIC, decode: decode_all::<E>, json }
    }
    /// The full name in this application, such as `shop.invoices`.
    pub fn full_name(&self, app: &str) -> String {
        format!("{app}.{}", self.name)
    }
}

fn decode_all<E: EventSet>(raw: &[RawRecord]) -> Result<Decoded, BadRecord> {
    let decode = |record: &RawRecord| {
        let data = E::decode(&record.writer, &record.datum)
            .map_err(|cause| BadRecord { position: record.position, cause })?;
        Ok(Recorded {
            id: E::Id::stored(&record.stream_id),
            version: record.version,
            position: record.position,
            event_id: record.event_id,
            recorded_at: record.recorded_at,
            data,
        })
    };
    raw.iter().map(decode).collect::<Result<Vec<Recorded<E>>, _>>().map(Decoded::new)
}
