//! What the query side counts.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};
use std::time::Duration;

/// Metrics of the query side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct QueryMetrics {
    pool_wait: Histogram,
    token_reads: IntCounterVec,
    token_waiting: IntGauge,
}

impl QueryMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered there already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let pool_wait = Histogram::with_opts(
            // The same name and text as in the event store: one metric of a process, a label apart.
            HistogramOpts::new(
                "db_pool_wait_seconds",
                "Time spent waiting for a database connection.",
            )
            .const_label("pool", "queries")
            .buckets(vec![0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.3, 1.0, 3.0]),
        )?;
        let token_reads = IntCounterVec::new(
            Opts::new(
                "consistency_token_reads_total",
                "Reads with a consistency token: at once, after a wait, or not in time.",
            ),
            &["read_model", "outcome"],
        )?;
        let token_waiting = IntGauge::new(
            "consistency_token_waiting",
            "Reads that wait for the position of their consistency token now.",
        )?;
        registry.register(Box::new(pool_wait.clone()))?;
        registry.register(Box::new(token_reads.clone()))?;
        registry.register(Box::new(token_waiting.clone()))?;
        Ok(Self { pool_wait, token_reads, token_waiting })
    }

    pub(crate) fn pool_waited(&self, time: Duration) {
        self.pool_wait.observe(time.as_secs_f64());
    }

    pub(crate) fn token_read(&self, read_model: &str, outcome: TokenRead) {
        let outcome = match outcome {
            TokenRead::AtOnce => "at_once",
            TokenRead::Waited => "waited",
            TokenRead::Behind => "behind",
        };
        self.token_reads.with_label_values(&[read_model, outcome]).inc();
    }

    /// One read waits for its token until the guard is dropped.
    pub(crate) fn token_waits(&self) -> Waiting<'_> {
        self.token_waiting.inc();
        Waiting(&self.token_waiting)
    }
}

pub(crate) struct Waiting<'a>(&'a IntGauge);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How a read with a token ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenRead {
    AtOnce,
    Waited,
    Behind,
}
