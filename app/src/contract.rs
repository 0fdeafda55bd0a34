//! The OpenAPI document, from what is registered.

use crate::{App, Failure};
use axum::Router;
use foldstream_service::openapi::{Document, docs_router};
use foldstream_service::problem::problems_router;

fn whole(app: &App, parts: impl IntoIterator<Item = Document>) -> Result<Document, Failure> {
    let title = format!("{} API", app.name);
    let description = "Commands change aggregates; queries read the read models that follow from \
                       them. Money is a decimal string, instants are RFC 3339 in UTC, errors are \
                       RFC 9457 problems.";
    let mut document = Document::new(title, env!("CARGO_PKG_VERSION"), description);
    for part in parts {
        document.merge(part).map_err(Failure::failed)?;
    }
    Ok(document)
}

pub(crate) fn commands(app: &App) -> Result<Document, Failure> {
    let part = foldstream_commands::openapi(&app.services).map_err(Failure::failed)?;
    whole(app, [part])
}
pub(crate) fn queries(app: &App) -> Result<Document, Failure> {
    let part = foldstream_queries::openapi(&app.read_models).map_err(Failure::failed)?;
    whole(app, [part])
}
pub(crate) fn all(app: &App) -> Result<Document, Failure> {
    let commands = foldstream_commands::openapi(&app.services).map_err(Failure::failed)?;
    let queries = foldstream_queries::openapi(&app.read_models).map_err(Failure::failed)?;
    whole(app, [commands, queries])
}

/// `/openapi.json`, `/docs` and `/problems`.
pub(crate) fn router(document: Document) -> Router {
    docs_router(&document.into_json()).merge(problems_router())
}
