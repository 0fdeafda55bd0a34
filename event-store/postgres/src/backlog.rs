use crate::StoreError;
use crate::connection::{Connections, in_time};
use crate::metrics::Metrics;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What waits for the relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events.
    pub events: u64,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
}

/// The backlog as it was measured last.
#[derive(Default)]
pub(crate) struct LastBacklog {
    events: AtomicU64,
    micros: AtomicU64,
}

impl LastBacklog {
    pub(crate) fn get(&self) -> Backlog {
        Backlog {
            events: self.events.load(Ordering::Relaxed),
            oldest: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
        }
    }
    pub(crate) async fn measure(
        &self,
        connections: &Connections,
        metrics: &Metrics,
    ) -> Result<Backlog, StoreError> {
        let mut connection = connections.borrow().await?;
        let call = sqlx::query_as(
            "select coalesce(sum(greatest(h.position - l.position, 0)), 0)::bigint,
                    coalesce(extract(epoch from clock_timestamp() - min(e.recorded_at)), 0)::float8
             from leases l
             join heads h on h.topic = l.topic and h.partition = l.partition
             left join events e on e.topic = l.topic and e.partition = l.partition
                               and e.position = l.position + 1",
        )
        .fetch_one(&mut *connection);
        let (events, seconds): (i64, f64) = in_time(connections.call, call).await?;
        connection.give_back();
        let events = u64::try_from(events).unwrap_or(0);
        let oldest = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
        self.events.store(events, Ordering::Relaxed);
        let micros = u64::try_from(oldest.as_micros()).unwrap_or(u64::MAX);
        self.micros.store(micros, Ordering::Relaxed);
        metrics.pending.set(i64::try_from(events).unwrap_or(i64::MAX));
        metrics.oldest.set(oldest.as_secs_f64());
        Ok(Backlog { events, oldest })
    }
}
