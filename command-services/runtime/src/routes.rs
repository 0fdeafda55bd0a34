//! The routes of commands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use foldstream_core::StreamRef;
use foldstream_postgres::EventStore;
use foldstream_service::admission::Admission;
use foldstream_service::json::read_json;
use foldstream_service::metrics::HttpMetrics;
use foldstream_service::server::detached;
use foldstream_service::{Problem, ProblemKind, RequestContext};

use crate::headers::CommandHeaders;
use crate::metrics::{CommandMetrics, Outcome};
use crate::request::{Asked, Target, check_path_id, unknown_command};
use crate::service::{CommandInfo, Registered, Service};
use crate::{answer, reads, store};

/// What the routes of a service bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// From the head of a request to its verdict; then 504, or 503 if it surely had no effect.
    /// Default 5 s.
    pub deadline: Duration,
    /// The longest body in bytes. Default 1 MiB: a document of 5,000 lines does not fit in less.
    pub body_limit: usize,
    /// Requests in flight; more are refused with 503 at once. Default 512.
    pub max_in_flight: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5), body_limit: 1 << 20, max_in_flight: 512 }
    }
}

/// What all routes of one aggregate share.
pub(crate) struct Routes {
    pub(crate) registered: Registered,
    topic: String,
    pub(crate) store: EventStore,
    pub(crate) options: Options,
    metrics: CommandMetrics,
}

impl Routes {
    /// The stream of this id.
    pub(crate) fn stream(&self, id: &str) -> StreamRef {
        StreamRef::new(self.topic.clone(), id)
    }
}

/// The routes of all aggregates of a service, to be merged with others on one port.
///
/// The request context, 404 and 405 are laid over the whole by
/// [`foldstream_service::context::with_context`].
///
/// # Panics
/// When the store was opened without one of the service's aggregates.
pub fn router(
    service: &Service,
    store: EventStore,
    options: Options,
    metrics: CommandMetrics,
    http: HttpMetrics,
) -> Router {
    let max_in_flight = options.max_in_flight;
    let mut router = Router::new();
    for registered in service.registered() {
        let name = registered.name();
        let Some(StreamRef { topic, .. }) = store.stream(name, "") else {
            panic!("the store of `{}` was opened without `{name}`", service.name());
        };
        router = router.merge(of_aggregate(Routes {
            registered: registered.clone(),
            topic,
            store: store.clone(),
            options: options.clone(),
            metrics: metrics.clone(),
        }));
    }
    if service.registered().is_empty() {
        return router; // a layer over no routes is refused by axum
    }
    Admission::new("commands", max_in_flight, http).guard(router)
}

fn of_aggregate(routes: Routes) -> Router {
    let all = format!("/v1/{}", routes.registered.name());
    let mut router = Router::new()
        .route(&format!("{all}/{{id}}/commands/{{command}}"), post(command))
        .route(&format!("{all}/{{id}}/history"), get(reads::history))
        .route(&format!("{all}/{{id}}/state"), get(reads::state));
    if routes.registered.creating().is_some() {
        router = router.route(&all, post(create));
    }
    router.with_state(Arc::new(routes))
}

/// `POST /v1/{aggregates}`
async fn create(
    State(routes): State<Arc<Routes>>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let info = routes.registered.creating().ok_or_else(|| unknown_command(&routes.registered))?;
    run(&routes, info, Target::New, context, request).await
}

/// `POST /v1/{aggregates}/{id}/commands/{command}`
async fn command(
    State(routes): State<Arc<Routes>>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let params = path_params(params)?;
    let (id, name) = (param(&params, "id"), param(&params, "command"));
    check_path_id(&routes.registered, id)?;
    let info = routes.registered.command(name);
    let info = info.ok_or_else(|| unknown_command(&routes.registered))?;
    run(&routes, info, Target::Stream(id), context, request).await
}

async fn run(
    routes: &Arc<Routes>,
    info: &CommandInfo,
    target: Target<'_>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let answered = answered(routes, info, target, context, request, started).await;
    let outcome = match &answered {
        Ok((_, outcome)) => *outcome,
        Err(problem) => Outcome::of(problem),
    };
    routes.metrics.observe(routes.registered.name(), &info.name, outcome, started.elapsed());
    answered.map(|(response, _)| response)
}

async fn answered(
    routes: &Arc<Routes>,
    info: &CommandInfo,
    target: Target<'_>,
    context: RequestContext,
    request: Request,
    started: Instant,
) -> Result<(Response, Outcome), Problem> {
    let headers = CommandHeaders::read(request.headers())?;
    let (parts, body) = request.into_parts();
    let body = read_json(&parts.headers, body, routes.options.body_limit).await?;
    let asked = Asked::read(&routes.registered, info, target, &context, headers, body)?;
    let creating = matches!(target, Target::New);
    let routes = Arc::clone(routes);
    // Its own task: whoever hangs up now changes nothing any more.
    detached(async move {
        let executed = store::execute(&routes, &asked, &context, started).await?;
        answer::of(&routes.registered, &asked, creating, executed)
    })
    .await?
}

/// The parameters of a path; axum's own refusal is no problem document.
///
/// # Errors
/// 400 `invalid-path` where they are not UTF-8.
pub(crate) fn path_params(
    params: Result<RawPathParams, RawPathParamsRejection>,
) -> Result<RawPathParams, Problem> {
    let refused =
        |_| Problem::new(ProblemKind::InvalidPath).detail("the path is not percent-encoded UTF-8");
    params.map_err(refused)
}

/// A parameter of the path; empty where the route has none of this name.
pub(crate) fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}
