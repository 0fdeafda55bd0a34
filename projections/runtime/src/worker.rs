//! The worker of one build: owns partitions through its consumer group, folds what comes.
//!
//! It does one thing at a time against the read database. While a batch is written the next one
//! gathers, so batches are small when little comes and large when much does; nothing waits for a
//! batch to fill.

use crate::metrics::State;
use crate::partition::{Partition, Verdict};
use crate::source::Source;
use crate::writer::{News, Outcome, Portion, Writer};
use foldstream_core::TopicPartition;
use foldstream_kafka::{Batch, ConsumerEvent, ConsumerState};
use foldstream_tables::checkpoints::{Checkpoint, PartitionState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// A batch has no more records, nor bytes (unless one record has).
const BATCH_RECORDS: usize = 5_000;
const BATCH_BYTES: usize = 4 << 20;
/// With so much waiting nothing more is taken from the consumer.
const WAITING_BYTES: usize = 8 << 20;
const WAITING_RECORDS: usize = 20_000;
/// A gap that lasts so long gives an alarm.
const GAP_ALARM: Duration = Duration::from_secs(30);
/// A partition that another owner took while the group says it is ours is claimed again after this;
/// so is one whose next record has a schema that the registry does not know yet.
const CLAIM_AGAIN: Duration = Duration::from_secs(5);
/// What runs at shutdown has so long to end.
const DRAIN: Duration = Duration::from_secs(5);

/// A partition from its assignment to its revocation.
enum Owned {
    /// The checkpoint is not taken over yet; to be tried from this moment on.
    Unclaimed { generation: u64, from: Instant },
    /// It is being taken over.
    Claiming { generation: u64 },
    /// It is ours.
    Claimed(Box<Partition>),
}
impl Owned {
    fn generation(&self) -> u64 {
        match self {
            Owned::Unclaimed { generation, .. } | Owned::Claiming { generation } => *generation,
            Owned::Claimed(partition) => partition.generation,
        }
    }
}

/// What was done against the read database.
enum Done {
    Applied(Outcome),
    Claimed(Vec<Checkpoint>),
    Told,
    Ended,
}

pub(crate) struct Worker<S> {
    writer: Arc<Writer>,
    source: S,
    owned: BTreeMap<TopicPartition, Owned>,
    news: VecDeque<News>,
    /// The partition from which the next batch begins, so that none starves.
    turn: Option<TopicPartition>,
    /// Partitions whose next record has a schema that the registry does not know yet.
    without_schema: BTreeSet<TopicPartition>,
    state: State,
}

impl<S: Source> Worker<S> {
    pub(crate) fn new(writer: Arc<Writer>, source: S) -> Self {
        writer.metrics.set_state(writer.build.read_model, State::Starting);
        let (owned, news) = (BTreeMap::new(), VecDeque::new());
        let without_schema = BTreeSet::new();
        Worker { writer, source, owned, news, turn: None, without_schema, state: State::Starting }
    }

    /// Folds until shutdown.
    pub(crate) async fn run(mut self) {
        let shutdown = self.writer.shutdown.clone();
        let mut job: Option<JoinHandle<Done>> = None;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if job.is_none() {
                job = self.next_job();
            }
            self.show_state();
            let room = self.has_room();
            tokio::select! {
                () = shutdown.cancelled() => break,
                done = ended(&mut job), if job.is_some() => {
                    job = None;
                    self.settle(done);
                }
                event = self.source.next(), if room => match event {
                    Some(event) => self.hear(event),
                    None => break,
                },
                _ = tick.tick() => self.watch(),
            }
        }
        if let Some(job) = job {
            // A batch that is being committed may end; one that waits ends at shutdown by itself.
            let _ = tokio::time::timeout(DRAIN, job).await;
        }
        self.source.close(DRAIN).await;
    }

    fn has_room(&self) -> bool {
        let (mut records, mut bytes) = (0, 0);
        for partition in self.claimed() {
            let waiting = partition.waiting();
            records += waiting.0;
            bytes += waiting.1;
        }
        records < WAITING_RECORDS && bytes < WAITING_BYTES
    }

    fn claimed(&self) -> impl Iterator<Item = &Partition> {
        self.owned.values().filter_map(|owned| match owned {
            Owned::Claimed(partition) => Some(&**partition),
            Owned::Unclaimed { .. } | Owned::Claiming { .. } => None,
        })
    }

    fn find(&mut self, at: &TopicPartition) -> Option<&mut Partition> {
        match self.owned.get_mut(at)? {
            Owned::Claimed(partition) => Some(partition),
            Owned::Unclaimed { .. } | Owned::Claiming { .. } => None,
        }
    }

    /// What to do next against the read database, if anything.
    fn next_job(&mut self) -> Option<JoinHandle<Done>> {
        let writer = self.writer.clone();
        if let Some(news) = self.news.pop_front() {
            return Some(tokio::spawn(async move {
                writer.tell(&news).await;
                Done::Told
            }));
        }
        let unclaimed = self.unclaimed();
        if !unclaimed.is_empty() {
            return Some(tokio::spawn(async move {
                writer.claim(unclaimed).await.map_or(Done::Ended, Done::Claimed)
            }));
        }
        let portions = self.next_batch();
        if portions.is_empty() {
            return None;
        }
        Some(tokio::spawn(async move { Done::Applied(writer.apply(portions).await) }))
    }

    fn unclaimed(&mut self) -> Vec<TopicPartition> {
        let mut unclaimed = Vec::new();
        let now = Instant::now();
        for (at, owned) in &mut self.owned {
            if let Owned::Unclaimed { generation, from } = *owned
                && from <= now
            {
                *owned = Owned::Claiming { generation };
                unclaimed.push(at.clone());
            }
        }
        unclaimed
    }

    /// Records of all partitions that have some, the one whose turn it is first.
    fn next_batch(&mut self) -> Vec<Portion> {
        let mut partitions: Vec<&mut Partition> = Vec::new();
        for owned in self.owned.values_mut() {
            match owned {
                Owned::Claimed(partition) if partition.waiting().0 > 0 => {
                    partitions.push(partition)
                }
                Owned::Claimed(_) | Owned::Unclaimed { .. } | Owned::Claiming { .. } => {}
            }
        }
        let turn = self.turn.take();
        let first = partitions.iter().position(|p| Some(&p.at) > turn.as_ref()).unwrap_or(0);
        partitions.rotate_left(first);
        let (mut records, mut bytes) = (BATCH_RECORDS, BATCH_BYTES);
        let mut portions = Vec::new();
        for partition in partitions {
            if records == 0 || bytes == 0 {
                break;
            }
            let (at, epoch) = (partition.at.clone(), partition.epoch);
            let taken = partition.hand_out(records, bytes);
            records = records.saturating_sub(taken.len());
            bytes = bytes.saturating_sub(taken.iter().map(|record| record.datum.len()).sum());
            self.turn = Some(at.clone());
            portions.push(Portion { at, epoch, records: taken });
        }
        // Checkpoints are locked in this order by every worker.
        portions.sort_by(|a, b| a.at.cmp(&b.at));
        portions
    }

    fn hear(&mut self, event: ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned { partitions, generation } => {
                let from = Instant::now();
                for at in partitions {
                    self.owned.insert(at, Owned::Unclaimed { generation, from });
                }
            }
            ConsumerEvent::Revoked { partitions, lost: _ } => {
                // What is being written of them is written or not by the checkpoint alone.
                for at in &partitions {
                    self.owned.remove(at);
                    self.without_schema.remove(at);
                }
            }
            ConsumerEvent::Batch(batch) => self.take(batch),
            ConsumerEvent::OutOfRange { partition, generation, offset, low, high } => {
                tracing::warn!(%partition, offset, low, high,
                    "the topic was created again or lost records; it is read from its beginning");
                let own = self.find(&partition).filter(|own| own.generation == generation);
                if let Some(from) = own.map(|own| own.out_of_range(low)) {
                    self.source.start(&partition, generation, from);
                }
            }
            ConsumerEvent::State(ConsumerState::Connected) => {}
            ConsumerEvent::State(ConsumerState::Away(reason)) => {
                tracing::warn!(read_model = self.writer.build.read_model, reason, "Kafka is away");
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        let Some(partition) = self.find(&batch.partition) else { return };
        if partition.generation != batch.generation {
            return;
        }
        let (now, epoch) = (Instant::now(), partition.epoch);
        let (mut news, mut again) = (None, None);
        for record in batch.records {
            match partition.take(record, now) {
                Verdict::Accepted | Verdict::Dropped => {}
                Verdict::Gap => news = partition.gap().map(|gap| gap.told()),
                Verdict::Blocked => news = partition.block().map(|block| block.told()),
                Verdict::Reread(offset) => {
                    again = Some(offset);
                    break;
                }
            }
        }
        if let Some(offset) = again {
            self.source.start(&batch.partition, batch.generation, offset);
        }
        if let Some((state, detail)) = news {
            self.tell(News { at: batch.partition, epoch, state, detail });
        }
    }

    fn tell(&mut self, news: News) {
        let News { at, state, detail, .. } = &news;
        let (read_model, state) = (self.writer.build.read_model, state.as_str());
        tracing::error!(read_model, partition = %at, state, detail, "a partition stands still");
        self.news.push_back(news);
    }

    fn settle(&mut self, done: Done) {
        match done {
            Done::Told => {}
            // What it had in hand is read again.
            Done::Ended => {
                let from = Instant::now() + Duration::from_secs(1);
                for owned in self.owned.values_mut() {
                    *owned = Owned::Unclaimed { generation: owned.generation(), from };
                }
            }
            Done::Claimed(checkpoints) => {
                for checkpoint in checkpoints {
                    self.begin(checkpoint);
                }
            }
            Done::Applied(outcome) => self.settle_batch(outcome),
        }
    }

    /// Reads a partition from its last applied record on.
    fn begin(&mut self, checkpoint: Checkpoint) {
        let at = checkpoint.partition.clone();
        let Some(owned) = self.owned.get_mut(&at) else { return };
        // Revoked and assigned again meanwhile: it is claimed once more.
        let Owned::Claiming { generation } = *owned else { return };
        let (partition, offset) = Partition::new(generation, checkpoint);
        tracing::debug!(partition = %at, position = partition.committed, offset, "claimed");
        *owned = Owned::Claimed(Box::new(partition));
        self.source.start(&at, generation, offset);
    }

    fn settle_batch(&mut self, outcome: Outcome) {
        for (at, epoch, position) in outcome.committed {
            if let Some(partition) = self.find(&at).filter(|p| p.epoch == epoch) {
                partition.committed = position;
                if self.without_schema.remove(&at) {
                    tracing::info!(partition = %at, "the schema is known now, goes on");
                }
            }
        }
        for (at, epoch) in outcome.lost {
            let Some(partition) = self.find(&at).filter(|p| p.epoch == epoch) else { continue };
            let generation = partition.generation;
            tracing::info!(partition = %at, "another worker has taken the partition over");
            let from = Instant::now() + CLAIM_AGAIN;
            self.owned.insert(at, Owned::Unclaimed { generation, from });
        }
        for failure in outcome.failed {
            let Some(partition) = self.find(&failure.at).filter(|p| p.epoch == failure.epoch)
            else {
                continue;
            };
            let generation = partition.generation;
            partition.fail(failure.position, failure.reason);
            if failure.passing {
                let told = partition.block().map(|block| block.told());
                self.ask_again(failure.at, generation, failure.epoch, told);
                continue;
            }
            let told = partition.block().map(|block| block.told());
            self.source.pause(&failure.at);
            if let Some((state, detail)) = told {
                self.tell(News { at: failure.at, epoch: failure.epoch, state, detail });
            }
        }
    }

    /// Reads a partition again a little later, from what is committed: nothing is left out.
    fn ask_again(
        &mut self,
        at: TopicPartition,
        generation: u64,
        epoch: i64,
        told: Option<(PartitionState, String)>,
    ) {
        let from = Instant::now() + CLAIM_AGAIN;
        self.owned.insert(at.clone(), Owned::Unclaimed { generation, from });
        if let Some((state, detail)) = told
            && self.without_schema.insert(at.clone())
        {
            self.tell(News { at, epoch, state, detail });
        }
    }

    /// Gives the alarm of gaps that last.
    fn watch(&mut self) {
        let Some(then) = Instant::now().checked_sub(GAP_ALARM) else { return };
        for owned in self.owned.values_mut() {
            let Owned::Claimed(partition) = owned else { continue };
            let at = partition.at.clone();
            if let Some(gap) = partition.alarm(then) {
                let (_, detail) = gap.told();
                let seconds = GAP_ALARM.as_secs();
                tracing::error!(partition = %at, detail, "the gap lasts for {seconds} s");
            }
        }
    }

    fn show_state(&mut self) {
        let mut state = if self.owned.is_empty() { State::Starting } else { State::Running };
        for partition in self.claimed() {
            if partition.block().is_some() {
                state = State::Failed;
            } else if partition.gap().is_some() && state != State::Failed {
                state = State::Gap;
            }
        }
        let waits = self.writer.waiting.load(Ordering::Relaxed) || !self.without_schema.is_empty();
        if state != State::Failed && waits {
            state = State::Waiting;
        }
        if state != self.state {
            self.writer.metrics.set_state(self.writer.build.read_model, state);
            self.state = state;
        }
    }
}

/// Waits for the job; for ever when there is none.
async fn ended(job: &mut Option<JoinHandle<Done>>) -> Done {
    match job {
        Some(job) => job.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a task of a projection ended");
            Done::Ended
        }),
        None => std::future::pending().await,
    }
}
