//! What a request says: the parts of its path, its options and its body.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::IntoResponse;
use http::request::Parts;
use http::{StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::levels::GLOBAL;
use crate::refusal::Refusal;
use crate::schema::AvroSchema;
use crate::store::{Scope, Wanted};

const MAX_SUBJECT_CHARACTERS: usize = 512;
const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.schemaregistry.v1+json",
    "application/vnd.schemaregistry+json",
    "application/json",
    // What a client sends that names no type, as Confluent's registry takes it.
    "application/octet-stream",
];

/// Path and query of a request.
#[derive(Debug)]
pub(crate) struct Target {
    path: HashMap<String, String>,
    query: HashMap<String, String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let bad = |_| Refusal::plain(StatusCode::BAD_REQUEST, "The address is not valid UTF-8");
        let Path(path) = Path::from_request_parts(parts, state).await.map_err(bad)?;
        let bad = |_| Refusal::plain(StatusCode::BAD_REQUEST, "The query cannot be read");
        let Query(query) =
            Query::<Vec<(String, String)>>::from_request_parts(parts, state).await.map_err(bad)?;
        Ok(Self { path, query: query.into_iter().collect() })
    }
}

impl Target {
    fn part(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// The subject of the path.
    pub(crate) fn subject(&self) -> Result<&str, Refusal> {
        let subject = self.part("subject");
        let fits = (1..=MAX_SUBJECT_CHARACTERS).contains(&subject.chars().count());
        if fits && !subject.chars().any(char::is_control) {
            Ok(subject)
        } else {
            Err(Refusal::invalid_subject())
        }
    }

    /// The subject of the path, or the name that stands for all of them where it has none.
    pub(crate) fn subject_or_global(&self) -> Result<&str, Refusal> {
        if self.path.contains_key("subject") { self.subject() } else { Ok(GLOBAL) }
    }

    /// The version of the path: a number from 1, `latest`, or -1 for the latest.
    pub(crate) fn version(&self) -> Result<Wanted, Refusal> {
        let text = self.part("version");
        if text == "latest" || text == "-1" {
            return Ok(Wanted::Latest);
        }
        match text.parse::<i32>() {
            Ok(number) if number >= 1 => Ok(Wanted::Number(number)),
            Ok(_) | Err(_) => Err(Refusal::invalid_version(text)),
        }
    }

    /// The schema id of the path.
    pub(crate) fn id(&self) -> Result<i32, Refusal> {
        self.part("id").parse().map_err(|_| Refusal::no_route())
    }

    /// Whether the option is `true`.
    pub(crate) fn says(&self, option: &str) -> bool {
        self.query.get(option).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Which versions count, by the options `deleted` and `deletedOnly`.
    pub(crate) fn scope(&self) -> Scope {
        match (self.says("deletedOnly"), self.says("deleted")) {
            (true, _) => Scope::DeletedOnly,
            (false, true) => Scope::All,
            (false, false) => Scope::Live,
        }
    }

    /// A number that is not negative.
    pub(crate) fn number(&self, option: &str) -> Option<i64> {
        self.query.get(option)?.parse::<i64>().ok().filter(|number| *number >= 0)
    }

    /// The part of a list that is wanted, by the options `offset` and `limit`; what is not a
    /// number, or is negative, leaves nothing out.
    pub(crate) fn part_of<T>(&self, list: Vec<T>) -> Vec<T> {
        let size = |name: &str| self.number(name).and_then(|number| usize::try_from(number).ok());
        let (offset, limit) = (size("offset").unwrap_or(0), size("limit").unwrap_or(usize::MAX));
        list.into_iter().skip(offset).take(limit).collect()
    }

    /// The prefix that subjects must have; empty for all.
    pub(crate) fn subject_prefix(&self) -> Result<&str, Refusal> {
        // ":*:" is Confluent's "in every context"; this registry has one.
        let prefix = self.query.get("subjectPrefix").map_or("", String::as_str);
        let prefix = prefix.strip_prefix(":*:").unwrap_or(prefix);
        if prefix.chars().any(char::is_control) {
            return Err(Refusal::invalid_subject());
        }
        Ok(prefix)
    }
}

/// A JSON body in one of the media types that registry clients send.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        if !is_json(&request) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refusal::plain(status, "HTTP 415 Unsupported Media Type"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Refusal::plain(StatusCode::BAD_REQUEST, format!("The body is not understood: {error}"))
        })
    }
}

fn unread(rejection: BytesRejection) -> Refusal {
    let status = rejection.into_response().status();
    let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
        "The body is larger than 1 MiB"
    } else {
        "The body could not be read to its end"
    };
    Refusal::plain(status, message)
}

fn is_json(request: &Request) -> bool {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return true;
    };
    let Ok(value) = value.to_str() else {
        return false;
    };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    MEDIA_TYPES.iter().any(|known| known.eq_ignore_ascii_case(media_type))
}

/// A schema as clients send it. Members that a client may add without asking for anything
/// (`normalize` and the like) are let pass; those that would change the answer are refused.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SchemaBody {
    schema: Option<String>,
    schema_type: Option<String>,
    references: Option<Vec<Value>>,
    metadata: Option<Value>,
    rule_set: Option<Value>,
    id: Option<i64>,
    version: Option<i64>,
}

impl SchemaBody {
    /// Whether the client wants to choose an id or a version, as an import does.
    pub(crate) fn chooses_numbers(&self) -> bool {
        self.id.is_some_and(|id| id > 0) || self.version.is_some_and(|version| version > 0)
    }

    /// The schema in it.
    pub(crate) async fn schema(self) -> Result<AvroSchema, Refusal> {
        if let Some(kind) = self.schema_type
            && !kind.is_empty()
            && kind != "AVRO"
        {
            let message = format!("type {kind} is not supported, only AVRO is");
            return Err(Refusal::invalid_schema(message));
        }
        if self.references.is_some_and(|references| !references.is_empty()) {
            return Err(Refusal::invalid_schema(
                "references to other subjects are not supported, define the types in the schema",
            ));
        }
        if self.metadata.is_some() || self.rule_set.is_some() {
            return Err(Refusal::invalid_schema("metadata and rule sets are not supported"));
        }
        let text = self.schema.filter(|text| !text.trim().is_empty());
        let Some(text) = text else {
            return Err(Refusal::invalid_schema("it is empty"));
        };
        // Reading a large schema takes long enough to hold up other requests.
        tokio::task::spawn_blocking(move || AvroSchema::parse(&text))
            .await
            .map_err(|_| Refusal::invalid_schema("the Avro parser gave up on it"))?
            .map_err(Refusal::invalid_schema)
    }
}

/// A mode as clients send it.
#[derive(Debug, Deserialize)]
pub(crate) struct ModeBody {
    pub(crate) mode: Option<String>,
}

/// A level of compatibility as clients send it.
#[derive(Debug, Deserialize)]
pub(crate) struct LevelBody {
    pub(crate) compatibility: Option<String>,
}
