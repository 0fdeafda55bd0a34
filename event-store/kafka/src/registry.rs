//! A client of any Confluent-compatible schema registry.

use foldstream_core::WriterSchema;
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id_and_type, is_compatible_schema, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SuppliedSchema};
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// No call to the registry takes longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often a schema id that the registry does not know is asked for before it is unknown.
const TRIES: u32 = 4;

/// What can go wrong between us and the registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It does not answer. Whoever needs the schema waits; nothing is dropped.
    #[error("the schema registry does not answer: {0}")]
    Unavailable(String),
    /// It answers, repeatedly, that there is no such schema.
    #[error("the schema registry knows no schema {0}")]
    Unknown(u32),
    /// The schema cannot be registered: it does not fit the subject's earlier ones.
    #[error("subject {subject}: {reason}")]
    Incompatible {
        /// Which subject.
        subject: String,
        /// What the registry says.
        reason: String,
    },
    /// The schema is none that we understand.
    #[error("{0}")]
    Invalid(String),
}
impl SchemaError {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            SchemaError::Unavailable(_) => true,
            SchemaError::Unknown(_)
            | SchemaError::Incompatible { .. }
            | SchemaError::Invalid(_) => false,
        }
    }
}

/// A schema registry. Cheap to clone; clones share what they have learnt.
#[derive(Debug, Clone)]
pub struct SchemaRegistry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    url: String,
    settings: SrSettings,
    http: reqwest::Client,
    /// Schemas never change, so what was found is kept. What was not found may come: it is not.
    schemas: RwLock<HashMap<u32, Arc<WriterSchema>>>,
}

impl SchemaRegistry {
    /// The registry at this address, such as `http://127.0.0.1:7404`.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(url: &str) -> Result<Self, SchemaError> {
        let url = url.trim_end_matches('/').to_owned();
        let settings = SrSettings::new_builder(url.clone()).set_timeout(DEADLINE).build();
        let settings = settings.map_err(|e| SchemaError::Invalid(e.error))?;
        let http = reqwest::Client::builder().timeout(DEADLINE).build();
        let http = http.map_err(|e| SchemaError::Invalid(e.to_string()))?;
        let schemas = RwLock::default();
        Ok(SchemaRegistry { inner: Arc::new(Inner { url, settings, http, schemas }) })
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Registers a schema under a subject, `<topic>-<record full name>`; the id is the same each
    /// time.
    ///
    /// # Errors
    /// The registry is away, or the schema does not fit the subject.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, SchemaError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let posted = post_schema(&self.inner.settings, subject.to_owned(), supplied).await;
        posted.map(|schema| schema.id).map_err(|error| refusal(subject, &error))
    }

    /// Whether a schema could be registered under a subject. A new subject takes any.
    ///
    /// # Errors
    /// The registry is away, or the schema is none.
    pub async fn compatible(&self, subject: &str, schema: &str) -> Result<bool, SchemaError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let answer = is_compatible_schema(&self.inner.settings, subject.to_owned(), supplied).await;
        match answer {
            Ok(compatible) => Ok(compatible),
            Err(error) if matches!(code(&error), Some(40401 | 40402)) => Ok(true),
            Err(error) => Err(refusal(subject, &error)),
        }
    }

    /// The schema with this id. An unknown one is asked for a few times, over about a second: the
    /// registry may be a replica that lags.
    ///
    /// # Errors
    /// [`SchemaError::Unavailable`]: wait and ask again. [`SchemaError::Unknown`] and
    /// [`SchemaError::Invalid`]: records with this id cannot be read.
    pub async fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
        if let Some(schema) = self.known(id) {
            return Ok(schema);
        }
        let mut pause = Duration::from_millis(100);
        for left in (0..TRIES).rev() {
            match self.fetch(id).await {
                Err(SchemaError::Unknown(_)) if left > 0 => {}
                result => return result,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(SchemaError::Unknown(id))
    }

    /// The schema with this id, if it was asked for before.
    pub fn known(&self, id: u32) -> Option<Arc<WriterSchema>> {
        // A poisoned lock still holds a map that is whole: inserting is all that is done under it.
        let schemas = self.inner.schemas.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        schemas.get(&id).cloned()
    }

    /// Whether the registry answers.
    ///
    /// # Errors
    /// It does not, or not within 5 seconds.
    pub async fn check(&self) -> Result<(), SchemaError> {
        let asked = self.inner.http.get(format!("{}/schemas/types", self.inner.url)).send().await;
        let answer = asked.and_then(reqwest::Response::error_for_status);
        answer.map(drop).map_err(|error| SchemaError::Unavailable(error.to_string()))
    }

    async fn fetch(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
        // The library's decoder would keep "not found" for ever; this call keeps nothing.
        let found = get_schema_by_id_and_type(id, &self.inner.settings, SchemaType::Avro).await;
        let schema = found.map_err(|error| match code(&error) {
            Some(40401..=40403) => SchemaError::Unknown(id),
            Some(_) | None if error.error.starts_with("type ") => {
                SchemaError::Invalid(format!("schema {id} is not an Avro schema: {}", error.error))
            }
            Some(_) | None => SchemaError::Unavailable(text(&error)),
        })?;
        let parsed = WriterSchema::parse(id, &schema.schema);
        let parsed = Arc::new(parsed.map_err(|error| SchemaError::Invalid(error.to_string()))?);
        let mut schemas =
            self.inner.schemas.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(schemas.entry(id).or_insert(parsed).clone())
    }
}

/// The registry's own code, such as 40403, when it answered with one.
fn code(error: &SRCError) -> Option<u32> {
    let answer = error.source()?.downcast_ref::<RawError>()?;
    (answer.error_code != 0).then_some(answer.error_code)
}

fn text(error: &SRCError) -> String {
    match &error.cause {
        Some(cause) => format!("{}: {cause}", error.error),
        None => error.error.clone(),
    }
}

fn refusal(subject: &str, error: &SRCError) -> SchemaError {
    let reason = error.cause.clone().unwrap_or_else(|| error.error.clone());
    match code(error) {
        Some(409) => SchemaError::Incompatible { subject: subject.to_owned(), reason },
        Some(42201..=42209 | 422) => SchemaError::Invalid(format!("subject {subject}: {reason}")),
        Some(_) | None => SchemaError::Unavailable(text(error)),
    }
}
