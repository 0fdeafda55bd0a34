use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

/// What a store tells of itself; every series bears the service's name.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Commands per commit.
    pub(crate) batch: Histogram,
    /// Streams that another process had changed.
    pub(crate) conflicts: IntCounter,
    /// Events that wait for the relay.
    pub(crate) pending: IntGauge,
    /// How long the oldest of them has waited.
    pub(crate) oldest: Gauge,
    /// The code of its state.
    pub(crate) state: IntGauge,
    /// How long callers waited for a connection.
    pub(crate) pool_wait: Histogram,
}

impl Metrics {
    /// Not shown anywhere until they are registered.
    pub(crate) fn new(service: &str) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("service", service);
        let batches = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0];
        let waits = vec![0.0001, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0];
        let histogram = |opts: Opts, buckets| {
            Histogram::with_opts(HistogramOpts { common_opts: opts, buckets })
        };
        Ok(Metrics {
            batch: histogram(opts("append_batch_size", "Commands per commit."), batches)?,
            conflicts: IntCounter::with_opts(opts(
                "append_conflicts_total",
                "Streams that another writer had changed since their state was read.",
            ))?,
            pending: IntGauge::with_opts(opts(
                "outbox_pending_events",
                "Events that wait for the relay.",
            ))?,
            oldest: Gauge::with_opts(opts(
                "outbox_oldest_age_seconds",
                "Age of the oldest event that waits for the relay.",
            ))?,
            state: IntGauge::with_opts(opts(
                "outbox_state",
                "0 well, 1 filling: the relay falls behind, 2 full: commands are refused.",
            ))?,
            pool_wait: histogram(
                Opts::new("db_pool_wait_seconds", "Time spent waiting for a database connection.")
                    .const_label("pool", service),
                waits,
            )?,
        })
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.batch.clone()))?;
        registry.register(Box::new(self.conflicts.clone()))?;
        registry.register(Box::new(self.pending.clone()))?;
        registry.register(Box::new(self.oldest.clone()))?;
        registry.register(Box::new(self.state.clone()))?;
        registry.register(Box::new(self.pool_wait.clone()))
    }
}
