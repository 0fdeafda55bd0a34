//! Comparing a topic with the event store that it is filled from.

use super::takeover::{bounded, read};
use crate::reader::offset_of;
use crate::{Delivered, KafkaError, PartitionReader, Received};
use foldstream_core::{Lease, Outbox, OutboxEvent, Progress, TopicPartition};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Records compared in one go.
const CHUNK: usize = 1000;
/// Bytes read from the store in one go.
const PAGE_BYTES: usize = 4 << 20;
/// So many findings of a partition are told one by one; all are counted.
const EXAMPLES: usize = 10;
/// A partition that yields nothing for so long, though it should, is an error.
const SILENCE: Duration = Duration::from_secs(30);

/// Why a topic could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Kafka does not answer.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The event store does not answer.
    #[error("the event store does not answer: {0}")]
    Outbox(String),
}

/// How far the comparison of one partition has come, in records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Compared already.
    pub done: u64,
    /// In the partition when it began.
    pub total: u64,
}

/// A record that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where it lies.
    pub offset: i64,
    /// The position that it claims.
    pub position: Option<u64>,
    /// What is wrong with it.
    pub what: String,
}

/// One partition of a topic beside the same partition of the event store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// Which one.
    #[serde(flatten)]
    pub partition: TopicPartition,
    /// Whether the topic has it at all.
    pub exists: bool,
    /// The last position in the event store.
    pub head: u64,
    /// The position up to which the relay has sent everything.
    pub relayed: u64,
    /// The position up to which a reader comes that begins at the beginning and applies only last
    /// + 1.
    pub readable: u64,
    /// The first position that was relayed and that no reader comes to.
    pub missing_from: Option<u64>,
    /// How many positions from there on.
    pub missing: u64,
    /// Records compared.
    pub records: u64,
    /// Records of a position that came before. Readers drop them.
    pub repeats: u64,
    /// Records of a later position than the next one. Readers ignore them.
    pub ahead: u64,
    /// Records that the event store does not know.
    pub foreign: u64,
    /// Records of a position that are not the event there.
    pub differing: u64,
    /// The first findings of the last two kinds.
    pub findings: Vec<Finding>,
    /// Whether the topic holds what no relay of this store would have sent.
    #[serde(skip)]
    pub contradicts: bool,
    /// Where the readable run ends.
    #[serde(skip)]
    pub run: Progress,
}

impl PartitionReport {
    fn new(lease: &Lease) -> Self {
        PartitionReport {
            partition: lease.partition.clone(),
            exists: true,
            head: lease.head,
            relayed: lease.progress.position,
            readable: 0,
            missing_from: None,
            missing: 0,
            records: 0,
            repeats: 0,
            ahead: 0,
            foreign: 0,
            differing: 0,
            findings: Vec::new(),
            contradicts: false,
            run: Progress::default(),
        }
    }
    /// Whether all that was relayed is there, and nothing else.
    pub fn is_whole(&self) -> bool {
        self.exists && self.missing == 0 && self.foreign == 0 && self.differing == 0
    }
    /// Whether sending again from the first missing position makes readers whole. It does not
    /// where the topic contradicts the event store: the relay would stop there.
    pub fn is_mendable(&self) -> bool {
        self.missing > 0 && !self.contradicts
    }
    fn find(&mut self, offset: i64, position: Option<u64>, what: String) {
        if self.findings.len() < EXAMPLES {
            self.findings.push(Finding { offset, position, what });
        }
    }
    /// Counts a record as readers take it.
    fn count(&mut self, event: &Received) {
        if event.position == self.run.position + 1 {
            self.run = Progress { position: event.position, offset: Some(event.offset) };
        } else if event.position <= self.run.position {
            self.repeats += 1;
        } else {
            self.ahead += 1;
        }
    }
    fn close(&mut self) {
        self.readable = self.run.position;
        self.findings.sort_by_key(|finding| finding.offset);
        self.missing = self.relayed.saturating_sub(self.readable);
        self.missing_from = (self.missing > 0).then_some(self.readable + 1);
    }
}

/// Compares partitions one after the other, from the beginning, in bounded memory: a thousand
/// records and a page of the store at a time.
pub struct Verification<'a, O: Outbox> {
    outbox: &'a O,
    reader: PartitionReader,
    deadline: Duration,
}

impl<'a, O: Outbox> Verification<'a, O> {
    /// Of this store's topics in this cluster. No call of the store takes longer than `deadline`.
    ///
    /// # Errors
    /// When the Kafka client cannot be made of this configuration.
    pub fn new(outbox: &'a O, bootstrap: &str, deadline: Duration) -> Result<Self, KafkaError> {
        Ok(Verification { outbox, reader: PartitionReader::new(bootstrap)?, deadline })
    }

    /// How many records a partition holds now; none when there is no such topic.
    ///
    /// # Errors
    /// Kafka is away.
    pub async fn records(&self, partition: &TopicPartition) -> Result<u64, KafkaError> {
        match self.reader.watermarks(partition).await {
            Ok((low, high)) => Ok(u64::try_from(high - low).unwrap_or(0)),
            Err(KafkaError::NoTopic(_)) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Compares one partition; `tell` hears how far it has come.
    ///
    /// # Errors
    /// Kafka or the event store is away.
    pub async fn partition(
        &mut self,
        partition: &TopicPartition,
        mut tell: impl FnMut(Verified),
    ) -> Result<PartitionReport, VerifyError> {
        // In this order: what was relayed is below the watermark, and what is below the watermark
        // is in the store.
        let relayed = self.lease(partition).await?.progress.position;
        let marks = self.reader.watermarks(partition).await;
        let mut lease = self.lease(partition).await?;
        // It may have been set back meanwhile, by a repair.
        lease.progress.position = relayed.min(lease.progress.position);
        let mut report = PartitionReport::new(&lease);
        let (low, high) = match marks {
            Ok(marks) => marks,
            Err(KafkaError::NoTopic(_)) => {
                report.exists = false;
                report.close();
                return Ok(report);
            }
            Err(error) => return Err(error.into()),
        };
        let mut verified = Verified { done: 0, total: u64::try_from(high - low).unwrap_or(0) };
        tell(verified);
        if low < high {
            self.reader.open(partition, low).await?;
            let read = self.read_to(high, &mut report, &mut verified, &mut tell).await;
            self.reader.rest().await?;
            read?;
        }
        report.close();
        Ok(report)
    }

    async fn lease(&self, partition: &TopicPartition) -> Result<Lease, VerifyError> {
        let leases = bounded(self.deadline, self.outbox.leases()).await;
        let mut leases = leases.map_err(VerifyError::Outbox)?.into_iter();
        let found = leases.find(|lease| lease.partition == *partition);
        found.ok_or_else(|| VerifyError::Outbox(format!("it has no lease of {partition}")))
    }

    async fn read_to(
        &mut self,
        high: i64,
        report: &mut PartitionReport,
        verified: &mut Verified,
        tell: &mut impl FnMut(Verified),
    ) -> Result<(), VerifyError> {
        let mut heard = Instant::now();
        loop {
            let mut chunk = self.reader.next(CHUNK, self.deadline).await?;
            let last = chunk.records.last().map(offset_of);
            chunk.records.retain(|record| offset_of(record) < high);
            if !chunk.records.is_empty() {
                heard = Instant::now();
                verified.done += chunk.records.len() as u64;
                self.compare(&chunk.records, report).await?;
                tell(*verified);
            } else if !chunk.at_end && heard.elapsed() > SILENCE {
                let silent = format!("{} yields no records", report.partition);
                return Err(KafkaError::Unavailable(silent).into());
            }
            if chunk.at_end || last.is_some_and(|last| last + 1 >= high) {
                return Ok(());
            }
        }
    }

    /// Compares records with the events of their positions: runs of consecutive positions, which
    /// the relay sends, are one read of the store each.
    async fn compare(
        &self,
        records: &[Delivered],
        report: &mut PartitionReport,
    ) -> Result<(), VerifyError> {
        report.records += records.len() as u64;
        let mut run: Vec<&Received> = Vec::new();
        for record in records {
            let event = match record {
                Ok(event) => event,
                Err(malformed) => {
                    report.foreign += 1;
                    report.find(malformed.offset, malformed.position, malformed.reason.to_string());
                    continue;
                }
            };
            if event.store_id != self.outbox.store_id() || event.position > report.head {
                report.foreign += 1;
                report.contradicts = true;
                let what = match event.store_id == self.outbox.store_id() {
                    true => format!("the store ends at {}", report.head),
                    false => format!("it comes from store {}", event.store_id),
                };
                report.find(event.offset, Some(event.position), what);
                continue;
            }
            if run.last().is_some_and(|before| event.position != before.position + 1) {
                self.compare_run(&run, report).await?;
                run.clear();
            }
            run.push(event);
        }
        self.compare_run(&run, report).await
    }

    async fn compare_run(
        &self,
        mut run: &[&Received],
        report: &mut PartitionReport,
    ) -> Result<(), VerifyError> {
        while let Some(first) = run.first() {
            let most = (run.len(), PAGE_BYTES);
            let after = first.position.saturating_sub(1);
            let stored = read(self.outbox, &report.partition, after, most, self.deadline).await;
            let stored = stored.map_err(VerifyError::Outbox)?;
            if stored.is_empty() {
                let why = format!("{}: position {} is missing", report.partition, first.position);
                return Err(VerifyError::Outbox(why));
            }
            for (found, event) in run.iter().zip(&stored) {
                if let Some(what) = difference(found, event) {
                    report.differing += 1;
                    report.contradicts = true;
                    let what = format!("{what} differs from event {}", event.event_id);
                    report.find(found.offset, Some(found.position), what);
                }
                report.count(found);
            }
            run = &run[stored.len().min(run.len())..];
        }
        Ok(())
    }
}

/// What of a record is not as its event has it. All headers follow from these.
fn difference(found: &Received, event: &OutboxEvent) -> Option<&'static str> {
    let same = [
        ("position", found.position == event.position),
        ("ce_id", found.event_id == event.event_id),
        ("the key", *found.stream_id == *event.stream_id),
        ("the schema id", found.schema_id == event.schema_id),
        ("the value", found.datum == event.datum),
        ("ce_type", *found.event_type == *event.event_type),
        ("ce_streamversion", found.version == event.version),
        ("ce_time", found.recorded_at == event.recorded_at),
        ("ce_correlationid", found.correlation_id.as_deref() == event.correlation_id.as_deref()),
        ("ce_causationid", found.causation_id.as_deref() == event.causation_id.as_deref()),
        ("ce_actor", found.actor.as_deref() == event.actor.as_deref()),
        ("traceparent", found.traceparent.as_deref() == event.traceparent.as_deref()),
    ];
    same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
}
