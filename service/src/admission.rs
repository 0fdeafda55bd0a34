//! Admission: a bound on the requests in flight. Beyond it a request waits a moment, then is
//! refused with 503, so that a queue never grows where nobody sees it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::HttpMetrics;
use crate::problem::{Problem, ProblemKind};

tokio::task_local! {
    static PERMIT: Arc<OwnedSemaphorePermit>;
}

/// Permits for requests in flight, shared by all routes it is laid over.
#[derive(Debug, Clone)]
pub struct Admission {
    reason: &'static str,
    permits: Arc<Semaphore>,
    max_wait: Duration,
    metrics: HttpMetrics,
}

impl Admission {
    /// Room for `permits` requests; `reason` labels `shed_requests_total`. A request waits at most
    /// 10 ms for room.
    #[must_use]
    pub fn new(reason: &'static str, permits: usize, metrics: HttpMetrics) -> Self {
        let permits = Arc::new(Semaphore::new(permits));
        // The series is there from the start, at 0, and not only from the first refusal.
        let _ = metrics.shed_count(reason);
        Self { reason, permits, max_wait: Duration::from_millis(10), metrics }
    }

    /// Another longest wait.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Lays the bound over all routes that `router` has now.
    ///
    /// A permit is held until the answer was sent to its end, and as long as work that the
    /// handler [detached](crate::server::detached) goes on: hanging up makes no room.
    pub fn guard<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        router.route_layer(axum::middleware::from_fn_with_state(self, admit))
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        let waiting = Arc::clone(&self.permits).acquire_owned();
        tokio::time::timeout(self.max_wait, waiting).await.ok()?.ok()
    }
}

/// The permit of the request that this task serves.
pub(crate) fn current_permit() -> Option<Arc<OwnedSemaphorePermit>> {
    PERMIT.try_with(Arc::clone).ok()
}

/// Runs `work` under `permit`.
pub(crate) async fn under<F: Future>(permit: Arc<OwnedSemaphorePermit>, work: F) -> F::Output {
    PERMIT.scope(permit, work).await
}

async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    let Some(permit) = admission.permit().await else {
        admission.metrics.shed(admission.reason);
        return Problem::new(ProblemKind::Overloaded)
            .retry_after(Duration::from_secs(jittered_seconds()))
            .into_response();
    };
    let permit = Arc::new(permit);
    let response = under(Arc::clone(&permit), next.run(request)).await;
    response.map(|body| Body::new(crate::server::Guarded::new(body, permit)))
}

/// 1 to 3 seconds, so that those refused together do not come back together.
fn jittered_seconds() -> u64 {
    let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
    1 + low % 3
}
