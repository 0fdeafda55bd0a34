//! The registry's ids of schemas, kept in the event database: the service starts without the
//! registry as long as all ids are known.

use crate::StoreError;
use crate::connection::{Connections, in_time};
use crate::served::Served;
use foldstream_core::{EventSchema, WriterSchema};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// An event whose schema, exactly as the code has it, has no id yet.
#[derive(Debug, Clone)]
pub struct MissingSchema {
    /// The topic of the event; the subject in the registry is `<topic>-<full name>`.
    pub topic: String,
    /// The schema as the code has it.
    pub schema: &'static EventSchema,
}

/// What is known; the same for all writers.
#[derive(Default)]
pub(crate) struct Schemas {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    writers: HashMap<u32, Arc<WriterSchema>>,
    /// By place of the aggregate and place of the schema in it.
    own: HashMap<(usize, usize), u32>,
}

impl Schemas {
    pub(crate) fn writer(&self, id: u32) -> Option<Arc<WriterSchema>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.writers.get(&id).cloned()
    }
    pub(crate) fn own(&self, aggregate: usize, schema: usize) -> Option<u32> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.own.get(&(aggregate, schema)).copied()
    }
    pub(crate) fn missing(&self, served: &Served) -> Vec<MissingSchema> {
        let mut missing = Vec::new();
        for (a, one) in served.aggregates.iter().enumerate() {
            for (s, schema) in one.aggregate.events().iter().enumerate() {
                if self.own(a, s).is_none() {
                    missing.push(MissingSchema { topic: one.topic.clone(), schema });
                }
            }
        }
        missing
    }
    /// Reads all that the database knows.
    pub(crate) async fn load(&self, from: &Connections, served: &Served) -> Result<(), StoreError> {
        let mut connection = from.borrow().await?;
        let call = sqlx::query_as("select id, schema from schemas order by learned_at, id")
            .fetch_all(&mut *connection);
        let rows: Vec<(i64, String)> = in_time(from.call, call).await?;
        connection.give_back();
        let mut known = Known::default();
        for (id, text) in rows {
            let id = u32::try_from(id).map_err(|_| not_an_id(id))?;
            let writer = match self.writer(id) {
                Some(writer) => writer,
                None => Arc::new(WriterSchema::parse(id, &text)?),
            };
            known.note_own(served, id, &writer, &text);
            known.writers.insert(id, writer);
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }
    /// Stores ids that the registry gave, then reads all.
    pub(crate) async fn learn(
        &self,
        into: &Connections,
        served: &Served,
        ids: &[(String, u32, String)],
    ) -> Result<(), StoreError> {
        for (_, id, text) in ids {
            let writer = WriterSchema::parse(*id, text)?;
            let differs = |known: &Arc<WriterSchema>| known.schema() != writer.schema();
            if self.writer(*id).as_ref().is_some_and(differs) {
                return Err(StoreError::SchemaId { id: *id });
            }
        }
        let names: Vec<&str> = ids.iter().map(|(name, ..)| name.as_str()).collect();
        let numbers: Vec<i64> = ids.iter().map(|(_, id, _)| i64::from(*id)).collect();
        let texts: Vec<&str> = ids.iter().map(|(.., text)| text.as_str()).collect();
        let mut connection = into.borrow().await?;
        let call = sqlx::query(
            "insert into schemas (id, full_name, schema)
             select distinct on (id) id, name, schema
             from unnest($1::bigint[], $2::text[], $3::text[]) as new(id, name, schema)
             order by id
             on conflict (id) do nothing",
        )
        .bind(numbers)
        .bind(names)
        .bind(texts)
        .execute(&mut *connection);
        in_time(into.call, call).await?;
        connection.give_back();
        self.load(into, served).await
    }
}

impl Known {
    fn note_own(&mut self, served: &Served, id: u32, writer: &WriterSchema, text: &str) {
        let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
        for (a, one) in served.aggregates.iter().enumerate() {
            for (s, schema) in one.aggregate.events().iter().enumerate() {
                let named = schema.full_name == writer.full_name();
                if named && json.as_ref() == Some(&schema.json) {
                    self.own.insert((a, s), id);
                }
            }
        }
    }
}

pub(crate) fn not_an_id(id: i64) -> foldstream_core::Invalid {
    foldstream_core::Invalid::new("schema-id", format!("{id} is not the id of a schema"))
}
