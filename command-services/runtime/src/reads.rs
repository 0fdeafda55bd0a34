//! The history of a stream and its state, now or before: reads of the event store.

use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::response::Response;
use foldstream_core::{AnyAggregate, Timestamp, Undecodable};
use foldstream_postgres::{HistoryEntry, HistoryPage, StoreError, Until};
use foldstream_service::{Problem, ProblemKind};
use http::HeaderValue;
use http::header::ETAG;
use serde_json::{Value, json};

use crate::answer;
use crate::query::{Query, refuse};
use crate::request::check_path_grammar;
use crate::routes::{Routes, param, path_params};

/// How many events one page of a history holds at most.
pub(crate) const MAX_ENTRIES: u64 = 500;
const DEFAULT_ENTRIES: u64 = 100;
/// The database counts in signed numbers.
const MAX_VERSION: u64 = i64::MAX as u64;

/// `GET /v1/{aggregates}/{id}/history?from=&limit=`
pub(crate) async fn history(
    State(routes): State<Arc<Routes>>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let params = path_params(params)?;
    let id = param(&params, "id");
    check_path_grammar(id)?;
    let query = Query::read(request.uri().query(), &["from", "limit"])?;
    let from = query.number("from", MAX_VERSION)?.unwrap_or(1);
    let limit = query.number("limit", MAX_ENTRIES)?.unwrap_or(DEFAULT_ENTRIES);
    let stream = routes.stream(id);
    let asked = routes.store.history_page(&stream, from, u32::try_from(limit).unwrap_or(u32::MAX));
    let HistoryPage { entries, has_more } = in_time(&routes, asked).await?;
    if entries.is_empty() && (from == 1 || !exists(&routes, id).await?) {
        return Err(no_stream(&routes, id));
    }
    // Large events make a page shorter than asked.
    let next = entries.last().filter(|_| has_more).map(|last| last.record.version + 1);
    let next = next.map(|version| version.to_string());
    let prev = (from > 1).then(|| from.saturating_sub(limit).max(1).to_string());
    let aggregate = routes.registered.aggregate.as_ref();
    let data = entries.iter().map(|entry| history_json(aggregate, entry));
    let data = data.collect::<Result<Vec<_>, _>>().map_err(|error| Problem::internal(&error))?;
    let page = json!({"next": next, "prev": prev, "has_more": has_more});
    Ok(answer::json(json!({"data": data, "page": page}).to_string().into_bytes()))
}

/// `GET /v1/{aggregates}/{id}/state?version=` or `?as_of=`
pub(crate) async fn state(
    State(routes): State<Arc<Routes>>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let params = path_params(params)?;
    let id = param(&params, "id");
    check_path_grammar(id)?;
    let until = until(&Query::read(request.uri().query(), &["version", "as_of"])?)?;
    let stream = routes.stream(id);
    let found = in_time(&routes, routes.store.state(&stream, until)).await?;
    let Some((version, state)) = found else {
        return Err(match until {
            Until::Latest | Until::Version(_) => no_stream(&routes, id),
            Until::Instant(time) => Problem::new(ProblemKind::NotFound)
                .detail(format!("{} had no events at {time}", shown_stream(&routes, id))),
        });
    };
    if let Until::Version(asked) = until
        && version < asked
    {
        let stream = shown_stream(&routes, id);
        return Err(Problem::new(ProblemKind::NotFound)
            .detail(format!("{stream} is at version {version} only"))
            .member("current_version", version));
    }
    let state = routes.registered.aggregate.state_json(&state);
    let body = json!({"stream": shown_stream(&routes, id), "version": version, "state": state});
    let mut response = answer::json(body.to_string().into_bytes());
    let tag = HeaderValue::try_from(format!("\"{version}\""));
    response.headers_mut().insert(ETAG, tag.map_err(|error| Problem::internal(&error))?);
    Ok(response)
}

/// Whether a stream has events.
///
/// # Errors
/// When the event store does not answer.
pub(crate) async fn exists(routes: &Routes, id: &str) -> Result<bool, Problem> {
    let stream = routes.stream(id);
    Ok(!in_time(routes, routes.store.history(&stream, 1, 1)).await?.is_empty())
}

/// A read within the deadline; texts from inside go to the log only.
async fn in_time<T>(
    routes: &Routes,
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(routes.options.deadline, read).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error @ StoreError::Unavailable(_))) => {
            tracing::warn!(%error, "a stream could not be read");
            Err(Problem::new(ProblemKind::Unavailable))
        }
        Ok(Err(error)) => Err(Problem::internal(&error)),
        Err(_) => Err(Problem::new(ProblemKind::Unavailable)),
    }
}

fn until(query: &Query) -> Result<Until, Problem> {
    let version = query.number("version", MAX_VERSION)?;
    match (version, query.text("as_of")) {
        (Some(_), Some(_)) => {
            Err(refuse("as_of", "not-together", "ask for a version or for an instant, not both"))
        }
        (Some(version), None) => Ok(Until::Version(version)),
        (None, Some(text)) => text
            .parse::<Timestamp>()
            .map(Until::Instant)
            .map_err(|invalid| refuse("as_of", invalid.code, &invalid.detail)),
        (None, None) => Ok(Until::Latest),
    }
}

fn shown_stream(routes: &Routes, id: &str) -> String {
    format!("{}/{id}", routes.registered.name())
}

fn no_stream(routes: &Routes, id: &str) -> Problem {
    let stream = shown_stream(routes, id);
    Problem::new(ProblemKind::NotFound).detail(format!("{stream} has no events"))
}

/// An event for people: what happened, who, why and when.
///
/// # Errors
/// When the record is not an event of this aggregate.
pub fn history_json(
    aggregate: &dyn AnyAggregate,
    entry: &HistoryEntry,
) -> Result<Value, Undecodable> {
    let (record, metadata) = (&entry.record, &entry.metadata);
    let mut shown = json!({
        "version": record.version,
        "type": record.writer.event_name(),
        "time": record.recorded_at.to_string(),
        "actor": metadata.actor,
        "causation": metadata.causation_id,
        "correlation": metadata.correlation_id,
        "data": aggregate.event_json(record)?,
        "id": record.event_id,
        "position": record.position,
    });
    if let Some(traceparent) = metadata.traceparent.as_deref() {
        shown["traceparent"] = traceparent.into();
        if let Some(trace_id) = traceparent.split('-').nth(1) {
            shown["trace_id"] = trace_id.into();
        }
    }
    Ok(shown)
}
