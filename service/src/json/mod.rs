//! Request bodies as strict JSON, and decoding them with pointers to what is wrong.
//!
//! Two steps: [`read_json`] gives a [`Value`] or refuses what is not strict JSON (400, 413, 415)
//! or holds control characters (422); [`decode`] turns the value into a type or says where it
//! does not fit (422). Between them the value can be hashed.

mod decode;
mod parse;

pub use decode::decode;
pub use parse::parse;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::problem::{FieldError, Problem, ProblemKind};
use crate::server::BodyDeadlinePassed;

/// The longest body that a route takes unless it says otherwise: 256 KiB.
pub const DEFAULT_BODY_LIMIT: usize = 256 * 1024;

/// A body read by [`read_json`] with the limit of [`DEFAULT_BODY_LIMIT`], or with the
/// [`BodyLimit`] in the request's extensions.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonBody(pub Value);

/// The longest body in bytes that the routes under it take:
/// `router.layer(axum::Extension(BodyLimit(1 << 20)))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit(pub usize);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let limit = request.extensions().get::<BodyLimit>();
        let limit = limit.map_or(DEFAULT_BODY_LIMIT, |limit| limit.0);
        let (parts, body) = request.into_parts();
        read_json(&parts.headers, body, limit).await.map(Self)
    }
}

/// Reads a body of at most `limit` bytes as strict JSON.
///
/// # Errors
/// - 415: not `application/json` or `…+json`, a charset other than UTF-8, a content coding;
/// - 413: longer than `limit`, at once where the length is declared;
/// - 408: not complete before the server's deadline;
/// - 400: not JSON, a byte order mark, bytes that are not UTF-8, lone surrogates, numbers out of
///   range, a member given twice, more than 32 levels, anything after the value;
/// - 422: control characters in a string.
pub async fn read_json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Value, Problem> {
    check_media_type(headers)?;
    if let Some(length) = declared_length(headers)?
        && length > limit as u64
    {
        return Err(too_large(limit));
    }
    let bytes = read_limited(body, limit).await?;
    parse(&bytes)
}

async fn read_limited(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken_body(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + parts.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        // Nearly all bodies come in one frame: those are not copied.
        if whole.is_empty() && parts.is_empty() {
            whole = data;
        } else {
            parts.extend_from_slice(&whole);
            whole = Bytes::new();
            parts.extend_from_slice(&data);
        }
    }
    Ok(if parts.is_empty() { whole } else { parts.freeze() })
}

fn too_large(limit: usize) -> Problem {
    Problem::new(ProblemKind::BodyTooLarge)
        .detail(format!("the body may have at most {limit} bytes"))
        .member("limit_bytes", limit)
}

fn broken_body(error: &axum::Error) -> Problem {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(next) = cause {
        if next.is::<BodyDeadlinePassed>() {
            return Problem::new(ProblemKind::RequestTimeout);
        }
        cause = next.source();
    }
    Problem::new(ProblemKind::BadRequest).detail("the body broke off before its end")
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| invalid_header(&CONTENT_LENGTH, "it is not a number of bytes"))
}

/// A header that cannot be read (400).
pub(crate) fn invalid_header(name: &HeaderName, detail: &str) -> Problem {
    Problem::new(ProblemKind::InvalidHeader)
        .detail(format!("{name}: {detail}"))
        .error(FieldError::new(name.as_str(), "invalid-header", detail))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: &str| {
        Err(Problem::new(ProblemKind::UnsupportedMediaType).detail(detail.to_owned()))
    };
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    if !codings.all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return refuse("send the body without Content-Encoding");
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else {
        return refuse("send one Content-Type: application/json");
    };
    let Ok(text) = value.to_str() else { return refuse("Content-Type is not readable") };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || essence
            .strip_prefix("application/")
            .is_some_and(|subtype| subtype.len() > "+json".len() && subtype.ends_with("+json"));
    if !is_json {
        return refuse("the Content-Type must be application/json");
    }
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim_matches('"');
        if name.eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
            return refuse("the charset must be utf-8");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
