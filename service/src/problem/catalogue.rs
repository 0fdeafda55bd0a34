//! The catalogue for readers: what stands behind a problem's `type`.

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Problem, ProblemKind};

/// Serves `/problems` and `/problems/{code}`, the addresses that the `type` of a problem names.
pub fn problems_router() -> Router {
    Router::new().route("/problems", get(all)).route("/problems/{code}", get(one))
}

async fn all() -> Json<Value> {
    Json(json!({"data": ProblemKind::ALL.iter().map(|kind| entry(*kind)).collect::<Vec<_>>()}))
}

async fn one(Path(code): Path<String>) -> Result<Json<Value>, Problem> {
    let kind = ProblemKind::ALL.iter().find(|kind| kind.code() == code);
    let unknown = || {
        Problem::new(ProblemKind::NotFound)
            .detail("not in the catalogue; aggregates describe their own codes in /openapi.json")
    };
    kind.map(|kind| Json(entry(*kind))).ok_or_else(unknown)
}

fn entry(kind: ProblemKind) -> Value {
    json!({
        "type": kind.type_path(), "code": kind.code(), "status": kind.status().as_u16(),
        "title": kind.title(), "doc": kind.doc(),
    })
}

/// The catalogue as a table for the documentation.
#[must_use]
pub fn catalogue_markdown() -> String {
    let head = "| Status | Code | Title | When |\n|---|---|---|---|\n".to_owned();
    ProblemKind::ALL.iter().fold(head, |table, kind| {
        let (status, code) = (kind.status().as_u16(), kind.code());
        table + &format!("| {status} | `{code}` | {} | {} |\n", kind.title(), kind.doc())
    })
}
