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
    /// What Postgres and this process have used of the processors so far.
    pub(crate) fn cpu(&self) -> Cpu {
        let postmaster = self.local.postgres_pid().map(|pid| pid.to_string());
        let postgres = postmaster.map_or(0, |pid| {
            let children = processes().filter(|(_, stat)| stat.parent == pid);
            // What has ended already is in the account of its parent.
            let own = processes().find(|(id, _)| *id == pid);
            own.map_or(0, |(_, stat)| stat.ticks + stat.ended_ticks)
                + children.map(|(_, stat)| stat.ticks).sum::<u64>()
        });
        let own = Stat::of("self").map_or(0, |stat| stat.ticks);
        Cpu { ticks: postgres + own }
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
    /// A new empty database.
    pub(crate) async fn empty_database(&self) -> Result<String> {
        let url = self.new_database();
        let name = url.rsplit('/').next().context("an address ends in a database")?;
        let create = AssertSqlSafe(format!(
            "create database \"{name}\" template template0 encoding 'UTF8' locale 'C'"
        ));
        let mut admin = PgConnection::connect(&self.local.postgres_url("postgres")).await?;
        sqlx::raw_sql(create).execute(&mut admin).await?;
        admin.close().await?;
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

/// Processor time, in hundredths of a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    ticks: u64,
}

impl Cpu {
    /// Microseconds since `before` for each of so many units. Unlike a rate, it says much the same
    /// on a busy machine.
    pub(crate) fn micros_each(self, before: Cpu, units: u64) -> f64 {
        self.ticks.saturating_sub(before.ticks) as f64 * 10_000.0 / units.max(1) as f64
    }
}

/// What `/proc/<pid>/stat` says of a process.
struct Stat {
    parent: String,
    ticks: u64,
    ended_ticks: u64,
}

impl Stat {
    fn of(pid: &str) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
    fn read(text: &str) -> Option<Self> {
        // The name in parentheses may hold anything; the fields after it are numbers.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let parent = (*fields.get(1)?).to_owned();
        let (ticks, ended_ticks) = (number(11)? + number(12)?, number(13)? + number(14)?);
        Some(Stat { parent, ticks, ended_ticks })
    }
}

/// All processes, by id.
fn processes() -> impl Iterator<Item = (String, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        let stat = Stat::of(&pid)?;
        pid.parse::<u32>().ok().map(|_| (pid, stat))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_a_process_is_read_whatever_its_name() {
        let text = "7 (a) (b) S 3 7 7 0 -1 0 0 0 0 0 40 2 100 1 20 0";
        let stat = Stat::read(text).unwrap();
        assert_eq!((stat.parent.as_str(), stat.ticks, stat.ended_ticks), ("3", 42, 101));
        let (before, after) = (Cpu { ticks: 5 }, Cpu { ticks: 15 });
        assert_eq!(after.micros_each(before, 1_000), 100.0);
        assert!(peak_mb().is_some_and(|mb| mb > 1.0));
    }
}
