use crate::connection::{Connections, in_time};
use crate::metrics::Metrics;
use crate::{Limits, StoreError};
use std::fmt;
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

/// What a backlog means for commands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BacklogState {
    /// The relay keeps up.
    #[default]
    Well,
    /// Past the soft bound: the relay falls behind.
    Filling,
    /// Past a hard bound: commands are refused.
    Full,
}
impl BacklogState {
    /// The value of the metric `outbox_state`.
    pub fn code(self) -> i64 {
        match self {
            BacklogState::Well => 0,
            BacklogState::Filling => 1,
            BacklogState::Full => 2,
        }
    }
}

impl Backlog {
    /// What it means under these limits.
    pub fn state(&self, limits: &Limits) -> BacklogState {
        let is_too_old = limits.backlog_age.is_some_and(|most| self.oldest > most);
        if self.events > limits.backlog_events || is_too_old {
            BacklogState::Full
        } else if self.events > limits.backlog_warning {
            BacklogState::Filling
        } else {
            BacklogState::Well
        }
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.events {
            0 => f.write_str("no events wait"),
            events => write!(f, "{events} events wait, the oldest for {:.1?}", self.oldest),
        }
    }
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
        limits: &Limits,
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
        let backlog = Backlog { events, oldest };
        self.set(backlog, metrics, limits);
        Ok(backlog)
    }
    /// While the database does not answer, what waits grows older all the same.
    pub(crate) fn age(&self, by: Duration, metrics: &Metrics, limits: &Limits) {
        let mut backlog = self.get();
        if backlog.events > 0 {
            backlog.oldest += by;
            self.set(backlog, metrics, limits);
        }
    }
    fn set(&self, backlog: Backlog, metrics: &Metrics, limits: &Limits) {
        let Backlog { events, oldest } = backlog;
        self.events.store(events, Ordering::Relaxed);
        let micros = u64::try_from(oldest.as_micros()).unwrap_or(u64::MAX);
        self.micros.store(micros, Ordering::Relaxed);
        metrics.pending.set(i64::try_from(events).unwrap_or(i64::MAX));
        metrics.oldest.set(oldest.as_secs_f64());
        metrics.state.set(backlog.state(limits).code());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_soft_and_hard_by_number_and_hard_by_age() {
        let limits = Limits::default();
        let state = |events, minutes: u64| {
            Backlog { events, oldest: Duration::from_secs(minutes * 60) }.state(&limits)
        };
        assert_eq!(state(50_000, 20), BacklogState::Well);
        assert_eq!(state(50_001, 20), BacklogState::Filling);
        assert_eq!(state(1_000_001, 0), BacklogState::Full);
        assert_eq!(state(1, 61), BacklogState::Full);
        let unaged = Limits { backlog_age: None, ..Limits::default() };
        let old = Backlog { events: 1, oldest: Duration::MAX };
        assert_eq!(old.state(&unaged), BacklogState::Well);
    }
}
