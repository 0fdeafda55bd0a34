//! A schema as the registry handles it: canonical text, its hash, and a form to compare.

use apache_avro::Schema;
use apache_avro::schema::{
    ArraySchema, MapSchema, Name, NamesRef, RecordField, RecordSchema, ResolvedSchema, UnionSchema,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::panic::catch_unwind;

use crate::canonical::{MAX_NODES, canonical_text};

/// A valid Avro schema.
#[derive(Debug, Clone)]
pub(crate) struct AvroSchema {
    /// Canonical text; equal texts are one schema.
    pub(crate) text: String,
    /// SHA-256 of `text`.
    pub(crate) hash: [u8; 32],
    /// The schema with every reference replaced by what it refers to, except inside itself.
    pub(crate) written_out: Schema,
}

impl AvroSchema {
    /// Reads a schema.
    ///
    /// # Errors
    /// A sentence for the client that says why the text is not a schema this registry takes.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let text = canonical_text(&json)?;
        // The library panics on some texts instead of refusing them.
        let schema = catch_unwind(|| Schema::parse_str(&text))
            .map_err(|_| "this is no Avro schema".to_owned())?
            .map_err(|error| error.to_string())?;
        let resolved = ResolvedSchema::new(&schema).map_err(|error| error.to_string())?;
        let names = resolved.get_names();
        let mut writer = WriteOut { names, open: Vec::new(), nodes: 0 };
        let written_out = writer.schema(&schema)?;
        let hash = Sha256::digest(text.as_bytes()).into();
        Ok(Self { text, hash, written_out })
    }
}

/// Replaces references by definitions.
///
/// Avro's compatibility check takes a reference and a definition for different types, and two
/// references of one name for equal ones without comparing what they stand for. A type that is
/// used twice would be judged wrongly either way.
struct WriteOut<'a> {
    names: &'a NamesRef<'a>,
    /// Records being written out; a reference to one of them is a recursion and stays.
    open: Vec<&'a Name>,
    nodes: u64,
}

impl<'a> WriteOut<'a> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other types of Avro hold no types, also those it may get one day"
    )]
    fn schema(&mut self, schema: &'a Schema) -> Result<Schema, String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("with all references written out it has over {MAX_NODES} types"));
        }
        Ok(match schema {
            Schema::Ref { name } => match self.names.get(name) {
                Some(definition) if !self.open.contains(&name) => self.schema(definition)?,
                Some(_) | None => schema.clone(),
            },
            Schema::Record(record) => {
                self.open.push(&record.name);
                let copy = self.record(record);
                self.open.pop();
                Schema::Record(copy?)
            }
            Schema::Array(array) => Schema::Array(ArraySchema {
                items: Box::new(self.schema(&array.items)?),
                attributes: array.attributes.clone(),
            }),
            Schema::Map(map) => Schema::Map(MapSchema {
                types: Box::new(self.schema(&map.types)?),
                attributes: map.attributes.clone(),
            }),
            Schema::Union(union) => {
                let variants: Result<Vec<_>, _> =
                    union.variants().iter().map(|variant| self.schema(variant)).collect();
                Schema::Union(UnionSchema::new(variants?).map_err(|error| error.to_string())?)
            }
            other => other.clone(),
        })
    }

    fn record(&mut self, record: &'a RecordSchema) -> Result<RecordSchema, String> {
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            fields.push(RecordField {
                name: field.name.clone(),
                doc: None,
                aliases: field.aliases.clone(),
                default: field.default.clone(),
                schema: self.schema(&field.schema)?,
                custom_attributes: Default::default(),
            });
        }
        Ok(RecordSchema {
            name: record.name.clone(),
            aliases: record.aliases.clone(),
            doc: None,
            fields,
            lookup: record.lookup.clone(),
            attributes: Default::default(),
        })
    }
}
