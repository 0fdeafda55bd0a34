//! Folds batches and writes them: rows and checkpoints in one transaction.

use crate::fold::{self, Poison, Topics};
use crate::metrics::ProjectionMetrics;
use crate::partition::Slice;
use crate::patience::Patience;
use foldstream_core::{AnyReadModel, AnyRows, Decoded, Timestamp, TopicPartition};
use foldstream_kafka::{Received, SchemaError, SchemaRegistry};
use foldstream_tables::checkpoints::{self, Advance, BuildRef, Checkpoint, PartitionState};
use foldstream_tables::{TableError, rows::TableSql};
use sqlx::Acquire;
use sqlx::postgres::{PgConnection, PgPool};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A transaction takes no longer, else its connection is given up.
const TRANSACTION: Duration = Duration::from_secs(30);
/// Larger batches are folded where blocking is allowed.
const SMALL: usize = 64;

/// Everything that stays the same for one build.
pub(crate) struct Writer {
    pub(crate) build: BuildRef,
    pub(crate) sql: TableSql,
    pub(crate) model: Arc<dyn AnyReadModel>,
    pub(crate) topics: Topics,
    pub(crate) pool: PgPool,
    pub(crate) registry: SchemaRegistry,
    pub(crate) metrics: ProjectionMetrics,
    /// Whether a dependency is away.
    pub(crate) waiting: AtomicBool,
    pub(crate) shutdown: CancellationToken,
}

/// Records of one partition, as they were received.
pub(crate) struct Portion {
    pub(crate) at: TopicPartition,
    pub(crate) epoch: i64,
    pub(crate) records: Vec<Received>,
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Partition, epoch and the position up to which it is committed now.
    pub(crate) committed: Vec<(TopicPartition, i64, u64)>,
    /// Partitions that another owner has, with our epoch.
    pub(crate) lost: Vec<(TopicPartition, i64)>,
    /// Partitions that stop at a position, with our epoch and the reason.
    pub(crate) failed: Vec<Failure>,
}
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) at: TopicPartition,
    pub(crate) epoch: i64,
    pub(crate) position: u64,
    pub(crate) reason: String,
    /// Whether it may be over by itself: the registry does not know the schema yet.
    pub(crate) passing: bool,
}
impl Outcome {
    /// Whether nothing of the slice is to be written any more.
    fn stops(&self, slice: &Slice) -> bool {
        self.lost.iter().any(|(at, _)| *at == slice.at)
            || self.failed.iter().any(|f| f.at == slice.at && f.position <= slice.to())
    }
}

/// Why a batch was not written.
enum Fault {
    /// The data is at fault.
    Poison(Poison),
    /// These partitions are not ours any more.
    Lost(Vec<TopicPartition>),
    /// A dependency is away.
    Away(String),
}
impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        match error.is_data() {
            true => Fault::Poison(Poison::Batch(error.to_string())),
            false => Fault::Away(error.to_string()),
        }
    }
}
impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        TableError::from(error).into()
    }
}

impl Writer {
    /// Folds and commits; whatever fails is retried, halved or told. Ends early, with part of the
    /// batch neither committed nor failed, only at shutdown.
    pub(crate) async fn apply(&self, portions: Vec<Portion>) -> Outcome {
        let mut outcome = Outcome::default();
        let slices = self.with_schemas(portions, &mut outcome).await;
        let mut stack = vec![slices];
        let mut patience = Patience::new(self);
        while let Some(mut slices) = stack.pop() {
            slices.retain(|slice| !slice.records.is_empty() && !outcome.stops(slice));
            if slices.is_empty() {
                continue;
            }
            let slices = Arc::new(slices);
            let result = self.once(&slices).await;
            // The fold is over, so is its share in the batch: nothing is cloned.
            let slices = Arc::unwrap_or_clone(slices);
            match result {
                Ok(()) => {
                    patience.over();
                    outcome
                        .committed
                        .extend(slices.iter().map(|s| (s.at.clone(), s.epoch, s.to())));
                }
                Err(Fault::Lost(partitions)) => {
                    let epoch = |at: &TopicPartition| slices.iter().find(|s| s.at == *at);
                    let lost = partitions.iter().filter_map(epoch);
                    outcome.lost.extend(lost.map(|s| (s.at.clone(), s.epoch)));
                    stack.push(slices);
                }
                Err(Fault::Poison(poison)) => {
                    patience.over();
                    divide(slices, poison, &mut stack, &mut outcome);
                }
                Err(Fault::Away(reason)) => {
                    if !patience.wait(&reason).await {
                        break;
                    }
                    stack.push(slices);
                }
            }
        }
        patience.over();
        outcome
    }

    /// Finds the schema of each record. A record whose schema is unknown stops its partition, until
    /// it is known.
    async fn with_schemas(&self, portions: Vec<Portion>, outcome: &mut Outcome) -> Vec<Slice> {
        let mut slices = Vec::with_capacity(portions.len());
        let mut patience = Patience::new(self);
        'portions: for Portion { at, epoch, records } in portions {
            let store_id = records.first().map_or(Uuid::nil(), |record| record.store_id);
            let (mut raw, mut offsets) = (Vec::with_capacity(records.len()), Vec::new());
            for record in records {
                let writer = loop {
                    let error = match self.registry.schema(record.schema_id).await {
                        Ok(writer) => break writer,
                        Err(error) => error,
                    };
                    let passing = matches!(error, SchemaError::Unknown(_));
                    if error.is_transient() && !passing {
                        if patience.wait(&error.to_string()).await {
                            continue;
                        }
                        break 'portions;
                    }
                    let (position, reason) = (record.position, undecodable(&error));
                    let at_fault = at.clone();
                    outcome.failed.push(Failure { at: at_fault, epoch, position, reason, passing });
                    slices.push(Slice { at, epoch, store_id, records: raw, offsets });
                    continue 'portions;
                };
                offsets.push(record.offset);
                raw.push(record.raw(writer));
            }
            slices.push(Slice { at, epoch, store_id, records: raw, offsets });
        }
        slices
    }

    /// One try: decode, fold, write, commit.
    async fn once(&self, slices: &Arc<Vec<Slice>>) -> Result<(), Fault> {
        let began = Instant::now();
        let decoded = self.decode(slices).await.map_err(Fault::Poison)?;
        let steps: Vec<Advance> = slices.iter().map(Slice::step).collect();
        let mut connection = self.pool.acquire().await?;
        let written = self.write(&mut connection, decoded, &steps);
        match tokio::time::timeout(TRANSACTION, written).await {
            Ok(done) => done?,
            Err(_) => {
                // Its state is not known and its server may be gone: the socket is closed at once.
                drop(connection.detach());
                return Err(TableError::Deadline(TRANSACTION).into());
            }
        }
        self.metrics.applied(self.build.read_model, began.elapsed());
        Ok(())
    }

    async fn decode(&self, slices: &Arc<Vec<Slice>>) -> Result<Vec<Decoded>, Poison> {
        if slices.iter().map(|slice| slice.records.len()).sum::<usize>() <= SMALL {
            return fold::decode(&self.topics, slices);
        }
        let (topics, slices) = (self.topics.clone(), slices.clone());
        let work = tokio::task::spawn_blocking(move || fold::decode(&topics, &slices));
        work.await.unwrap_or_else(|ended| Err(Poison::Batch(ended.to_string())))
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        decoded: Vec<Decoded>,
        steps: &[Advance],
    ) -> Result<(), Fault> {
        let mut rows = self.model.empty();
        let needed = rows.needs(&decoded);
        let mut transaction = connection.begin().await?;
        // The checkpoints first: who does not own them changes nothing and waits for nobody.
        let moved = checkpoints::advance(&mut transaction, self.build, steps).await?;
        if moved.len() < steps.len() {
            transaction.rollback().await?;
            let ours: HashSet<_> = moved.into_iter().collect();
            let lost = steps.iter().map(|step| &step.partition).filter(|at| !ours.contains(at));
            return Err(Fault::Lost(lost.cloned().collect()));
        }
        self.sql.load(&mut transaction, &*needed, &mut *rows).await?;
        let small = steps.iter().map(|step| step.to - step.from).sum::<u64>() <= SMALL as u64;
        let rows = apply(rows, decoded, small).await.map_err(Fault::Poison)?;
        let changes = rows.changes();
        self.sql.upsert(&mut transaction, &*changes.write).await?;
        self.sql.delete(&mut transaction, &*changes.delete).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Takes partitions over; `None` at shutdown.
    pub(crate) async fn claim(&self, partitions: Vec<TopicPartition>) -> Option<Vec<Checkpoint>> {
        let mut patience = Patience::new(self);
        loop {
            match self.claim_once(&partitions).await {
                Ok(checkpoints) => {
                    patience.over();
                    return Some(checkpoints);
                }
                Err(error) if patience.wait(&error.to_string()).await => {}
                Err(_) => return None,
            }
        }
    }
    async fn claim_once(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Checkpoint>, TableError> {
        let mut connection = self.pool.acquire().await?;
        let claimed = checkpoints::claim(&mut connection, self.build, partitions);
        match tokio::time::timeout(TRANSACTION, claimed).await {
            Ok(done) => done,
            Err(_) => {
                drop(connection.detach());
                Err(TableError::Deadline(TRANSACTION))
            }
        }
    }

    /// Says in the read database what stands in the way of a partition.
    pub(crate) async fn tell(&self, news: &News) {
        let mut patience = Patience::new(self);
        loop {
            match self.tell_once(news).await {
                Ok(_) => return patience.over(),
                Err(error) if patience.wait(&error.to_string()).await => {}
                Err(_) => return,
            }
        }
    }
    async fn tell_once(&self, news: &News) -> Result<bool, TableError> {
        let mut connection = self.pool.acquire().await?;
        let News { at, epoch, state, detail } = news;
        let told = checkpoints::tell(&mut connection, self.build, at, *epoch, *state, detail);
        match tokio::time::timeout(TRANSACTION, told).await {
            Ok(done) => done,
            Err(_) => {
                drop(connection.detach());
                Err(TableError::Deadline(TRANSACTION))
            }
        }
    }
}

/// What stands in the way of a partition.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) at: TopicPartition,
    pub(crate) epoch: i64,
    pub(crate) state: PartitionState,
    pub(crate) detail: String,
}

impl Slice {
    /// The position of the last record.
    fn to(&self) -> u64 {
        self.records.last().map_or(0, |record| record.position)
    }
    /// The step of the checkpoint.
    fn step(&self) -> Advance {
        let last = self.records.last();
        Advance {
            partition: self.at.clone(),
            epoch: self.epoch,
            from: self.from(),
            to: self.to(),
            offset: self.offsets.last().copied().unwrap_or(0),
            store_id: Some(self.store_id),
            event_id: last.map_or(Uuid::nil(), |record| record.event_id),
            last_event_at: last.map_or(Timestamp::EPOCH, |r| r.recorded_at),
        }
    }
}

async fn apply(
    mut rows: Box<dyn AnyRows>,
    decoded: Vec<Decoded>,
    small: bool,
) -> Result<Box<dyn AnyRows>, Poison> {
    let work = move || fold::apply(&mut *rows, &decoded).map(|()| rows);
    if small {
        return work();
    }
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|ended| Err(Poison::Batch(ended.to_string())))
}

fn undecodable(error: &SchemaError) -> String {
    format!("the record cannot be decoded: {error}")
}

/// A batch with poison in it. Where the record is known, the batch is tried again up to it; else
/// it is tried by halves, until one record is left and stops its partition.
fn divide(
    mut slices: Vec<Slice>,
    poison: Poison,
    stack: &mut Vec<Vec<Slice>>,
    outcome: &mut Outcome,
) {
    match poison {
        Poison::Record { at, position, reason } => {
            if let Some(slice) = slices.iter_mut().find(|slice| slice.at == at) {
                let before = slice.records.iter().take_while(|r| r.position < position).count();
                drop(slice.split_off(before));
                let (epoch, passing) = (slice.epoch, false);
                outcome.failed.push(Failure { at, epoch, position, reason, passing });
            }
            stack.push(slices);
        }
        Poison::Batch(reason) => {
            let rest = match &mut slices[..] {
                [] => return,
                [slice] if slice.records.len() == 1 => {
                    let (at, epoch, position) = (slice.at.clone(), slice.epoch, slice.to());
                    let passing = false;
                    return outcome.failed.push(Failure { at, epoch, position, reason, passing });
                }
                [slice] => vec![slice.split_off(slice.records.len() / 2)],
                several => {
                    let half = several.len() / 2;
                    slices.split_off(half)
                }
            };
            // The first half is taken first.
            stack.push(rest);
            stack.push(slices);
        }
    }
}
