//! `/openapi.json` and `/docs`, a page of our own that loads nothing from elsewhere.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use uuid::Uuid;

use crate::problem::Problem;

const PAGE: &str = include_str!("page.html");
/// Stands in the page where the nonce of an answer belongs.
const NONCE: &str = "{{nonce}}";

/// Serves `document` as `/openapi.json` and the page that shows it and lets people try the
/// operations as `/docs`.
pub fn docs_router(document: &Value) -> Router {
    let json = Bytes::from(document.to_string());
    Router::new()
        .route("/openapi.json", get(move || async move { openapi(json) }))
        .route("/docs", get(docs))
}

fn openapi(json: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, json).into_response()
}

async fn docs() -> Result<Response, Problem> {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy).map_err(|error| Problem::internal(&error))?;
    let headers = HeaderMap::from_iter([
        (CONTENT_SECURITY_POLICY, policy),
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]);
    Ok((headers, PAGE.replace(NONCE, &nonce)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_has_no_way_to_inject_markup() {
        for word in ["http://", "https://", "src=", "@import", "innerHTML", "eval(", "style="] {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert_eq!(PAGE.matches(NONCE).count(), 2);
    }
}
