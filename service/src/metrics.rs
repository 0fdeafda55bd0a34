//! The metrics that every process has.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Metrics of the HTTP side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    durations: HistogramVec,
    shed: IntCounterVec,
    connections: IntGauge,
}

impl HttpMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered there already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "http_server_request_duration_seconds",
                "Time from the head of a request to the head of its answer.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ]),
            &["method", "route", "status"],
        )?;
        let shed = IntCounterVec::new(
            Opts::new("shed_requests_total", "Requests refused to stay within a limit."),
            &["reason"],
        )?;
        let connections = IntGauge::new("http_connections", "Open HTTP connections.")?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(shed.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        Ok(Self { durations, shed, connections })
    }

    /// One request ended.
    pub(crate) fn observe(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        // Unknown methods share a label: a client must not be able to make new time series.
        let method = match method.as_str() {
            known @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS") => known,
            _ => "other",
        };
        self.durations
            .with_label_values(&[method, route, status.as_str()])
            .observe(took.as_secs_f64());
    }

    /// One request was refused to stay within the limit that `reason` names.
    pub fn shed(&self, reason: &str) {
        self.shed.with_label_values(&[reason]).inc();
    }

    /// How many were refused for `reason`.
    #[must_use]
    pub fn shed_count(&self, reason: &str) -> u64 {
        self.shed.with_label_values(&[reason]).get()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> i64 {
        self.connections.get()
    }

    /// The gauge of open connections.
    pub(crate) fn connections(&self) -> &IntGauge {
        &self.connections
    }
}

/// A registry with the process metrics and `build_info{app,version,role}`.
///
/// # Errors
/// When a label is not valid for Prometheus.
pub fn process_registry(app: &str, version: &str, role: &str) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let build = IntGaugeVec::new(
        Opts::new("build_info", "What runs here; always 1."),
        &["app", "version", "role"],
    )?;
    build.with_label_values(&[app, version, role]).set(1);
    registry.register(Box::new(build))?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}
