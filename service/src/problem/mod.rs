//! Refusals as RFC 9457 problem details (`application/problem+json`).

mod catalogue;
mod kind;

pub use catalogue::{catalogue_markdown, problems_router};
pub use kind::ProblemKind;

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of every refusal.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One fault of a request: where, which rule, and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body, or the name of a header, query or path parameter.
    pub pointer: String,
    /// Stable code of the rule, in kebab-case.
    pub code: Cow<'static, str>,
    /// What is wrong, for people.
    pub detail: String,
}

impl FieldError {
    /// A fault at `pointer`.
    pub fn new(
        pointer: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        Self { pointer: pointer.into(), code: code.into(), detail: detail.into() }
    }
}

/// A refusal. Turns into a response; inside a request the trace id is added by itself.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: Option<ProblemKind>,
    status: StatusCode,
    code: Cow<'static, str>,
    title: Cow<'static, str>,
    detail: Option<String>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem of the catalogue. Every 503, and a key in progress, asks to come back later.
    #[must_use]
    pub fn new(kind: ProblemKind) -> Self {
        let problem = Self(Box::new(Parts {
            kind: Some(kind),
            status: kind.status(),
            code: Cow::Borrowed(kind.code()),
            title: Cow::Borrowed(kind.title()),
            detail: None,
            errors: Vec::new(),
            members: Map::new(),
            headers: HeaderMap::new(),
        }));
        match kind.retry_after() {
            Some(after) => problem.retry_after(after),
            None => problem,
        }
    }

    /// A refusal by the domain's own rules: 409 where the present state refuses, 422 where the
    /// request can never succeed. `code` is kebab-case and stable.
    #[must_use]
    pub fn domain(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        let code = code.into();
        let title = Cow::Owned(sentence(&code));
        Self(Box::new(Parts {
            kind: None,
            status,
            code,
            title,
            detail: Some(detail.into()),
            errors: Vec::new(),
            members: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// A bug or an unforeseen fault: `cause` goes to the log, never to the client.
    #[must_use]
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(cause = %cause, "a request failed inside");
        Self::new(ProblemKind::Internal)
    }

    /// A body that can never succeed (422), with its faults.
    #[must_use]
    pub fn invalid_body(errors: Vec<FieldError>) -> Self {
        Self::new(ProblemKind::InvalidBody).errors(errors)
    }

    /// Adds a sentence for a person. No internal text: it leaves the process.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds one fault.
    #[must_use]
    pub fn error(mut self, error: FieldError) -> Self {
        self.0.errors.push(error);
        self
    }

    /// Adds faults.
    #[must_use]
    pub fn errors(mut self, errors: impl IntoIterator<Item = FieldError>) -> Self {
        self.0.errors.extend(errors);
        self
    }

    /// Adds an extension member such as `current_version`. The standard members stay as they are.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        const STANDARD: [&str; 7] =
            ["type", "title", "status", "detail", "code", "trace_id", "errors"];
        debug_assert!(!STANDARD.contains(&name), "{name} is a standard member");
        if !STANDARD.contains(&name) {
            self.0.members.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Sets `Retry-After`, in whole seconds, rounded up, at least one.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Sets a response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The kind, unless it is one of the domain's own.
    #[must_use]
    pub fn kind(&self) -> Option<ProblemKind> {
        self.0.kind
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The sentence for a person, if there is one.
    #[must_use]
    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The faults.
    #[must_use]
    pub fn field_errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The headers set on it.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// A sentence for a person: the one that was set, else the first fault, else what the kind
    /// of problem means.
    fn detail_or_meaning(&self) -> Cow<'_, str> {
        let parts = &*self.0;
        match (&parts.detail, parts.errors.as_slice()) {
            (Some(detail), _) => Cow::Borrowed(detail),
            (None, [first, rest @ ..]) => {
                let place = if first.pointer.is_empty() { "the body" } else { &first.pointer };
                let more = match rest.len() {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                Cow::Owned(format!("{place}: {}{more}", first.detail))
            }
            (None, []) => Cow::Borrowed(match parts.kind {
                Some(kind) => kind.doc(),
                None => &parts.title,
            }),
        }
    }

    /// The body as JSON, with `trace_id` where one is given.
    #[must_use]
    pub fn to_json(&self, trace_id: Option<&str>) -> Value {
        let parts = &*self.0;
        let mut body = Map::new();
        body.insert("type".into(), format!("/problems/{}", parts.code).into());
        body.insert("title".into(), parts.title.as_ref().into());
        body.insert("status".into(), parts.status.as_u16().into());
        body.insert("detail".into(), self.detail_or_meaning().into());
        body.insert("code".into(), parts.code.as_ref().into());
        if let Some(trace_id) = trace_id {
            body.insert("trace_id".into(), trace_id.into());
        }
        if !parts.errors.is_empty() {
            let errors = parts.errors.iter().map(|error| {
                serde_json::json!({
                    "pointer": error.pointer, "code": error.code, "detail": error.detail,
                })
            });
            body.insert("errors".into(), Value::Array(errors.collect()));
        }
        body.extend(parts.members.clone());
        Value::Object(body)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0.status.as_u16(), self.0.code)?;
        match &self.0.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let trace_id = crate::context::current().map(|context| context.trace_id);
        let body = self.to_json(trace_id.as_deref()).to_string();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        for (name, value) in &self.0.headers {
            headers.insert(name, value.clone());
        }
        response
    }
}

/// `invoice-exists` to `Invoice exists`.
fn sentence(code: &str) -> String {
    let mut text = code.replace('-', " ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

#[cfg(test)]
mod tests;
