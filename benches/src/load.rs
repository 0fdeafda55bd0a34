//! Closed loops: so many clients, each asking again as soon as it is answered.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long to measure, after how long a warm-up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// Somebody who asks one thing after the other.
pub(crate) trait Client: Send + 'static {
    /// Asks once and waits for the answer; says how many units were done.
    fn once(&mut self) -> impl Future<Output = Result<u64>> + Send;
}

/// What was seen.
pub(crate) struct Seen {
    /// Units per second.
    pub(crate) rate: f64,
    /// Units in all, those of the warm-up included.
    pub(crate) units: u64,
    /// Microseconds from asking to the answer.
    latencies: Histogram<u64>,
}

impl Seen {
    pub(crate) fn p50_ms(&self) -> Option<f64> {
        self.quantile_ms(0.50)
    }
    pub(crate) fn p99_ms(&self) -> Option<f64> {
        self.quantile_ms(0.99)
    }
    fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let micros = self.latencies.value_at_quantile(quantile);
        (!self.latencies.is_empty()).then_some(micros as f64 / 1_000.0)
    }
}

/// Microseconds up to a minute, to three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).context("no histogram")
}

/// Runs the clients at once. What ends after the warm-up and before the end counts.
pub(crate) async fn closed_loop<C: Client>(clients: Vec<C>, plan: Plan) -> Result<Seen> {
    let begin = Instant::now() + plan.warm_up;
    let end = begin + plan.measured;
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(one(client, begin, end));
    }
    let (mut units, mut measured, mut latencies) = (0, 0, histogram()?);
    while let Some(ended) = running.join_next().await {
        let one = ended.context("a client ended")??;
        units += one.units;
        measured += one.measured;
        latencies.add(one.latencies).context("histograms of one kind")?;
    }
    Ok(Seen { rate: measured as f64 / plan.measured.as_secs_f64(), units, latencies })
}

/// What one client did.
struct One {
    units: u64,
    measured: u64,
    latencies: Histogram<u64>,
}

async fn one<C: Client>(mut client: C, begin: Instant, end: Instant) -> Result<One> {
    let mut one = One { units: 0, measured: 0, latencies: histogram()? };
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok(one);
        }
        let done = client.once().await?;
        let answered = Instant::now();
        one.units += done;
        if (begin..end).contains(&answered) {
            one.measured += done;
            let micros = (answered - asked).as_micros().try_into().unwrap_or(u64::MAX);
            one.latencies.saturating_record(micros);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ticker(tokio::time::Interval);
    impl Client for Ticker {
        async fn once(&mut self) -> Result<u64> {
            self.0.tick().await;
            Ok(3)
        }
    }

    #[tokio::test]
    async fn units_are_counted_per_second() {
        let plan =
            Plan { warm_up: Duration::from_millis(20), measured: Duration::from_millis(400) };
        let ticker = Ticker(tokio::time::interval(Duration::from_millis(10)));
        let seen = closed_loop(vec![ticker], plan).await.unwrap();
        // 100 ticks of 3 units a second, however busy the machine is.
        assert!((1.0..=330.0).contains(&seen.rate), "{}", seen.rate);
        assert!(seen.p50_ms() <= seen.p99_ms());
    }
}
