//! `/livez`, `/readyz`, `/startupz` and `/metrics`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::join_all;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Serialize;
use tokio::sync::Mutex;

use crate::problem::Problem;

/// How long a result stands before the check runs again.
const FRESH: Duration = Duration::from_secs(1);

type Checked = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;
type Ask = Box<dyn Fn() -> Checked + Send + Sync>;

/// The checks of a process and where it is in its life. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    started: AtomicBool,
    draining: AtomicBool,
    checks: RwLock<Vec<Arc<Check>>>,
}

struct Check {
    name: String,
    deadline: Duration,
    ask: Ask,
    // Held while the check runs, so that a hundred probes ask the dependency once.
    last: Mutex<Option<(Instant, CheckResult)>>,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckResult {
    /// Whether the dependency answered as it should.
    pub status: CheckStatus,
    /// How long the check took, in milliseconds.
    pub latency_ms: f64,
    /// What it found; for a failure why, without secrets.
    pub detail: String,
}

/// Whether a check passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// It passed.
    Ok,
    /// It failed or ran out of time.
    Fail,
}

/// The answer of a probe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `ok`, `fail`, `starting` or `draining`.
    pub status: &'static str,
    /// Every check by name.
    pub checks: BTreeMap<String, CheckResult>,
}

impl Health {
    /// A process that has not started and has no checks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, which answers a short detail or the reason of its failure. It runs at most
    /// once a second and has failed when it takes longer than `deadline`.
    pub fn check<F, R>(&self, name: impl Into<String>, deadline: Duration, ask: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, String>> + Send + 'static,
    {
        let check = Check {
            name: name.into(),
            deadline,
            ask: Box::new(move || Box::pin(ask())),
            last: Mutex::new(None),
        };
        let mut checks = self.0.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.push(Arc::new(check));
    }

    /// Start-up is done: migrations ran, listeners are open.
    pub fn set_started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// The process ends soon: `/readyz` says 503 from here on, so that no new work is sent.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Runs all checks at once and reports.
    pub async fn readiness(&self) -> Report {
        let checks = self.0.checks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let results = join_all(checks.iter().map(|check| check.result())).await;
        let healthy = results.iter().all(|result| result.status == CheckStatus::Ok);
        let status = if self.0.draining.load(Ordering::Acquire) {
            "draining"
        } else if !self.0.started.load(Ordering::Acquire) {
            "starting"
        } else if healthy {
            "ok"
        } else {
            "fail"
        };
        let names = checks.iter().map(|check| check.name.clone());
        Report { status, checks: names.zip(results).collect() }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("started", &self.0.started).finish_non_exhaustive()
    }
}

impl Check {
    async fn result(&self) -> CheckResult {
        let mut last = self.last.lock().await;
        if let Some((at, result)) = &*last
            && at.elapsed() < FRESH
        {
            return result.clone();
        }
        let started = Instant::now();
        let (status, detail) = match tokio::time::timeout(self.deadline, (self.ask)()).await {
            Ok(Ok(detail)) => (CheckStatus::Ok, detail),
            Ok(Err(reason)) => (CheckStatus::Fail, reason),
            Err(_) => (CheckStatus::Fail, format!("no answer within {:?}", self.deadline)),
        };
        let latency_ms = started.elapsed().as_micros() as f64 / 1_000.0;
        let result = CheckResult { status, latency_ms, detail };
        *last = Some((Instant::now(), result.clone()));
        result
    }
}

/// The routes every admin port has: `/livez`, `/readyz`, `/startupz`, `/metrics`.
pub fn admin_router(health: Health, registry: Registry) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .with_state(health)
        .route("/metrics", get(metrics).with_state(registry))
}

/// Never asks a dependency: a restart would not mend one.
async fn livez() -> Response {
    answer(&Report { status: "ok", checks: BTreeMap::new() })
}

async fn readyz(State(health): State<Health>) -> Response {
    answer(&health.readiness().await)
}

async fn startupz(State(health): State<Health>) -> Response {
    let started = health.0.started.load(Ordering::Acquire);
    let status = if started { "ok" } else { "starting" };
    answer(&Report { status, checks: BTreeMap::new() })
}

fn answer(report: &Report) -> Response {
    let code = if report.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (code, no_store, axum::Json(report)).into_response()
}

async fn metrics(State(registry): State<Registry>) -> Result<Response, Problem> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&registry.gather(), &mut text).map_err(|error| Problem::internal(&error))?;
    let kind =
        HeaderValue::from_str(encoder.format_type()).map_err(|error| Problem::internal(&error))?;
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[tokio::test]
    async fn readiness_follows_start_checks_and_drain() {
        let health = Health::new();
        assert_eq!(health.readiness().await.status, "starting");
        health.set_started();
        assert_eq!(health.readiness().await.status, "ok");
        health.check("kafka", Duration::from_secs(1), || async { Err("refused".to_owned()) });
        let report = health.readiness().await;
        assert_eq!(report.status, "fail");
        assert_eq!(report.checks["kafka"].detail, "refused");
        health.set_draining();
        assert_eq!(health.readiness().await.status, "draining");
    }

    #[tokio::test]
    async fn a_check_that_hangs_has_failed_and_results_are_kept_for_a_moment() {
        let asked = Arc::new(AtomicU32::new(0));
        let health = Health::new();
        health.set_started();
        let count = Arc::clone(&asked);
        health.check("slow", Duration::from_millis(20), move || {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        });
        assert_eq!(health.readiness().await.checks["slow"].status, CheckStatus::Fail);
        assert_eq!(health.readiness().await.status, "fail");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
