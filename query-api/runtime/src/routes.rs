//! The routes of one read model.

use crate::cursor::{BadCursor, Cursors, Of};
use crate::list_query::{self, ListQuery};
use crate::model::{Asked, Model};
use crate::page::{ListBody, RowJson};
use crate::preferences::{Preferences, accepts_json, has_seen, token};
use crate::query_string::{pairs, segment};
use crate::serving::Serving;
use crate::{filter, freshness};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use foldstream_core::{ColumnDef, Table, Value};
use foldstream_service::{FieldError, Problem, ProblemKind};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::SystemTime;

/// What the handlers of one read model know.
#[derive(Clone)]
pub(crate) struct ModelRoutes {
    pub(crate) model: Arc<Model>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) cursors: Cursors,
}

/// Where the list of a read model lies.
pub(crate) fn list_path(table: &Table) -> String {
    format!("/v1/{}", table.name)
}

/// Where its rows lie: one segment per key column. The first is named `id` as in the routes of
/// commands, beside which these stand in one router.
pub(crate) fn key_path(table: &'static Table) -> String {
    let names = (0..).zip(table.keys()).map(|(i, key)| key_parameter(i, key));
    names.fold(list_path(table), |path, name| format!("{path}/{{{name}}}"))
}

/// The name of the n-th key's segment.
pub(crate) fn key_parameter(place: usize, key: &ColumnDef) -> &'static str {
    if place == 0 { "id" } else { key.name }
}

impl ModelRoutes {
    pub(crate) fn router(self) -> Router {
        let table = self.model.table;
        Router::new()
            .route(&list_path(table), get(list))
            .route(&key_path(table), get(one))
            .with_state(self)
    }

    async fn list(&self, uri: &Uri, headers: &HeaderMap) -> Result<Response, Problem> {
        accepts_json(headers)?;
        let preferences = Preferences::of(headers)?;
        let token = token(headers)?;
        let table = self.model.table;
        let query = ListQuery::parse(table, uri.query().unwrap_or_default()).map_err(bad_query)?;
        let of = Of { table, order: &query.order, fingerprint: &query.fingerprint };
        let now = unix_seconds();
        let cursor = query.cursor.as_deref().map(|text| self.cursors.decode(of, text, now));
        let cursor = cursor.transpose().map_err(bad_cursor)?;
        let (query, count) = (query.clone(), preferences.count);
        let asked = Asked::List { query, cursor, count };
        let reading = self.serving.read(&self.model, &asked, &token, preferences).await?;
        let Asked::List { query, cursor, .. } = &asked else {
            return Err(Problem::internal(&"a list is asked as one"));
        };
        let body = ListBody::new(of, &self.cursors, query, cursor.as_ref(), &reading, now)
            .map_err(|error| Problem::internal(&error))?;
        let links: Vec<String> = body
            .links()
            .map(|(relation, cursor)| {
                let path = list_path(table);
                format!("<{path}?{}cursor={cursor}>; rel=\"{relation}\"", query.link)
            })
            .collect();
        let mut fresh = freshness::headers(&reading.snapshot, &token);
        if let Some(link) = HeaderValue::from_str(&links.join(", ")).ok().filter(|l| !l.is_empty())
        {
            fresh.push((LINK, link));
        }
        if count {
            let applied = HeaderName::from_static("preference-applied");
            fresh.push((applied, HeaderValue::from_static("count=exact")));
        }
        answer(headers, &body, fresh)
    }

    async fn one(&self, uri: &Uri, headers: &HeaderMap) -> Result<Response, Problem> {
        accepts_json(headers)?;
        let preferences = Preferences::of(headers)?;
        let token = token(headers)?;
        let table = self.model.table;
        let select = select(table, uri.query().unwrap_or_default()).map_err(bad_query)?;
        let asked = Asked::Get { select: select.clone(), key: key(table, uri.path())? };
        let reading = self.serving.read(&self.model, &asked, &token, preferences).await?;
        let fresh = freshness::headers(&reading.snapshot, &token);
        let Some(row) = reading.rows.first() else {
            let detail = format!("{} has no row of this key", table.name);
            let problem = Problem::new(ProblemKind::NotFound).detail(detail);
            return Err(fresh.into_iter().fold(problem, |p, (name, value)| p.header(name, value)));
        };
        answer(headers, &RowJson { row, columns: &select }, fresh)
    }
}

async fn list(State(routes): State<ModelRoutes>, uri: Uri, headers: HeaderMap) -> Response {
    routes.list(&uri, &headers).await.unwrap_or_else(IntoResponse::into_response)
}

async fn one(State(routes): State<ModelRoutes>, uri: Uri, headers: HeaderMap) -> Response {
    routes.one(&uri, &headers).await.unwrap_or_else(IntoResponse::into_response)
}

/// A body as JSON with its `ETag`, or 304 where the client has it.
fn answer<T: Serialize>(
    asked: &HeaderMap,
    body: &T,
    fresh: Vec<(HeaderName, HeaderValue)>,
) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
    let hash = Sha256::digest(&bytes);
    let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    // Weak: the same rows, whatever content coding they travel in.
    let etag = format!("W/\"{hex}\"");
    let seen = has_seen(asked, &etag);
    let mut response = match seen {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => bytes.into_response(),
    };
    let headers = response.headers_mut();
    headers.extend(fresh);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Prefer"));
    if !seen {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

/// The columns of a row that is asked for by key; it takes no other parameter.
fn select(table: &'static Table, raw: &str) -> Result<Vec<&'static ColumnDef>, Vec<FieldError>> {
    let pairs = pairs(raw).map_err(|error| vec![error])?;
    let mut errors: Vec<FieldError> = Vec::new();
    let others = pairs.iter().filter(|(name, _)| name != "select");
    errors.extend(others.map(|(name, _)| {
        let detail = "there is no such parameter here; allowed: select";
        FieldError::new(crate::query_string::echo(name), "unknown-parameter", detail)
    }));
    let mut given = pairs.iter().filter(|(name, _)| name == "select");
    let first = given.next().map(|(_, value)| value.as_str());
    if given.next().is_some() {
        let detail = "the parameter is given more than once";
        errors.push(FieldError::new("select", "duplicate", detail));
    }
    match list_query::select(table, first) {
        Ok(columns) if errors.is_empty() => Ok(columns),
        Ok(_) => Err(errors),
        Err(error) => Err(errors.into_iter().chain([error]).collect()),
    }
}

/// The key in the last segments of the path, which the router counted.
fn key(table: &'static Table, path: &str) -> Result<Vec<Value<'static>>, Problem> {
    let count = table.keys().count();
    let mut segments: Vec<&str> = path.rsplit('/').take(count).collect();
    segments.reverse();
    let value = |(raw, column): (&str, &'static ColumnDef)| {
        let text = segment(raw, column.name)?;
        filter::value(column, &text, false)
    };
    let values = segments.into_iter().zip(table.keys()).map(value).collect::<Result<_, _>>();
    values.map_err(|error| Problem::new(ProblemKind::InvalidPath).error(error))
}

fn bad_query(errors: Vec<FieldError>) -> Problem {
    Problem::new(ProblemKind::InvalidQuery).errors(errors)
}

fn bad_cursor(fault: BadCursor) -> Problem {
    let (kind, code) = match fault {
        BadCursor::Forged => (ProblemKind::CursorInvalid, "forged"),
        BadCursor::OtherQuery => (ProblemKind::CursorInvalid, "other-query"),
        BadCursor::Expired => (ProblemKind::CursorExpired, "expired"),
        BadCursor::OtherVersion => (ProblemKind::CursorExpired, "other-version"),
    };
    Problem::new(kind).error(FieldError::new("cursor", code, fault.to_string()))
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}
