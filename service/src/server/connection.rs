//! One connection: requests in, answers out, and a watch over its deadlines.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::body::{Guarded, Timely};
use super::stream::{Phase, Pulse, Watched};
use super::{Draining, Limits, Open, guard};
use crate::context::{RequestContext, X_TRACE_ID};

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) draining: CancellationToken,
    pub(super) cut: CancellationToken,
}

/// Serves one connection until it ends, a deadline passes or the server is cut.
pub(super) async fn serve(socket: TcpStream, shared: Arc<Shared>, open: Open) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let pulse = Pulse::new();
    let io = TokioIo::new(Watched::new(socket, pulse.clone()));
    let service = service_fn(|request| {
        pulse.enter(Phase::Busy);
        answer(request, Arc::clone(&shared), pulse.clone())
    });
    let limits = &shared.limits;
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // The watch below keeps this deadline, apart from the one for idle connections.
        .header_read_timeout(None)
        .max_buf_size(limits.max_header_bytes.max(8_192))
        .max_headers(limits.max_headers)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut draining = false;
    loop {
        let checked = tokio::time::sleep_until(next_check(&pulse, limits));
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                break;
            }
            () = shared.cut.cancelled() => break,
            () = shared.draining.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = checked => {
                if let Some(overdue) = overdue(&pulse, limits) {
                    tracing::debug!(overdue, "closing a connection");
                    break;
                }
            }
        }
    }
    drop(open);
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// The deadline of the present phase.
fn deadline(pulse: &Pulse, limits: &Limits) -> Option<(Instant, &'static str)> {
    let state = pulse.state();
    let phase = match state.phase {
        Phase::Head => Some((state.since + ms(limits.header_deadline_ms), "head")),
        Phase::Idle => Some((state.since + ms(limits.idle_deadline_ms), "idle")),
        Phase::Busy => None,
    };
    let write = state.blocked.map(|since| (since + ms(limits.write_deadline_ms), "write"));
    phase.into_iter().chain(write).min_by_key(|(at, _)| *at)
}

fn overdue(pulse: &Pulse, limits: &Limits) -> Option<&'static str> {
    deadline(pulse, limits).filter(|(at, _)| *at <= Instant::now()).map(|(_, what)| what)
}

/// When to look again: at the deadline, but no later than the shortest one that may begin now.
fn next_check(pulse: &Pulse, limits: &Limits) -> Instant {
    let soonest = ms(limits.header_deadline_ms.min(limits.write_deadline_ms).max(1));
    let latest = Instant::now() + soonest;
    deadline(pulse, limits).map_or(latest, |(at, _)| at.min(latest))
}

/// Enters `Idle` when the answer was sent to its end.
struct Answering(Pulse);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    pulse: Pulse,
) -> Result<Response, Infallible> {
    let answering = Answering(pulse);
    let headers = request.headers();
    let has_body = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    let mut response = match guard::check(&request, &shared.limits) {
        Ok(()) => {
            let within = ms(shared.limits.body_deadline_ms);
            let mut request = request.map(|body| match has_body {
                true => Body::new(Timely::new(body, within)),
                false => Body::empty(),
            });
            request.extensions_mut().insert(Draining(shared.draining.clone()));
            match shared.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(problem) => {
            let context = RequestContext::from_headers(headers);
            let trace_id = HeaderValue::from_str(&context.trace_id);
            let mut response = context.scope(async { problem.into_response() }).await;
            if let Ok(trace_id) = trace_id {
                response.headers_mut().insert(X_TRACE_ID, trace_id);
            }
            close_after(&mut response);
            response
        }
    };
    // The rest of such a body is not worth reading, so the connection cannot be used again.
    let unread = [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE];
    if unread.contains(&response.status()) {
        close_after(&mut response);
    }
    Ok(response.map(|body| Body::new(Guarded::new(body, answering))))
}

fn close_after(response: &mut Response) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
