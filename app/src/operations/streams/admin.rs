//! The admin routes of streams: reads of the event stores that this process has open.

use super::tail;
use crate::cli::{PREFIX, is_prefix};
use crate::process::Process;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use foldstream_commands::{Service, history_json};
use foldstream_core::{AnyAggregate, StreamRef, Timestamp, check_stream_id};
use foldstream_postgres::{EventStore, HistoryPage, StoreError, Until};
use foldstream_service::{FieldError, Problem, ProblemKind};
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// No answer takes longer; a state of very many events may have to be folded from all of them.
const DEADLINE: Duration = Duration::from_secs(20);
/// Entries of one page.
const MOST: u32 = 500;

/// All of them.
pub(crate) fn routes(process: &Arc<Process>) -> Router {
    Router::new()
        .route("/admin/streams", get(list))
        .route("/admin/streams/tail", get(tail::route))
        .route("/admin/streams/{aggregate}/{id}", get(history))
        .route("/admin/streams/{aggregate}/{id}/state", get(state))
        .with_state(process.clone())
}

/// An aggregate of this application, with the store that holds its streams.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) aggregate: Arc<dyn AnyAggregate>,
    pub(super) store: EventStore,
    pub(super) topic: String,
}

impl Held {
    pub(super) fn stream(&self, id: &str) -> StreamRef {
        StreamRef::new(self.topic.clone(), id)
    }
    pub(super) fn shown(&self, id: &str) -> String {
        format!("{}/{id}", self.aggregate.name())
    }
}

/// The aggregates whose stores are open here, by name.
pub(super) async fn all_held(process: &Process) -> Result<Vec<Held>, Problem> {
    let stores = process.stores.all().await;
    let of = |service: &Service| {
        let store = stores.iter().find(|(name, _)| *name == service.name());
        let store = store.map(|(_, store)| store.clone());
        let aggregates = service.aggregates().into_iter();
        aggregates.filter_map(move |aggregate| {
            let store = store.clone()?;
            let topic = store.stream(aggregate.name(), "")?.topic;
            Some(Held { aggregate, store, topic })
        })
    };
    let mut held: Vec<Held> = process.app.services.iter().flat_map(of).collect();
    held.sort_by_key(|held| held.aggregate.name());
    if held.is_empty() {
        let detail =
            "this process has no event store open; ask one with the role commands or relay";
        return Err(Problem::new(ProblemKind::Unavailable).detail(detail));
    }
    Ok(held)
}

/// The aggregate of this name.
pub(super) async fn held(process: &Process, name: &str) -> Result<Held, Problem> {
    let all = all_held(process).await?;
    let names: Vec<&str> = all.iter().map(|held| held.aggregate.name()).collect();
    let unknown = format!("there is no aggregate `{name}`; there are: {}", names.join(", "));
    let found = all.into_iter().find(|held| held.aggregate.name() == name);
    found.ok_or_else(|| Problem::new(ProblemKind::NotFound).detail(unknown))
}

/// The parameters of a query; what is wrong with them is said as a problem.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        match read {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(rejection) => {
                Err(Problem::new(ProblemKind::InvalidQuery).detail(rejection.body_text()))
            }
        }
    }
}

/// A parameter breaks its rule.
pub(super) fn refuse(name: &'static str, rule: &str) -> Problem {
    Problem::new(ProblemKind::InvalidQuery)
        .detail(format!("{name}: {rule}"))
        .error(FieldError::new(name, "invalid-parameter", rule))
}

fn limited(limit: Option<u32>, usual: u32) -> Result<u32, Problem> {
    match limit.unwrap_or(usual) {
        limit if (1..=MOST).contains(&limit) => Ok(limit),
        _ => Err(refuse("limit", &format!("a number from 1 to {MOST}"))),
    }
}

/// Texts from inside go to the log only.
pub(super) fn away(error: &StoreError) -> Problem {
    if matches!(error, StoreError::Unavailable(_)) {
        tracing::warn!(%error, "an event store cannot be asked");
        return Problem::new(ProblemKind::Unavailable);
    }
    Problem::internal(error)
}

async fn in_time<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Problem> {
    match timeout(DEADLINE, read).await {
        Ok(answer) => answer.map_err(|error| away(&error)),
        Err(_) => Err(Problem::new(ProblemKind::Unavailable).detail("it took too long")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    aggregate: Option<String>,
    prefix: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /admin/streams?aggregate=&prefix=&limit=&after=`
async fn list(
    State(process): State<Arc<Process>>,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Value>, Problem> {
    let limit = limited(query.limit, 50)?;
    let prefix = query.prefix.unwrap_or_default();
    if !is_prefix(&prefix) {
        return Err(refuse("prefix", PREFIX));
    }
    let (after_aggregate, after_id) = match &query.after {
        Some(after) => after
            .split_once('/')
            .filter(|(_, id)| check_stream_id(id).is_ok())
            .ok_or_else(|| refuse("after", "a stream, such as invoices/536365"))?,
        None => ("", ""),
    };
    let aggregates = match &query.aggregate {
        Some(name) => vec![held(&process, name).await?],
        None => all_held(&process).await?,
    };
    let mut found = Vec::new();
    // One more than asked tells whether there are more.
    for held in aggregates.iter().filter(|held| held.aggregate.name() >= after_aggregate) {
        let after = if held.aggregate.name() == after_aggregate { after_id } else { "" };
        let room = limit + 1 - u32::try_from(found.len()).unwrap_or(limit);
        let streams = in_time(held.store.streams(&held.topic, &prefix, after, room)).await?;
        found.extend(streams.into_iter().map(|stream| {
            json!({
                "stream": held.shown(&stream.stream_id),
                "version": stream.version,
                "last_type": stream.last_type,
                "last_at": stream.last_at.to_string(),
            })
        }));
        if found.len() > limit as usize {
            break;
        }
    }
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|last| last["stream"].clone());
    let page = json!({"next": next, "prev": null, "has_more": has_more});
    Ok(Json(json!({"data": found, "page": page})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    from: Option<u64>,
    limit: Option<u32>,
}

/// Whose stream, and that it could be one.
async fn named(process: &Process, aggregate: &str, id: &str) -> Result<Held, Problem> {
    let held = held(process, aggregate).await?;
    check_stream_id(id)
        .map_err(|invalid| Problem::new(ProblemKind::InvalidPath).detail(invalid.detail))?;
    Ok(held)
}

/// `GET /admin/streams/{aggregate}/{id}?from=&limit=`
async fn history(
    State(process): State<Arc<Process>>,
    Path((aggregate, id)): Path<(String, String)>,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Json<Value>, Problem> {
    let held = named(&process, &aggregate, &id).await?;
    let (from, limit) = (query.from.unwrap_or(1), limited(query.limit, 100)?);
    if from == 0 {
        return Err(refuse("from", "versions begin at 1"));
    }
    let stream = held.stream(&id);
    let asked = held.store.history_page(&stream, from, limit);
    let HistoryPage { entries, has_more } = in_time(asked).await?;
    if entries.is_empty() && last_version(&held, &id).await?.is_none() {
        return Err(no_stream(&held, &id));
    }
    let next = entries.last().filter(|_| has_more).map(|last| last.record.version + 1);
    let aggregate = held.aggregate.as_ref();
    let data = entries.iter().map(|entry| history_json(aggregate, entry));
    let data = data.collect::<Result<Vec<_>, _>>().map_err(|error| Problem::internal(&error))?;
    let prev = (from > 1).then(|| from.saturating_sub(u64::from(limit)).max(1).to_string());
    let next = next.map(|version| version.to_string());
    let page = json!({"next": next, "prev": prev, "has_more": has_more});
    Ok(Json(json!({"stream": held.shown(&id), "data": data, "page": page})))
}

/// The last version of a stream; `None` when it has no events.
pub(super) async fn last_version(held: &Held, id: &str) -> Result<Option<u64>, Problem> {
    // An id comes before all others that begin with it.
    let found = in_time(held.store.streams(&held.topic, id, "", 1)).await?;
    Ok(found.into_iter().next().filter(|stream| stream.stream_id == id).map(|s| s.version))
}

pub(super) fn no_stream(held: &Held, id: &str) -> Problem {
    let detail = format!("{} has no events", held.shown(id));
    Problem::new(ProblemKind::NotFound).detail(detail)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateQuery {
    version: Option<u64>,
    as_of: Option<String>,
}

/// `GET /admin/streams/{aggregate}/{id}/state?version=` or `?as_of=`
async fn state(
    State(process): State<Arc<Process>>,
    Path((aggregate, id)): Path<(String, String)>,
    Asked(query): Asked<StateQuery>,
) -> Result<Json<Value>, Problem> {
    let held = named(&process, &aggregate, &id).await?;
    let until = match (query.version, query.as_of) {
        (Some(_), Some(_)) => return Err(refuse("as_of", "a version or an instant, not both")),
        (Some(0), None) => return Err(refuse("version", "versions begin at 1")),
        (Some(version), None) => Until::Version(version),
        (None, Some(text)) => {
            let instant = text.parse::<Timestamp>();
            Until::Instant(instant.map_err(|invalid| refuse("as_of", &invalid.detail))?)
        }
        (None, None) => Until::Latest,
    };
    let stream = held.stream(&id);
    let Some((version, state)) = in_time(held.store.state(&stream, until)).await? else {
        return Err(match until {
            Until::Latest | Until::Version(_) => no_stream(&held, &id),
            Until::Instant(time) => Problem::new(ProblemKind::NotFound)
                .detail(format!("{} had no events at {time}", held.shown(&id))),
        });
    };
    if let Until::Version(asked) = until
        && version < asked
    {
        let detail = format!("{} is at version {version} only", held.shown(&id));
        return Err(Problem::new(ProblemKind::NotFound).detail(detail));
    }
    let state = held.aggregate.state_json(&state);
    Ok(Json(json!({"stream": held.shown(&id), "version": version, "state": state})))
}
