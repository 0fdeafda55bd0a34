//! Verifying and repairing topics, with a line each second to say how far it is.

use super::admin::Lines;
use crate::settings::KafkaSettings;
use foldstream_core::{Lease, Outbox, TopicPartition};
use foldstream_kafka::{
    Cluster, KafkaError, PartitionReport, TopicSpec, Verification, Verified, VerifyError,
};
use foldstream_postgres::PostgresOutbox;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// No call of the event store takes longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// A line this often.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked how far the relay is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A relay that has not moved on for so long is not there.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked of one service.
pub(super) struct Part {
    pub(super) service: &'static str,
    pub(super) outbox: Arc<PostgresOutbox>,
    pub(super) leases: Vec<Lease>,
}

/// Why the outcome is not known.
enum Failed {
    Down(String),
    Timeout(String),
    Refused(String),
}
impl From<KafkaError> for Failed {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::Unavailable(_) | KafkaError::NoTopic(_) => Failed::Down(error.to_string()),
            KafkaError::Refused(_) | KafkaError::Configuration(_) | KafkaError::Mismatch { .. } => {
                Failed::Refused(error.to_string())
            }
        }
    }
}
impl From<VerifyError> for Failed {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Kafka(error) => error.into(),
            VerifyError::Outbox(_) => Failed::Down(error.to_string()),
        }
    }
}
impl Failed {
    fn line(self) -> Value {
        let (reason, error) = match self {
            Failed::Down(error) => ("down", error),
            Failed::Timeout(error) => ("timeout", error),
            Failed::Refused(error) => ("refused", error),
        };
        json!({ "state": "failed", "reason": reason, "error": error })
    }
}

/// Counts and says it, a line a second.
struct Pace<'a> {
    lines: &'a Lines,
    state: &'static str,
    begun: Instant,
    said: Option<Instant>,
    done: u64,
    total: u64,
}
impl<'a> Pace<'a> {
    fn new(lines: &'a Lines, state: &'static str, total: u64) -> Self {
        Pace { lines, state, begun: Instant::now(), said: None, done: 0, total }
    }
    async fn at(&mut self, done: u64, at: Option<&TopicPartition>) {
        self.done = done;
        if self.said.is_some_and(|said| said.elapsed() < LINE_EVERY) {
            return;
        }
        self.said = Some(Instant::now());
        let rate = done as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let left = self.total.saturating_sub(done) as f64;
        let eta = (rate > 0.0).then(|| (left / rate).ceil());
        let line = json!({
            "state": self.state,
            "topic": at.map(|at| &at.topic),
            "partition": at.map(|at| at.partition),
            "done": done,
            "total": self.total.max(done),
            "rate_per_s": rate.round(),
            "eta_s": eta,
        });
        self.lines.say(&line).await;
    }
}

/// Compares the topics with the event tables; the last line.
pub(super) async fn verify(bootstrap: &str, parts: Vec<Part>, lines: &Lines) -> Value {
    match compare(bootstrap, &parts, lines).await {
        Ok(reports) => outcome(&reports),
        Err(failed) => failed.line(),
    }
}

/// Has the relays send again what the topics lost; the last line.
pub(super) async fn repair(
    bootstrap: &str,
    settings: &KafkaSettings,
    parts: Vec<Part>,
    lines: &Lines,
) -> Value {
    match mend(bootstrap, settings, &parts, lines).await {
        Ok((reports, mended)) => {
            let mut line = outcome(&reports);
            line["mended"] = json!(mended);
            line
        }
        Err(failed) => failed.line(),
    }
}

async fn compare(
    bootstrap: &str,
    parts: &[Part],
    lines: &Lines,
) -> Result<Vec<PartitionReport>, Failed> {
    let mut verifications = Vec::with_capacity(parts.len());
    let mut total = 0;
    for part in parts {
        let verification = Verification::new(&*part.outbox, bootstrap, DEADLINE)?;
        for lease in &part.leases {
            total += records(&verification, &lease.partition).await?;
        }
        verifications.push((verification, &part.leases));
    }
    let mut pace = Pace::new(lines, "verifying", total);
    pace.at(0, None).await;
    let mut reports = Vec::new();
    for (mut verification, leases) in verifications {
        for lease in leases {
            let before = pace.done;
            let (told, mut hears) = tokio::sync::watch::channel(Verified::default());
            let compare = verification.partition(&lease.partition, |verified| {
                told.send_replace(verified);
            });
            tokio::pin!(compare);
            let report = loop {
                tokio::select! {
                    report = &mut compare => break report?,
                    _ = hears.changed() => {
                        let done = before + hears.borrow_and_update().done;
                        pace.at(done, Some(&lease.partition)).await;
                    }
                }
            };
            pace.done = before + report.records;
            reports.push(report);
        }
    }
    Ok(reports)
}

/// A topic that was just created has no leader for a moment.
async fn records(
    verification: &Verification<'_, PostgresOutbox>,
    partition: &TopicPartition,
) -> Result<u64, KafkaError> {
    let until = Instant::now() + DEADLINE;
    loop {
        match verification.records(partition).await {
            Err(KafkaError::Unavailable(_)) if Instant::now() < until => sleep(LOOK_EVERY).await,
            answered => return answered,
        }
    }
}

fn outcome(reports: &[PartitionReport]) -> Value {
    let sum = |of: fn(&PartitionReport) -> u64| reports.iter().map(of).sum::<u64>();
    let whole = reports.iter().all(PartitionReport::is_whole);
    json!({
        "state": if whole { "whole" } else { "damaged" },
        "differences": sum(|r| r.missing + r.foreign + r.differing),
        "records": sum(|r| r.records),
        "missing": sum(|r| r.missing),
        "foreign": sum(|r| r.foreign),
        "differing": sum(|r| r.differing),
        "repeats": sum(|r| r.repeats),
        "partitions": reports,
    })
}

/// Creates the topics that are gone, sets the leases back to the end of what is readable, and
/// waits until their owners have sent everything again. The reports are those of afterwards.
async fn mend(
    bootstrap: &str,
    settings: &KafkaSettings,
    parts: &[Part],
    lines: &Lines,
) -> Result<(Vec<PartitionReport>, u64), Failed> {
    let cluster = Cluster::new(bootstrap)?.with_replication_factor(settings.replication_factor);
    let all = parts.iter().flat_map(|part| &part.leases);
    let topics: BTreeSet<&str> = all.map(|lease| lease.partition.topic.as_str()).collect();
    let specs: Vec<TopicSpec> =
        topics.iter().map(|topic| TopicSpec::new(*topic, settings.partitions)).collect();
    for topic in cluster.ensure(&specs).await?.created {
        tracing::warn!(topic, "the topic was gone; it is there again and will be filled");
    }
    let reports = compare(bootstrap, parts, lines).await?;
    let mut mended = 0;
    for part in parts {
        let own = |report: &&PartitionReport| {
            part.leases.iter().any(|lease| lease.partition == report.partition)
        };
        for report in reports.iter().filter(own).filter(|report| report.is_mendable()) {
            let partition = &report.partition;
            tracing::warn!(%partition, from = report.readable + 1, "the relay sends again");
            let rewound = part.outbox.rewind(partition, report.run).await;
            rewound.map_err(|error| Failed::Down(error.to_string()))?;
            mended += report.missing;
        }
    }
    refilled(parts, lines).await?;
    Ok((compare(bootstrap, parts, lines).await?, mended))
}

/// Returns when everything that had been relayed before is relayed again.
async fn refilled(parts: &[Part], lines: &Lines) -> Result<(), Failed> {
    let targets = parts.iter().flat_map(|part| &part.leases);
    let targets: BTreeMap<&TopicPartition, u64> =
        targets.map(|lease| (&lease.partition, lease.progress.position)).collect();
    let mut first: Option<u64> = None;
    let (mut last, mut moved) = (0, Instant::now());
    let mut pace = Pace::new(lines, "sending", 0);
    loop {
        let mut left = 0;
        for part in parts {
            let leases = part.outbox.leases().await;
            for lease in leases.map_err(|error| Failed::Down(error.to_string()))? {
                let target = targets.get(&lease.partition).copied().unwrap_or(0);
                left += target.saturating_sub(lease.progress.position);
            }
        }
        if left == 0 {
            return Ok(());
        }
        let total = *first.get_or_insert(left);
        pace.total = pace.total.max(total).max(left);
        if left != last {
            (last, moved) = (left, Instant::now());
        } else if moved.elapsed() > PATIENCE {
            let message = format!("{left} events are left and no relay sends them; does one run?");
            return Err(Failed::Timeout(message));
        }
        pace.at(pace.total - left, None).await;
        sleep(LOOK_EVERY).await;
    }
}
