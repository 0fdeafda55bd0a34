//! How answers look on the wire.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, body: &Value) -> Response {
    text(status, body.to_string())
}

/// An answer whose body is JSON text already, as the text of a schema is.
pub(crate) fn text(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

/// 200 with a JSON body.
pub(crate) fn ok(body: &Value) -> Response {
    json(StatusCode::OK, body)
}
