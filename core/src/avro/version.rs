//! Reading what another version of the code wrote: Avro's rules of resolution, with the names that
//! a field had, and the upcaster of the event between the two.

use super::{EventSchema, Undecodable, WriterSchema};
use crate::Event;
use apache_avro::AvroSchema;
use apache_avro::Decimal;
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{ResolvedSchema, UnionSchema};
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::mem::discriminant;

/// The width of amounts between the two schemas: the library refuses to read a decimal that has
/// fewer bytes than its precision could need.
const DECIMAL_BYTES: usize = 16;

/// An event as another version of the code wrote it, for
/// [`Event::upcast`]: the fields of its record, by name. A field that was renamed by an alias bears
/// its name of today already.
#[derive(Debug)]
pub struct Written<'a> {
    writer: &'a WriterSchema,
    fields: Vec<(String, Value)>,
}

impl Written<'_> {
    /// The schema it was written with.
    pub fn schema(&self) -> &WriterSchema {
        self.writer
    }
    /// Whether that version had this field.
    pub fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|(name, _)| name == field)
    }
    /// Takes a field out; `None` when that version had none of that name. An optional field is
    /// taken as an `Option`.
    ///
    /// # Errors
    /// When the field is of another type.
    pub fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>, Undecodable> {
        let Some(place) = self.fields.iter().position(|(name, _)| name == field) else {
            return Ok(None);
        };
        let (_, value) = self.fields.swap_remove(place);
        let taken = apache_avro::from_value(&value);
        taken.map(Some).map_err(|error| self.about(field, &error.to_string()))
    }
    /// Puts a field in, in place of what that version had under the name. Its type may be the
    /// field's, or one that Avro promotes to it.
    ///
    /// # Errors
    /// When the value does not fit its own type's schema.
    pub fn put<T: Serialize + AvroSchema>(
        &mut self,
        field: &str,
        value: T,
    ) -> Result<(), Undecodable> {
        let value = to_value(&value).map_err(|error| self.about(field, &error.to_string()))?;
        self.fields.retain(|(name, _)| name != field);
        self.fields.push((field.to_owned(), value));
        Ok(())
    }
    /// Says that this event cannot be brought to today's form.
    pub fn refuse(&self, reason: impl Into<String>) -> Undecodable {
        Undecodable::new(self.writer.event_name(), reason)
    }
    fn about(&self, field: &str, reason: &str) -> Undecodable {
        self.refuse(format!("field `{field}`: {reason}"))
    }
}

/// How a writer's records are read; found out once per writer's schema.
#[derive(Debug)]
pub(super) enum Reading {
    /// The bytes are as the code writes them.
    Same,
    /// Another version wrote them.
    Resolved {
        /// The writer's schema with the names that the reader has for its fields.
        writer: Box<Schema>,
    },
    /// They can never be read.
    Never(String),
}

impl Reading {
    pub(super) fn new(writer: &Schema, reader: &EventSchema) -> Self {
        let written = serde_json::to_value(writer).unwrap_or_default();
        if wire_form(&written) == wire_form(&reader.json) {
            return Reading::Same;
        }
        let mut renamed = writer.clone();
        let aligned = ResolvedSchema::try_from(&reader.schema)
            .map_err(|error| error.to_string())
            .and_then(|names| Align { names: &names }.align(&mut renamed, &reader.schema));
        match aligned {
            Ok(()) => Reading::Resolved { writer: Box::new(renamed) },
            Err(reason) => Reading::Never(reason),
        }
    }
}

/// A schema's JSON without what says nothing about bytes: docs, defaults, aliases.
pub fn wire_form(schema: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match schema {
        Json::Object(members) => {
            let kept = members.iter().filter(|(name, _)| {
                !matches!(name.as_str(), "doc" | "aliases" | "default" | "order")
            });
            kept.map(|(name, value)| (name.clone(), wire_form(value))).collect()
        }
        Json::Array(values) => values.iter().map(wire_form).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => schema.clone(),
    }
}

pub(super) fn read_resolved<E: Event>(
    writer: &WriterSchema,
    renamed: &Schema,
    reader: &EventSchema,
    datum: &[u8],
) -> Result<E, Undecodable> {
    let failed = |e: apache_avro::Error| Undecodable::new(E::NAME, e.to_string());
    let mut rest = datum;
    let value = GenericDatumReader::builder(renamed).build().map_err(failed)?;
    let mut value = value.read_value(&mut rest).map_err(failed)?;
    widen(&mut value);
    let Value::Record(fields) = value else {
        return Err(Undecodable::new(E::NAME, "not a record"));
    };
    let mut written = Written { writer, fields };
    E::upcast(&mut written)?;
    let resolved = Value::Record(written.fields).resolve(&reader.schema).map_err(failed)?;
    apache_avro::from_value(&resolved).map_err(failed)
}

/// The value as its own schema has it: by its bytes, for the library's direct way forgets that an
/// amount is a decimal and an id a UUID.
fn to_value<T: Serialize + AvroSchema>(value: &T) -> Result<Value, apache_avro::Error> {
    let schema = T::get_schema();
    let bytes = GenericDatumWriter::builder(&schema).build()?.write_ser_to_vec(value)?;
    let read = GenericDatumReader::builder(&schema).build()?.read_value(&mut bytes.as_slice());
    let mut value = read?;
    widen(&mut value);
    Ok(value)
}

/// Gives every decimal the same number of bytes.
fn widen(value: &mut Value) {
    match value {
        Value::Decimal(decimal) => {
            let Ok(bytes) = Vec::<u8>::try_from(&*decimal) else { return };
            let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = vec![sign; DECIMAL_BYTES.saturating_sub(bytes.len())];
            wide.extend(bytes);
            *decimal = Decimal::from(wide);
        }
        Value::Union(_, inner) => widen(inner),
        Value::Array(items) => items.iter_mut().for_each(widen),
        Value::Map(items) => items.values_mut().for_each(widen),
        Value::Record(fields) => fields.iter_mut().for_each(|(_, value)| widen(value)),
        _ => {}
    }
}

/// Gives the fields of a writer's schema the names that they have in the reader's: by the aliases
/// of the reader, as Avro says, and by those of the writer, so that older code reads what newer
/// code renamed.
struct Align<'a> {
    names: &'a ResolvedSchema<'a>,
}

impl Align<'_> {
    fn align(&self, writer: &mut Schema, reader: &Schema) -> Result<(), String> {
        let reader = self.definition(reader);
        match (&mut *writer, reader) {
            (Schema::Record(wrote), Schema::Record(reads)) => {
                let known = |name: &str| reads.fields.iter().any(|field| field.name == name);
                let place = |field: &apache_avro::schema::RecordField| {
                    let of = |is: &dyn Fn(&apache_avro::schema::RecordField) -> bool| {
                        wrote.fields.iter().position(is)
                    };
                    of(&|w| w.name == field.name)
                        .or_else(|| of(&|w| field.aliases.contains(&w.name) && !known(&w.name)))
                        .or_else(|| of(&|w| w.aliases.contains(&field.name) && !known(&w.name)))
                };
                let places: Vec<_> = reads.fields.iter().map(place).collect();
                for (place, field) in places.into_iter().zip(&reads.fields) {
                    let Some(place) = place else { continue };
                    let own = &mut wrote.fields[place];
                    self.align(&mut own.schema, &field.schema)
                        .map_err(|reason| format!("field `{}`: {reason}", field.name))?;
                    own.name.clone_from(&field.name);
                }
                Ok(())
            }
            (Schema::Array(wrote), Schema::Array(reads)) => {
                self.align(&mut wrote.items, &reads.items)
            }
            (Schema::Map(wrote), Schema::Map(reads)) => self.align(&mut wrote.types, &reads.types),
            (Schema::Decimal(wrote), Schema::Decimal(reads)) if wrote.scale != reads.scale => {
                let (wrote, reads) = (wrote.scale, reads.scale);
                Err(format!("a decimal of scale {wrote} cannot be read as one of scale {reads}"))
            }
            (Schema::Union(wrote), _) => {
                let mut variants = wrote.variants().to_vec();
                for variant in &mut variants {
                    if let Some(reads) = self.partner(variant, reader) {
                        self.align(variant, reads)?;
                    }
                }
                *wrote = UnionSchema::new(variants).map_err(|error| error.to_string())?;
                Ok(())
            }
            (_, Schema::Union(_)) => match self.partner(writer, reader) {
                Some(reads) => self.align(writer, reads),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn definition<'s>(&'s self, schema: &'s Schema) -> &'s Schema {
        match schema {
            Schema::Ref { name } => self.names.get_names().get(name).copied().unwrap_or(schema),
            other => other,
        }
    }

    /// What a reader has for this branch of a union: the one of the same kind, by name if it has
    /// one.
    fn partner<'s>(&'s self, branch: &Schema, reader: &'s Schema) -> Option<&'s Schema> {
        let candidates: Vec<&Schema> = match reader {
            Schema::Union(union) => union.variants().iter().map(|v| self.definition(v)).collect(),
            other => vec![other],
        };
        let mut alike = candidates.into_iter().filter(|c| discriminant(*c) == discriminant(branch));
        let first = alike.next()?;
        let same_name = |schema: &&Schema| schema.name() == branch.name();
        if same_name(&first) { Some(first) } else { Some(alike.find(same_name).unwrap_or(first)) }
    }
}
