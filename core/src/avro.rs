//! Events as Avro data: one record per event type, read from the schema they were written with.

mod shape;
mod version;

pub use shape::MAX_VALUES;
pub use version::{Written, wire_form};

use crate::Event;
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::de::DeserializeOwned;
use shape::Shape;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use version::Reading;

/// The text of a schema is no longer, in bytes.
const MAX_SCHEMA_BYTES: usize = 1 << 20;

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
    /// Why no event may have this schema: it is recursive, or without bounds.
    pub fault: Option<String>,
    shape: Option<Arc<Shape>>,
}

/// The schema that a datum was written with, as the registry or the event store keeps it.
#[derive(Debug)]
pub struct WriterSchema {
    id: u32,
    full_name: String,
    schema: Schema,
    shape: Arc<Shape>,
    /// How the code reads it, and the place of the code's schema; found out once.
    reading: OnceLock<(usize, Reading)>,
}

impl WriterSchema {
    /// Parses a schema's text; `id` is the one of the registry.
    ///
    /// # Errors
    /// When the text is no Avro schema, not one of a record, recursive, or without bounds.
    pub fn parse(id: u32, json: &str) -> Result<Self, Undecodable> {
        let refused = |reason: String| Undecodable::new(format!("schema {id}"), reason);
        if json.len() > MAX_SCHEMA_BYTES {
            return Err(refused(format!("{} bytes are no schema of ours", json.len())));
        }
        // The library panics at some texts that are no schema.
        let parsed = caught(|| {
            let schema = Schema::parse_str(json).map_err(|error| error.to_string())?;
            let shape = Shape::of(&schema);
            Ok((schema, shape))
        });
        let (schema, shape) = parsed.map_err(refused)?;
        let Schema::Record(record) = &schema else {
            return Err(refused("not the schema of a record".into()));
        };
        let full_name = record.name.fullname(None).to_string();
        let shape = shape.map_err(refused)?;
        Ok(WriterSchema { id, full_name, schema, shape, reading: OnceLock::new() })
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
    let (shape, fault) = match Shape::of(&schema) {
        Ok(shape) => (Some(shape), None),
        Err(fault) => (None, Some(fault)),
    };
    EventSchema { name: E::NAME, full_name, doc: E::DOC, schema, json, fault, shape }
}

#[doc(hidden)]
pub fn encode_event<E: Event>(event: &E, schema: &EventSchema) -> Result<Vec<u8>, Undecodable> {
    let failed = |e: apache_avro::Error| Undecodable::new(E::NAME, e.to_string());
    let Some(shape) = &schema.shape else {
        return Err(Undecodable::new(E::NAME, schema.fault.clone().unwrap_or_default()));
    };
    let writer = GenericDatumWriter::builder(&schema.schema).build().map_err(failed)?;
    let datum = writer.write_ser_to_vec(event).map_err(failed)?;
    // What could not be read again is not written.
    shape.check(&datum).map_err(|reason| Undecodable::new(E::NAME, reason))?;
    Ok(datum)
}

#[doc(hidden)]
pub fn decode_event<E: Event>(
    writer: &WriterSchema,
    reader: &EventSchema,
    datum: &[u8],
) -> Result<E, Undecodable> {
    writer.shape.check(datum).map_err(|reason| Undecodable::new(E::NAME, reason))?;
    let place = std::ptr::from_ref(reader).addr();
    let found_out =
        || caught(|| Ok(Reading::new(&writer.schema, reader))).unwrap_or_else(Reading::Never);
    let (known, reading) = writer.reading.get_or_init(|| (place, found_out()));
    // Two versions of the code in one process, as in tests: the first one is remembered.
    let own;
    let reading = if *known == place {
        reading
    } else {
        own = found_out();
        &own
    };
    match reading {
        Reading::Same => read(&reader.schema, datum, E::NAME),
        Reading::Resolved { writer: renamed } => {
            // A panic in an upcaster is that event's misfortune only.
            let read = caught(|| Ok(version::read_resolved(writer, renamed, reader, datum)));
            read.map_err(|panic| Undecodable::new(E::NAME, panic))?
        }
        Reading::Never(reason) => Err(Undecodable::new(E::NAME, reason.clone())),
    }
}

/// What the work answers; a panic in it is a reason like others.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", said.unwrap_or("without a word")))
    })
}

/// Reads a datum that was checked: nothing follows it.
fn read<E: DeserializeOwned>(schema: &Schema, datum: &[u8], name: &str) -> Result<E, Undecodable> {
    let failed = |e: apache_avro::Error| Undecodable::new(name, e.to_string());
    let mut rest = datum;
    let reader = GenericDatumReader::builder(schema).build().map_err(failed)?;
    reader.read_deser(&mut rest).map_err(failed)
}
