//! Emmett with its PostgreSQL event store: `emmett/bench.mjs`, run by node in a process of its
//! own. Append is `appendToStream` with the expected version, command is `CommandHandler`.

use crate::child::Child;
use crate::infra::Infra;
use crate::notes::{self, ACTOR};
use crate::work::{EVENTS_PER_STREAM, Figures, Run, Way, check_stored};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Where the script is and its packages are installed.
pub(crate) const FOLDER: &str = "FOLDSTREAM_PEERS_EMMETT";

/// What the script may take beside the time that is asked for.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    connection_string: String,
    writers: usize,
    pool: u32,
    way: Way,
    events_per_stream: i64,
    warm_up_ms: u128,
    measured_ms: u128,
    text: String,
    actor: &'static str,
}

/// What the script says, a line each.
#[derive(Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Said {
    /// It is warm and begins to measure.
    Measuring,
    /// It is done.
    Done(Done),
}

#[derive(Deserialize)]
struct Done {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    rss_mb: f64,
    /// Of the measured part, its own warm-up included.
    units: u64,
    /// In all.
    acknowledged: u64,
    cpu_us: f64,
}

pub(crate) async fn measure(infra: &Infra, run: &Run) -> Result<Figures> {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        bail!("its packages are not installed ({FOLDER} is not set)");
    };
    let url = infra.empty_database().await?;
    let task = Task {
        connection_string: url.clone(),
        writers: run.writers,
        pool: run.setting,
        way: run.way,
        events_per_stream: EVENTS_PER_STREAM,
        warm_up_ms: run.plan.warm_up.as_millis(),
        measured_ms: run.plan.measured.as_millis(),
        text: notes::text(),
        actor: ACTOR,
    };
    let mut command = Command::new("node");
    command.arg("bench.mjs").arg(serde_json::to_string(&task)?).current_dir(folder);
    command.env("NODE_ENV", "production").stdout(Stdio::piped());
    let mut child = Child::start(&mut command)?;
    let limit = PATIENCE + (run.plan.warm_up + run.plan.measured) * 2;
    let (done, of_postgres) = tokio::time::timeout(limit, follow(infra, &mut child))
        .await
        .context("node takes too long")??;
    child.process.wait().await?;
    check_stored(&url, "emt_messages", done.acknowledged).await?;
    infra.drop_database(&url).await?;
    Ok(Figures {
        rate: done.rate,
        p50_ms: Some(done.p50_ms),
        p99_ms: Some(done.p99_ms),
        cpu_us: of_postgres + done.cpu_us / done.units.max(1) as f64,
        rss_mb: Some(done.rss_mb),
        // It tries again by itself, on conflicts; there are none.
        retries: 0,
    })
}

/// Listens until the script is done; also the processor time per event of Postgres.
async fn follow(infra: &Infra, child: &mut Child) -> Result<(Done, f64)> {
    let output = child.process.stdout.take().context("its output is a pipe")?;
    let mut lines = BufReader::new(output).lines();
    let mut before = infra.cpu();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line).with_context(|| format!("node said {line:?}"))? {
            Said::Measuring => before = infra.cpu(),
            Said::Done(done) => {
                let cpu = infra.cpu().micros_each(before, done.units);
                return Ok((done, cpu));
            }
        }
    }
    let status = child.process.wait().await?;
    bail!("node ended early: {status}")
}
