//! Kafka and Postgres of a benchmark's own, and what this process needs of memory.

use anyhow::{Context, Result};
use foldstream_local::Local;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// Real Kafka and Postgres over a new directory, with durable defaults; gone when dropped.
pub(crate) struct Infra {
    local: Local,
    databases: AtomicU32,
}

/// What a benchmark needs beside Postgres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Needs {
    Postgres,
    PostgresAndKafka,
}

impl Infra {
    pub(crate) fn start(needs: Needs) -> Result<Self> {
        let local = Local::ephemeral(&mut |step| eprintln!("  {step}"))?;
        if needs == Needs::Postgres {
            // An idle broker still takes a few percent of a core.
            local.stop_kafka();
        }
        Ok(Infra { local, databases: AtomicU32::new(0) })
    }
    pub(crate) fn kafka(&self) -> &str {
        self.local.kafka()
    }
    /// The address of a database that is not there yet.
    pub(crate) fn new_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        self.local.postgres_url(&format!("bench_{number}"))
    }
    /// A new event database.
    pub(crate) async fn event_database(&self) -> Result<String> {
        let url = self.new_database();
        foldstream_postgres::migrate(&url).await?;
        Ok(url)
    }
    /// Drops a database, then lets Postgres write out what it owes, so that one measurement does
    /// not pay for the one before.
    pub(crate) async fn drop_database(&self, url: &str) -> Result<()> {
        let name = url.rsplit('/').next().context("an address ends in a database")?;
        let drop = AssertSqlSafe(format!("drop database \"{name}\" with (force)"));
        let mut admin = PgConnection::connect(&self.local.postgres_url("postgres")).await?;
        sqlx::raw_sql(drop).execute(&mut admin).await?;
        sqlx::raw_sql("checkpoint").execute(&mut admin).await?;
        Ok(admin.close().await?)
    }
}

/// Begins a new measurement of [`peak_mb`]. Where the kernel refuses, the old one goes on.
pub(crate) fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most resident memory of this process since [`reset_peak`], in MB.
pub(crate) fn peak_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1_024.0 / 1_000_000.0)
}
