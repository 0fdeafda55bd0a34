//! A client of any Confluent-compatible schema registry.

use foldstream_core::WriterSchema;
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id_and_type, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SuppliedSchema};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// No call to the registry takes longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often a schema id that the registry does not know is asked for before it is unknown.
const TRIES: u32 = 4;
/// Nobody waits any more for what was last asked for so long ago.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// No answer that we ask for ourselves is longer.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// What can go wrong between us and the registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It does not answer. Whoever needs the schema waits; nothing is dropped.
    #[error("the schema registry does not answer: {0}")]
    Unavailable(String),
    /// It answers, repeatedly, that there is no such schema. Whoever needs it waits: the registry
    /// may be a replica that lags, or was restored from a backup; records are not to blame.
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
            SchemaError::Unavailable(_) | SchemaError::Unknown(_) => true,
            SchemaError::Incompatible { .. } | SchemaError::Invalid(_) => false,
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
    /// What somebody waits for: since when, last asked for when, and why.
    wanted: Mutex<BTreeMap<u32, Wanted>>,
}

#[derive(Debug)]
struct Wanted {
    since: Instant,
    asked: Instant,
    reason: String,
}

/// A schema that a subject has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Registered {
    /// Its id, the same under every subject.
    pub id: u32,
    /// Its 1-based number in the subject.
    pub version: u32,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

/// What it says when it refuses.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    error_code: u32,
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
struct Level {
    #[serde(rename = "compatibilityLevel")]
    level: String,
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
        let (schemas, wanted) = (RwLock::default(), Mutex::default());
        Ok(SchemaRegistry { inner: Arc::new(Inner { url, settings, http, schemas, wanted }) })
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

    /// What stands against registering a schema under a subject, as the registry says it; nothing
    /// does where the list is empty. A new subject takes any.
    ///
    /// # Errors
    /// The registry is away, or the schema is none.
    pub async fn objections(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Vec<String>, SchemaError> {
        let path = ["compatibility", "subjects", subject, "versions"];
        let mut url = self.at(&path)?;
        url.set_query(Some("verbose=true"));
        let body = serde_json::json!({ "schema": schema });
        let verdict: Option<Verdict> =
            self.ask(subject, self.inner.http.post(url).json(&body)).await?;
        Ok(match verdict {
            None | Some(Verdict { is_compatible: true, .. }) => Vec::new(),
            Some(Verdict { messages, .. }) if messages.is_empty() => {
                vec!["it does not fit the earlier versions".to_owned()]
            }
            Some(Verdict { messages, .. }) => messages,
        })
    }

    /// The id and the version of a schema in a subject; `None` when the subject does not have it.
    ///
    /// # Errors
    /// The registry is away, or the schema is none.
    pub async fn find(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Option<Registered>, SchemaError> {
        let body = serde_json::json!({ "schema": schema });
        let url = self.at(&["subjects", subject])?;
        self.ask(subject, self.inner.http.post(url).json(&body)).await
    }

    /// The level of compatibility that was set for a subject; `None` where that of the whole
    /// registry holds.
    ///
    /// # Errors
    /// The registry is away.
    pub async fn compatibility(&self, subject: &str) -> Result<Option<String>, SchemaError> {
        let url = self.at(&["config", subject])?;
        let level: Option<Level> = self.ask(subject, self.inner.http.get(url)).await?;
        Ok(level.map(|level| level.level))
    }

    /// Sets the level of compatibility of a subject, such as `BACKWARD_TRANSITIVE`.
    ///
    /// # Errors
    /// The registry is away, or knows no such level.
    pub async fn set_compatibility(&self, subject: &str, level: &str) -> Result<(), SchemaError> {
        let body = serde_json::json!({ "compatibility": level });
        let url = self.at(&["config", subject])?;
        let set: Option<serde_json::Value> =
            self.ask(subject, self.inner.http.put(url).json(&body)).await?;
        let missing = || SchemaError::Unavailable(format!("nobody has /config/{subject}"));
        set.map(drop).ok_or_else(missing)
    }

    /// What somebody waits for, for `/readyz`: schemas that were asked for within the last minute
    /// and did not come.
    pub fn trouble(&self) -> Option<String> {
        let mut wanted = self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        // Who asked may have gone: another worker has its partition now.
        wanted.retain(|_, one| one.asked.elapsed() < FORGOTTEN);
        let said = wanted.iter().map(|(id, Wanted { since, reason, .. })| {
            format!("waiting for schema {id} since {} s: {reason}", since.elapsed().as_secs())
        });
        let said: Vec<String> = said.collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// The schema with this id. An unknown one is asked for a few times, over about a second: the
    /// registry may be a replica that lags.
    ///
    /// # Errors
    /// [`SchemaError::Unavailable`] and [`SchemaError::Unknown`]: wait and ask again.
    /// [`SchemaError::Invalid`]: records with this id cannot be read.
    pub async fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
        if let Some(schema) = self.known(id) {
            return Ok(schema);
        }
        let found = self.fetch_patiently(id).await;
        let mut wanted = self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Ok(_) => drop(wanted.remove(&id)),
            Err(error) => {
                let (asked, reason) = (Instant::now(), error.to_string());
                let since = wanted.get(&id).map_or(asked, |one| one.since);
                wanted.insert(id, Wanted { since, asked, reason });
            }
        }
        drop(wanted);
        found
    }

    async fn fetch_patiently(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
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

    fn at(&self, path: &[&str]) -> Result<reqwest::Url, SchemaError> {
        let invalid = |reason: &str| SchemaError::Invalid(format!("{}: {reason}", self.inner.url));
        let mut url: reqwest::Url =
            self.inner.url.parse().map_err(|_| invalid("not the address of a registry"))?;
        let segments = url.path_segments_mut().map_err(|()| invalid("no paths below it"));
        segments?.pop_if_empty().extend(path);
        Ok(url)
    }

    /// Asks what the library has no call for; `None` when the subject, or the schema in it, is not
    /// there.
    async fn ask<T: DeserializeOwned>(
        &self,
        subject: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<Option<T>, SchemaError> {
        let away = |error: reqwest::Error| SchemaError::Unavailable(error.to_string());
        let mut answer = request.send().await.map_err(away)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(SchemaError::Unavailable("an answer without end".into()));
            }
        }
        if status.is_success() {
            let parsed = serde_json::from_slice(&body);
            return parsed.map(Some).map_err(|error| {
                SchemaError::Unavailable(format!("an answer that is none: {error}"))
            });
        }
        let said: Refusal = serde_json::from_slice(&body).unwrap_or_default();
        let unavailable = || SchemaError::Unavailable(format!("{status} {}", said.message));
        match said.error_code {
            40401..=40403 | 40408 => Ok(None),
            42201..=42209 | 422 => {
                Err(SchemaError::Invalid(format!("subject {subject}: {}", said.message)))
            }
            _ => Err(unavailable()),
        }
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
