//! The context of a request: trace id, access log, metrics, panics, and the answers 404 and 405.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument;
use uuid::Uuid;

use crate::metrics::HttpMetrics;
use crate::problem::{Problem, ProblemKind};

/// The answer header that names the trace.
pub const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// What is known of a request beside its content. An extractor that never fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestContext {
    /// The trace: 32 lower-case hex digits, the client's where it sent a valid `traceparent`.
    pub trace_id: String,
    /// The `traceparent` (W3C) to hand on: the same trace, this request as the parent.
    pub traceparent: String,
    /// Binds together all that follows from one cause; the trace id until one is given.
    pub correlation_id: String,
    /// Who asks.
    pub actor: String,
}

impl RequestContext {
    /// A context with a new trace, for work that no request began.
    #[must_use]
    pub fn new() -> Self {
        Self::of_trace(Uuid::new_v4().simple().to_string(), "01")
    }

    /// The context of a request: its trace where the `traceparent` is valid, else a new one.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let only = values.next().filter(|_| values.next().is_none());
        match only.and_then(|value| parse_traceparent(value.as_bytes())) {
            Some((trace_id, flags)) => Self::of_trace(trace_id.to_owned(), flags),
            None => Self::new(),
        }
    }

    fn of_trace(trace_id: String, flags: &str) -> Self {
        let span = loop {
            let (high, _) = Uuid::new_v4().as_u64_pair();
            if high != 0 {
                break high;
            }
        };
        Self {
            traceparent: format!("00-{trace_id}-{span:016x}-{flags}"),
            correlation_id: trace_id.clone(),
            trace_id,
            actor: "anonymous".to_owned(),
        }
    }

    /// Runs `work` in this context: problems made inside carry its trace id.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }
}

impl Default for RequestContext {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let known = parts.extensions.get::<Self>().cloned().or_else(current);
        Ok(known.unwrap_or_else(|| Self::from_headers(&parts.headers)))
    }
}

/// The context of the request that this task serves, if it serves one.
#[must_use]
pub fn current() -> Option<RequestContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Trace id and flags of a valid `traceparent`; all else is ignored, as W3C asks.
fn parse_traceparent(value: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let sound = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && trace.bytes().any(|b| b != b'0')
        && hex(span, 16)
        && span.bytes().any(|b| b != b'0')
        && hex(flags, 2);
    sound.then_some((trace, flags))
}

/// Gives `router` its 404 and 405 as problems and wraps all of it in the request context.
///
/// Call it last, on the complete router: what is added later has no context. Every answer then
/// carries `X-Trace-Id`, every request is logged and measured, and a panic is a 500.
pub fn with_context(router: Router, metrics: HttpMetrics) -> Router {
    with_fallbacks(router).layer(axum::middleware::from_fn_with_state(metrics, in_context))
}

/// Gives `router` its 404 and 405 (with `Allow`) as problems.
pub fn with_fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
}

async fn not_found() -> Problem {
    Problem::new(ProblemKind::NotFound).detail("no route has this path; /openapi.json lists them")
}

async fn method_not_allowed() -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed)
}

async fn in_context(
    State(metrics): State<HttpMetrics>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let context = RequestContext::from_headers(request.headers());
    request.extensions_mut().insert(context.clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let span = tracing::info_span!(
        target: "access", "request",
        trace_id = %context.trace_id, correlation_id = %context.correlation_id,
    );
    let trace_header = HeaderValue::from_str(&context.trace_id).ok();
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    let answer = context
        .scope(async move {
            match work.await {
                Ok(response) => response,
                Err(panic) => Problem::internal(&panic_text(&*panic)).into_response(),
            }
        })
        .instrument(span.clone());
    let mut response = answer.await;
    if let Some(value) = trace_header {
        response.headers_mut().insert(X_TRACE_ID, value);
    }
    let took = started.elapsed();
    let status = response.status();
    metrics.observe(&method, route, status, took);
    span.in_scope(|| {
        tracing::info!(
            target: "access",
            method = %method, path, route, status = status.as_u16(),
            duration_ms = took.as_micros() as f64 / 1_000.0, "request",
        );
    });
    response
}

/// The message of a panic, for the log.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "of unknown type".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a test header");
        HeaderMap::from_iter([(TRACEPARENT, value)])
    }

    #[test]
    fn a_valid_traceparent_is_taken_over_with_a_new_parent() {
        let context = RequestContext::from_headers(&headers(GOOD));
        assert_eq!(context.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.traceparent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert_ne!(context.traceparent, GOOD);
    }

    #[test]
    fn a_broken_traceparent_starts_a_new_trace() {
        for broken in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            let context = RequestContext::from_headers(&headers(broken));
            assert_ne!(context.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736", "{broken}");
            assert!(parse_traceparent(context.traceparent.as_bytes()).is_some());
        }
    }
}
