//! The metrics of commands.

use std::time::Duration;

use foldstream_service::Problem;
use http::StatusCode;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::headers::IDEMPOTENCY_REPLAYED;

/// What became of a command, for people who watch many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It led to events.
    Accepted,
    /// It asked for what is so already.
    Unchanged,
    /// It was answered before.
    Replayed,
    /// A rule said no.
    Refused,
    /// The stream was at another version than the client said.
    Precondition,
    /// The request could not be read.
    Invalid,
    /// Others were faster, or the same request is still running.
    Contended,
    /// Something that is needed was not there; no effect.
    Unavailable,
    /// The deadline passed while the outcome was open.
    Unknown,
    /// A bug.
    Failed,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Unchanged => "unchanged",
            Outcome::Replayed => "replayed",
            Outcome::Refused => "refused",
            Outcome::Precondition => "precondition",
            Outcome::Invalid => "invalid",
            Outcome::Contended => "contended",
            Outcome::Unavailable => "unavailable",
            Outcome::Unknown => "unknown",
            Outcome::Failed => "failed",
        }
    }

    /// That of a command that was answered with a problem.
    pub(crate) fn of(problem: &Problem) -> Self {
        if problem.headers().contains_key(IDEMPOTENCY_REPLAYED) {
            return Outcome::Replayed;
        }
        if problem.kind().is_none() {
            return Outcome::Refused;
        }
        match problem.status() {
            StatusCode::CONFLICT => Outcome::Contended,
            StatusCode::PRECONDITION_FAILED | StatusCode::PRECONDITION_REQUIRED => {
                Outcome::Precondition
            }
            StatusCode::SERVICE_UNAVAILABLE => Outcome::Unavailable,
            StatusCode::GATEWAY_TIMEOUT => Outcome::Unknown,
            status if status.is_client_error() => Outcome::Invalid,
            _ => Outcome::Failed,
        }
    }
}

/// Counts and durations of commands. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CommandMetrics {
    total: IntCounterVec,
    durations: HistogramVec,
}

impl CommandMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered there already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let total = IntCounterVec::new(
            Opts::new("commands_total", "Commands by what became of them."),
            &["aggregate", "command", "outcome"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "command_duration_seconds",
                "Time from the head of a command's request to its answer.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ]),
            &["aggregate", "command"],
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self { total, durations })
    }

    /// One command was answered.
    pub(crate) fn observe(&self, aggregate: &str, command: &str, what: Outcome, took: Duration) {
        self.total.with_label_values(&[aggregate, command, what.label()]).inc();
        self.durations.with_label_values(&[aggregate, command]).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldstream_service::ProblemKind;

    #[test]
    fn every_problem_has_an_outcome() {
        let of = |kind| Outcome::of(&Problem::new(kind));
        assert_eq!(of(ProblemKind::VersionMismatch), Outcome::Precondition);
        assert_eq!(of(ProblemKind::InvalidBody), Outcome::Invalid);
        assert_eq!(of(ProblemKind::Overloaded), Outcome::Unavailable);
        assert_eq!(of(ProblemKind::OutcomeUnknown), Outcome::Unknown);
        assert_eq!(of(ProblemKind::Internal), Outcome::Failed);
        assert_eq!(of(ProblemKind::Contended), Outcome::Contended);
        let refused = Problem::domain(StatusCode::CONFLICT, "invoice-exists", "it exists");
        assert_eq!(Outcome::of(&refused), Outcome::Refused);
    }
}
