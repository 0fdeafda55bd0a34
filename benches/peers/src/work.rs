//! The work, the same for all: one event after the other, each to the writer's own stream if that
//! is still at the version that the writer knows.

use crate::child::Child;
use crate::infra::{Infra, peak_mb, reset_peak};
use crate::load::{Client, Plan, closed_loop};
use anyhow::{Result, ensure};
use foldstream_core::Uuid;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// After so many a writer begins a new stream, as an order or an invoice would.
pub(crate) const EVENTS_PER_STREAM: i64 = 10;

/// How an event gets into a stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// The writer knows what its stream is at and appends on that condition.
    Append,
    /// What the peer's guide shows: read the stream, decide, append.
    Command,
}

/// One measurement of one peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) writers: usize,
    pub(crate) way: Way,
    /// Connections of its pool, or what else it can be told.
    pub(crate) setting: u32,
    pub(crate) plan: Plan,
}

/// What came out of it.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Events per second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Processor time per event of all processes that take part.
    pub(crate) cpu_us: f64,
    /// The most memory of the process with the library, and of the server that comes with it.
    pub(crate) rss_mb: Option<f64>,
    /// How often an append had to be tried again.
    pub(crate) retries: u64,
}

/// What is stored: about 300 bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) number: i64,
    pub(crate) text: String,
}

/// Where a writer is.
#[derive(Debug)]
pub(crate) struct Place {
    /// The stream it writes.
    pub(crate) stream: String,
    /// Events in it.
    pub(crate) version: i64,
    /// Where the last of them is in the whole store, for stores that go by that; 0 without any.
    pub(crate) position: i64,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place { stream: Uuid::new_v4().to_string(), version: 0, position: 0 }
    }
    /// An event was stored.
    pub(crate) fn advance(&mut self, position: i64) {
        if self.version + 1 == EVENTS_PER_STREAM {
            *self = Self::new();
        } else {
            self.version += 1;
            self.position = position;
        }
    }
}

/// Counts what had to be tried again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retries(Arc<AtomicU64>);

impl Retries {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn taken(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Whose processor time and memory count beside this process and Postgres.
pub(crate) struct Scene<'a> {
    pub(crate) infra: &'a Infra,
    /// The database, if it is in Postgres.
    pub(crate) url: Option<&'a str>,
    /// The server that comes with the peer.
    pub(crate) server: Option<&'a Child>,
    pub(crate) retries: Retries,
}

/// Runs the writers: first to warm up and to fill the store, then, with the statistics of Postgres
/// up to date, to be measured. Answers how many appends were acknowledged in all.
pub(crate) async fn drive<C: Client>(
    scene: &Scene<'_>,
    run: &Run,
    writer: impl Fn(usize) -> C,
) -> Result<(Figures, u64)> {
    let writers = || (0..run.writers).map(&writer).collect();
    let Plan { warm_up, measured } = run.plan;
    let first = closed_loop(writers(), Plan { warm_up: warm_up / 4, measured: warm_up }).await?;
    if let Some(url) = scene.url {
        analyze(url).await?;
    }
    reset_peak();
    scene.retries.taken();
    let server = || scene.server.map_or(0, Child::ticks);
    let (before, server_before) = (scene.infra.cpu(), server());
    let seen = closed_loop(writers(), Plan { warm_up: warm_up / 4, measured }).await?;
    let of_server = (server() - server_before) as f64 * 10_000.0 / seen.units.max(1) as f64;
    let figures = Figures {
        rate: seen.rate,
        p50_ms: seen.p50_ms(),
        p99_ms: seen.p99_ms(),
        cpu_us: scene.infra.cpu().micros_each(before, seen.units) + of_server,
        rss_mb: peak_mb().map(|own| own + scene.server.map_or(0.0, Child::peak_mb)),
        retries: scene.retries.taken(),
    };
    Ok((figures, first.units + seen.units))
}

/// Gives Postgres its statistics, as its autovacuum would before long.
async fn analyze(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql("analyze").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// An error unless as many rows are in the table as were acknowledged.
pub(crate) async fn check_stored(url: &str, table: &'static str, acknowledged: u64) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let count = AssertSqlSafe(format!("select count(*) from {table}"));
    let stored: i64 = sqlx::query_scalar(count).fetch_one(&mut connection).await?;
    connection.close().await?;
    check(stored.unsigned_abs(), acknowledged)
}

/// An error unless both are the same.
pub(crate) fn check(stored: u64, acknowledged: u64) -> Result<()> {
    ensure!(stored == acknowledged, "{acknowledged} were acknowledged, {stored} are stored");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_begins_a_new_stream_after_ten_events() {
        let mut place = Place::new();
        let first = place.stream.clone();
        for position in 1..EVENTS_PER_STREAM {
            place.advance(position);
            assert_eq!((place.version, place.position), (position, position));
        }
        assert_eq!(place.stream, first);
        place.advance(99);
        assert_eq!((place.version, place.position), (0, 0));
        assert_ne!(place.stream, first);
    }
    #[test]
    fn what_is_lost_or_stored_twice_is_found() {
        assert!(check(3, 3).is_ok());
        assert!(check(2, 3).is_err() && check(4, 3).is_err());
    }
}
