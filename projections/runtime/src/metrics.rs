//! What Prometheus sees of projections.

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry};
use std::time::Duration;

/// How a projection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is assigned to it yet.
    Starting,
    /// It folds.
    Running,
    /// An event is missing in a topic.
    Gap,
    /// An event could not be folded.
    Failed,
    /// Postgres or the schema registry is away.
    Waiting,
}
impl State {
    const ALL: [State; 5] =
        [State::Starting, State::Running, State::Gap, State::Failed, State::Waiting];
    /// The state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Gap => "gap",
            State::Failed => "failed",
            State::Waiting => "waiting",
        }
    }
}

/// Metrics of all projections of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProjectionMetrics {
    lag_events: IntGaugeVec,
    lag_seconds: GaugeVec,
    apply: HistogramVec,
    state: IntGaugeVec,
}

impl ProjectionMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered there already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let label = ["read_model"];
        let lag_events = IntGaugeVec::new(
            Opts::new("projection_lag_events", "Events not yet folded; absent when unknown."),
            &label,
        )?;
        let lag_seconds = GaugeVec::new(
            Opts::new("projection_lag_seconds", "Age of the oldest event not yet folded, at most."),
            &label,
        )?;
        let apply = HistogramVec::new(
            HistogramOpts::new(
                "projection_apply_duration_seconds",
                "Time to fold one batch and to commit it.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ]),
            &label,
        )?;
        let state = IntGaugeVec::new(
            Opts::new("projection_state", "1 for the state that the projection is in, else 0."),
            &["read_model", "state"],
        )?;
        registry.register(Box::new(lag_events.clone()))?;
        registry.register(Box::new(lag_seconds.clone()))?;
        registry.register(Box::new(apply.clone()))?;
        registry.register(Box::new(state.clone()))?;
        Ok(ProjectionMetrics { lag_events, lag_seconds, apply, state })
    }

    pub(crate) fn applied(&self, read_model: &str, took: Duration) {
        self.apply.with_label_values(&[read_model]).observe(took.as_secs_f64());
    }
    pub(crate) fn set_state(&self, read_model: &str, now: State) {
        for state in State::ALL {
            let gauge = self.state.with_label_values(&[read_model, state.as_str()]);
            gauge.set(i64::from(state == now));
        }
    }
    /// `None`: not known.
    pub(crate) fn set_lag(&self, read_model: &str, events: Option<i64>, seconds: Option<f64>) {
        // What is not known is not shown: an old figure would be taken for a true one.
        match events {
            Some(events) => self.lag_events.with_label_values(&[read_model]).set(events),
            None => drop(self.lag_events.remove_label_values(&[read_model])),
        }
        match seconds {
            Some(seconds) => self.lag_seconds.with_label_values(&[read_model]).set(seconds),
            None => drop(self.lag_seconds.remove_label_values(&[read_model])),
        }
    }
}
