use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// What the relay counts.
#[derive(Debug, Clone)]
pub struct RelayMetrics {
    pub(crate) published: IntCounterVec,
    pub(crate) state: IntGaugeVec,
}

impl RelayMetrics {
    /// Registers `relay_published_total{topic}` and `relay_state{topic,partition}`: 0 relaying,
    /// 1 taking over, 2 the topic is missing, 3 Kafka is away, 4 the database is away, 5 stopped.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let published = IntCounterVec::new(
            Opts::new("relay_published_total", "Events that Kafka acknowledged."),
            &["topic"],
        )?;
        let help = "0 relaying, 1 taking over, 2 topic missing, 3 Kafka away, 4 database away, \
                    5 stopped: look into the log.";
        let state = IntGaugeVec::new(Opts::new("relay_state", help), &["topic", "partition"])?;
        registry.register(Box::new(published.clone()))?;
        registry.register(Box::new(state.clone()))?;
        Ok(RelayMetrics { published, state })
    }
}
