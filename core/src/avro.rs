//! Events as Avro data: one record per event type, read from the schema they were written with.

use crate::Event;
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::de::DeserializeOwned;
use std::sync::OnceLock;

/// The schema of one event as the code has it.
#[derive(Debug)]
pub struct EventSchema {
    /// The event's name, such as `InvoiceIssued`.
    pub name: &'static str,
    /// The record's full name, such as `shop.invoices.InvoiceIssued`.
    pub full_name: String,
    /// What the event means.
    pub doc: &'static str,
    /// The parsed schema.
    pub schema: Schema,
    /// The schema's text, as it is registered and committed.
    pub json: serde_json::Value,
}

/// The schema that a datum was written with, as the registry or the event store keeps it.
#[derive(Debug)]
pub struct WriterSchema {
    id: u32,
    full_name: String,
    schema: Schema,
    /// Whether it equals the schema that the code has for that record; found out once.
    same: OnceLock<bool>,
}

impl WriterSchema {
    /// Parses a schema's text; `id` is the one of the registry.
    ///
    /// # Errors
    /// When the text is no Avro schema, or not one of a record.
    pub fn parse(id: u32, json: &str) -> Result<Self, Undecodable> {
        let schema = Schema::parse_str(json)
            .map_err(|e| Undecodable::new(format!("schema {id}"), e.to_string()))?;
        let Schema::Record(record) = &schema else {
            return Err(Undecodable::new(format!("schema {id}"), "not the schema of a record"));
        };
        let full_name = record.name.fullname(None).to_string();
        Ok(WriterSchema { id, full_name, schema, same: OnceLock::new() })
    }
    /// The id in the registry.
    pub fn id(&self) -> u32 {
        self.id
    }
    /// The record's full name.
    pub fn full_name(&self) -> &str {
        &self.full_name
    }
    /// The name of the event: the record's name without its namespace.
    pub fn event_name(&self) -> &str {
        self.full_name.rsplit('.').next().unwrap_or(&self.full_name)
    }
    /// The parsed schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }
}

/// A record that cannot be read as an event, or an event that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct Undecodable {
    /// The event's or record's name.
    pub name: String,
    /// Why.
    pub reason: String,
}
impl Undecodable {
    /// An undecodable record of this name.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Undecodable { name: name.into(), reason: reason.into() }
    }
    /// A record that is no event of this topic.
    pub fn unknown(name: &str, topic: &str) -> Self {
        Undecodable::new(name, format!("not an event of `{topic}`"))
    }
}

#[doc(hidden)]
pub fn event_schema<E: Event>() -> EventSchema {
    let schema = E::get_schema();
    let full_name = match &schema {
        Schema::Record(record) => record.name.fullname(None).to_string(),
        other => panic!("the schema of event {} is no record: {other:?}", E::NAME),
    };
    let json = serde_json::to_value(&schema).expect("a schema serializes");
    EventSchema { name: E::NAME, full_name, doc: E::DOC, schema, json }
}

#[doc(hidden)]
pub fn encode_event<E: Event>(event: &E, schema: &EventSchema) -> Result<Vec<u8>, Undecodable> {
    let failed = |e: apache_avro::Error| Undecodable::new(E::NAME, e.to_string());
    let writer = GenericDatumWriter::builder(&schema.schema).build().map_err(failed)?;
    writer.write_ser_to_vec(event).map_err(failed)
}

#[doc(hidden)]
pub fn decode_event<E: Event>(
    writer: &WriterSchema,
    reader: &EventSchema,
    datum: &[u8],
) -> Result<E, Undecodable> {
    if *writer.same.get_or_init(|| writer.schema == reader.schema) {
        read(&reader.schema, datum, E::NAME)
    } else {
        read_resolved(writer, reader, datum)
    }
}

fn read<E: DeserializeOwned>(schema: &Schema, datum: &[u8], name: &str) -> Result<E, Undecodable> {
    let failed = |e: apache_avro::Error| Undecodable::new(name, e.to_string());
    let mut rest = datum;
    let reader = GenericDatumReader::builder(schema).build().map_err(failed)?;
    let event = reader.read_deser(&mut rest).map_err(failed)?;
    nothing_left(rest, name).map(|()| event)
}

fn read_resolved<E: Event>(
    writer: &WriterSchema,
    reader: &EventSchema,
    datum: &[u8],
) -> Result<E, Undecodable> {
    let failed = |e: apache_avro::Error| Undecodable::new(E::NAME, e.to_string());
    let mut rest = datum;
    let resolving = GenericDatumReader::builder(&writer.schema)
        .reader_schema(&reader.schema)
        .build()
        .map_err(failed)?;
    let value = resolving.read_value(&mut rest).map_err(failed)?;
    nothing_left(rest, E::NAME)?;
    apache_avro::from_value(&value).map_err(failed)
}

/// The Avro library stops at the end of the datum and says nothing of what follows.
fn nothing_left(rest: &[u8], name: &str) -> Result<(), Undecodable> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(Undecodable::new(name, format!("{} bytes after the end of the record", rest.len())))
}
