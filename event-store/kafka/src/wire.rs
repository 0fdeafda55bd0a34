//! Events as Kafka records: CloudEvents 1.0 in binary mode around a Confluent-framed Avro datum.

use crate::settings::MAX_MESSAGE_BYTES;
use foldstream_core::{OutboxEvent, RawRecord, Timestamp, WriterSchema};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use schema_registry_converter::schema_registry_common::{
    BytesResult, get_bytes_result, get_payload,
};
use std::fmt::{Display, Write as _};
use std::str::FromStr;
use std::sync::Arc;
use uuid::Uuid;

/// The largest datum that fits into a record, in bytes: key, headers and framing have 256 KiB.
pub const MAX_DATUM_BYTES: usize = MAX_MESSAGE_BYTES - (256 << 10);

/// A header's value that we read is no longer.
const MAX_HEADER_BYTES: usize = 1024;
/// A record has no more headers.
const MAX_HEADERS: usize = 64;

/// An event read from a topic, not yet decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there. Offsets belong to the topic; [`Received::position`] is the event's.
    pub offset: i64,
    /// The record's key: the stream's id.
    pub stream_id: Arc<str>,
    /// The 1-based place in its topic-partition.
    pub position: u64,
    /// The 1-based place in its stream.
    pub version: u64,
    /// `ce_id`.
    pub event_id: Uuid,
    /// `ce_type`: the event's name with its namespace.
    pub event_type: Box<str>,
    /// `ce_time`: when it was appended, by the database's clock.
    pub recorded_at: Timestamp,
    /// The event store that it comes from.
    pub store_id: Uuid,
    /// The registry's id of the schema that the datum was written with.
    pub schema_id: u32,
    /// The Avro datum.
    pub datum: Vec<u8>,
    /// `ce_correlationid`.
    pub correlation_id: Option<Box<str>>,
    /// `ce_causationid`.
    pub causation_id: Option<Box<str>>,
    /// `ce_actor`.
    pub actor: Option<Box<str>>,
    /// `traceparent`.
    pub traceparent: Option<Box<str>>,
}
impl Received {
    /// The event, ready to be decoded with the schema that [`Received::schema_id`] names.
    pub fn raw(self, writer: Arc<WriterSchema>) -> RawRecord {
        RawRecord {
            stream_id: self.stream_id,
            version: self.version,
            position: self.position,
            event_id: self.event_id,
            recorded_at: self.recorded_at,
            writer,
            datum: self.datum,
        }
    }
}

/// A record that is no event of ours, with all that could be read of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record at offset {offset} of partition {partition}: {reason}")]
pub struct Malformed {
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// What is wrong with it.
    pub reason: Malformation,
    /// The stream's id, where the key is one.
    pub stream_id: Option<Arc<str>>,
    /// Its position, where the header says so: the gap it would leave.
    pub position: Option<u64>,
    /// Its version, where the header says so.
    pub version: Option<u64>,
    /// Its event id, where the header says so.
    pub event_id: Option<Uuid>,
    /// The store it says it comes from.
    pub store_id: Option<Uuid>,
    /// Its value, cut off after 4 KiB, for whoever looks into it.
    pub value: Vec<u8>,
}

/// What can be wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformation {
    /// It has no key.
    #[error("it has no key")]
    NoKey,
    /// Its key is not a stream's id.
    #[error("its key is not a stream id")]
    BadKey,
    /// It has no value: a tombstone, which event topics do not know.
    #[error("it has no value")]
    NoValue,
    /// Its value has more bytes than any event may have.
    #[error("its value has {0} bytes")]
    TooLarge(usize),
    /// Its value does not begin with a zero byte and a schema id.
    #[error("its value is not in Confluent's framing")]
    BadFraming,
    /// It has more headers than any event has.
    #[error("it has {0} headers")]
    TooManyHeaders(usize),
    /// A header that every event has is missing.
    #[error("header {0} is missing")]
    NoHeader(&'static str),
    /// A header's value cannot be understood.
    #[error("header {0} is malformed")]
    BadHeader(&'static str),
    /// A header contradicts the key.
    #[error("header {0} contradicts the key")]
    Contradiction(&'static str),
}

/// What a topic delivers at one offset: an event, or what else is there.
pub type Delivered = Result<Received, Malformed>;

/// The part of the headers that is the same for all events of a topic.
#[derive(Debug)]
pub(crate) struct Envelope {
    source: String,
    store_id: String,
    schemas: String,
}
impl Envelope {
    pub(crate) fn new(topic: &str, store_id: Uuid, registry_url: &str) -> Self {
        let aggregates = topic.split_once('.').map_or(topic, |(_, name)| name);
        Envelope {
            source: format!("/{aggregates}"),
            store_id: store_id.to_string(),
            schemas: format!("{}/schemas/ids/", registry_url.trim_end_matches('/')),
        }
    }

    /// The headers, in the order of the interface. Nothing in them is made up here: the same event
    /// gives the same bytes each time.
    pub(crate) fn headers(&self, event: &OutboxEvent) -> OwnedHeaders {
        let mut text = String::with_capacity(64);
        let headers = OwnedHeaders::new_with_capacity(16);
        let headers = add(headers, "ce_specversion", "1.0");
        let headers = add(headers, "ce_id", print(&mut text, event.event_id.as_hyphenated()));
        let headers = add(headers, "ce_type", &event.event_type);
        let headers = add(headers, "ce_source", &self.source);
        let headers = add(headers, "ce_subject", &event.stream_id);
        let headers = add(headers, "ce_time", print(&mut text, event.recorded_at));
        text.clear();
        text.push_str(&self.schemas);
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", event.schema_id);
        let headers = add(headers, "ce_dataschema", &text);
        let headers = add(headers, "content-type", "application/avro");
        let headers = add(headers, "ce_position", print(&mut text, event.position));
        let mut headers = add(headers, "ce_streamversion", print(&mut text, event.version));
        for (name, value) in [
            ("ce_correlationid", &event.correlation_id),
            ("ce_causationid", &event.causation_id),
            ("ce_actor", &event.actor),
            ("traceparent", &event.traceparent),
        ] {
            if let Some(value) = value {
                headers = add(headers, name, value);
            }
        }
        add(headers, "ce_storeid", &self.store_id)
    }
}

/// The record's value: framing and datum.
pub(crate) fn value(event: &mut OutboxEvent) -> Vec<u8> {
    get_payload(event.schema_id, std::mem::take(&mut event.datum))
}

/// The record's time in milliseconds, as Kafka has it.
pub(crate) fn millis(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1000)
}

fn add(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}

fn print(text: &mut String, value: impl Display) -> &str {
    text.clear();
    // Writing to a string cannot fail.
    let _ = write!(text, "{value}");
    text
}

/// Reads a record: an event, or why it is none.
#[expect(clippy::result_large_err, reason = "an event is larger still, and nearly all are events")]
pub(crate) fn read(message: &BorrowedMessage<'_>) -> Delivered {
    let found = Found::in_headers(message);
    let stream_id = message.key().and_then(|key| std::str::from_utf8(key).ok());
    match event(message, &found) {
        Ok(event) => Ok(event),
        Err(reason) => Err(Malformed {
            partition: message.partition(),
            offset: message.offset(),
            reason,
            stream_id: stream_id.filter(|id| id.len() <= MAX_HEADER_BYTES).map(Arc::from),
            position: found.number(found.position, "ce_position").ok(),
            version: found.number(found.version, "ce_streamversion").ok(),
            event_id: found.parse(found.event_id, "ce_id").ok(),
            store_id: found.parse(found.store_id, "ce_storeid").ok(),
            value: message.payload().map(|v| v[..v.len().min(4096)].to_vec()).unwrap_or_default(),
        }),
    }
}

fn event(message: &BorrowedMessage<'_>, found: &Found<'_>) -> Result<Received, Malformation> {
    let key = message.key().ok_or(Malformation::NoKey)?;
    let stream_id = std::str::from_utf8(key).map_err(|_| Malformation::BadKey)?;
    foldstream_core::check_stream_id(stream_id).map_err(|_| Malformation::BadKey)?;
    let (schema_id, datum) = unframed(message.payload())?;
    if found.count > MAX_HEADERS {
        return Err(Malformation::TooManyHeaders(found.count));
    }
    if found.text(found.subject, "ce_subject")? != stream_id {
        return Err(Malformation::Contradiction("ce_subject"));
    }
    Ok(Received {
        partition: message.partition(),
        offset: message.offset(),
        stream_id: stream_id.into(),
        position: found.number(found.position, "ce_position")?,
        version: found.number(found.version, "ce_streamversion")?,
        event_id: found.parse(found.event_id, "ce_id")?,
        event_type: found.text(found.event_type, "ce_type")?.into(),
        recorded_at: found.parse(found.time, "ce_time")?,
        store_id: found.parse(found.store_id, "ce_storeid")?,
        schema_id,
        datum: datum.to_vec(),
        correlation_id: found.optional(found.correlation_id, "ce_correlationid")?,
        causation_id: found.optional(found.causation_id, "ce_causationid")?,
        actor: found.optional(found.actor, "ce_actor")?,
        traceparent: found.optional(found.traceparent, "traceparent")?,
    })
}

/// The schema's id and the datum in Confluent's framing.
fn unframed(value: Option<&[u8]>) -> Result<(u32, &[u8]), Malformation> {
    match get_bytes_result(value) {
        BytesResult::Null => Err(Malformation::NoValue),
        BytesResult::Invalid(_) => Err(Malformation::BadFraming),
        BytesResult::Valid(_, datum) if datum.len() > MAX_DATUM_BYTES => {
            Err(Malformation::TooLarge(datum.len()))
        }
        BytesResult::Valid(id, datum) => Ok((id, datum)),
    }
}

/// The headers that we know, the first of each name, found in one pass.
#[derive(Default)]
struct Found<'a> {
    count: usize,
    event_id: Option<&'a [u8]>,
    event_type: Option<&'a [u8]>,
    subject: Option<&'a [u8]>,
    time: Option<&'a [u8]>,
    position: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    store_id: Option<&'a [u8]>,
    correlation_id: Option<&'a [u8]>,
    causation_id: Option<&'a [u8]>,
    actor: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
}
impl<'a> Found<'a> {
    fn in_headers(message: &'a BorrowedMessage<'_>) -> Self {
        let mut found = Found::default();
        let Some(headers) = message.headers() else { return found };
        found.count = headers.count();
        for index in 0..found.count.min(MAX_HEADERS) {
            let Some(header) = headers.try_get(index) else { break };
            let place = match header.key {
                "ce_id" => &mut found.event_id,
                "ce_type" => &mut found.event_type,
                "ce_subject" => &mut found.subject,
                "ce_time" => &mut found.time,
                "ce_position" => &mut found.position,
                "ce_streamversion" => &mut found.version,
                "ce_storeid" => &mut found.store_id,
                "ce_correlationid" => &mut found.correlation_id,
                "ce_causationid" => &mut found.causation_id,
                "ce_actor" => &mut found.actor,
                "traceparent" => &mut found.traceparent,
                _ => continue,
            };
            *place = place.or(header.value);
        }
        found
    }

    fn text(&self, value: Option<&'a [u8]>, name: &'static str) -> Result<&'a str, Malformation> {
        let value = value.ok_or(Malformation::NoHeader(name))?;
        if value.len() > MAX_HEADER_BYTES {
            return Err(Malformation::BadHeader(name));
        }
        std::str::from_utf8(value).map_err(|_| Malformation::BadHeader(name))
    }
    fn optional(
        &self,
        value: Option<&'a [u8]>,
        name: &'static str,
    ) -> Result<Option<Box<str>>, Malformation> {
        if value.is_none() {
            return Ok(None);
        }
        self.text(value, name).map(|text| Some(text.into()))
    }
    fn parse<T: FromStr>(
        &self,
        value: Option<&'a [u8]>,
        name: &'static str,
    ) -> Result<T, Malformation> {
        self.text(value, name)?.parse().map_err(|_| Malformation::BadHeader(name))
    }
    /// A number from 1, in plain digits.
    fn number(&self, value: Option<&'a [u8]>, name: &'static str) -> Result<u64, Malformation> {
        let text = self.text(value, name)?;
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(number) if plain => Ok(number),
            Ok(_) | Err(_) => Err(Malformation::BadHeader(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_without_the_framing_is_no_event() {
        assert_eq!(unframed(None), Err(Malformation::NoValue));
        for value in [&[][..], &[0], &[0, 0, 0, 1], &[1, 0, 0, 0, 1, 2], b"{\"id\":1}"] {
            assert_eq!(unframed(Some(value)), Err(Malformation::BadFraming), "{value:?}");
        }
        assert_eq!(unframed(Some(&[0, 0xff, 0xff, 0xff, 0xff])), Ok((u32::MAX, &[][..])));
        assert_eq!(unframed(Some(&[0, 0, 0, 1, 2, 3, 4])), Ok((258, &[3, 4][..])));
        let large = vec![0; MAX_DATUM_BYTES + 6];
        assert_eq!(unframed(Some(&large)), Err(Malformation::TooLarge(MAX_DATUM_BYTES + 1)));
        assert!(unframed(Some(&large[1..])).is_ok());
    }
}
