use crate::backlog::LastBacklog;
use crate::connection::{Connections, in_time, options};
use crate::jobs::{Answer, Job, JobPart, KeyInUse, KeysInUse, Phase};
use crate::metrics::Metrics;
use crate::reading::Reader;
use crate::schemas::Schemas;
use crate::served::Served;
use crate::snapshots::{self, Keeper, Offer};
use crate::upkeep;
use crate::writer::{Shared, Writer};
use crate::{Backlog, BacklogState, Execute, ExecuteError, Executed, HistoryEntry, MissingSchema};
use crate::{PostgresOutbox, StoreError, StoreOptions, Until, outbox};
use foldstream_core::{AnyAggregate, AnyState, Head, Invalid, StreamRef, TopicPartition, Uuid};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a closing store waits for the commits under way.
const CLOSING: Duration = Duration::from_secs(10);

/// The event store of one service. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct EventStore {
    inner: Arc<Inner>,
}

struct Inner {
    common: Arc<Shared>,
    owner: String,
    /// Empty once the store is closed.
    writers: Mutex<Vec<mpsc::Sender<Job>>>,
    tasks: Mutex<JoinSet<()>>,
    keys: KeysInUse,
    backlog: Arc<LastBacklog>,
    _stop: DropGuard,
    stop: CancellationToken,
}

impl EventStore {
    /// Opens the store of these aggregates. The database must be migrated.
    ///
    /// # Errors
    /// When the database does not answer, was made with another number of partitions, or belongs
    /// to another service.
    pub async fn open(
        options: StoreOptions,
        aggregates: Vec<Arc<dyn AnyAggregate>>,
        registry: &prometheus::Registry,
    ) -> Result<Self, StoreError> {
        let metrics = Metrics::new(&options.service)?;
        let connect = self::options(
            &options.database_url,
            &format!("{}-{}", options.app, options.service),
            &options.timings,
        )?;
        let connections = Connections::new(
            connect.clone(),
            options.limits.connections,
            &options.timings,
            metrics.pool_wait.clone(),
        );
        let (app, snapshots) = (&options.app, options.snapshots);
        let served = Served::new(app, options.partitions, aggregates, snapshots);
        let store_id = introduce(&connections, &options, &served).await?;
        let reader = Reader { connections, served, schemas: Schemas::default() };
        reader.schemas.load(&reader.connections, &reader.served).await?;
        // Last: who opens again after a failure would find them registered.
        metrics.register(registry)?;
        let (keeper, offers) = Keeper::new();
        let common = Arc::new(Shared {
            store_id,
            connect,
            timings: options.timings,
            limits: options.limits,
            reader: Arc::new(reader),
            metrics,
            appended: watch::Sender::new(0),
            keeper,
        });
        Ok(Self::start(common, offers, options.writers.max(1), options.owner))
    }

    fn start(
        common: Arc<Shared>,
        offers: mpsc::Receiver<Offer>,
        writers: usize,
        owner: String,
    ) -> Self {
        let (stop, backlog) = (CancellationToken::new(), Arc::new(LastBacklog::default()));
        let mut tasks = JoinSet::new();
        let mut senders = Vec::with_capacity(writers);
        for _ in 0..writers {
            let (sender, queue) = mpsc::channel(common.limits.queue.max(1));
            tasks.spawn(Writer::new(common.clone(), queue, writers).run());
            senders.push(sender);
        }
        tasks.spawn(upkeep::watch_backlog(common.clone(), backlog.clone(), stop.clone()));
        tasks.spawn(upkeep::prune(common.clone(), stop.clone()));
        tasks.spawn(snapshots::keep(common.clone(), offers, stop.clone()));
        // Dropping a set ends its tasks: a writer would lose its commands in mid-commit.
        let inner = Inner {
            common,
            owner,
            writers: Mutex::new(senders),
            tasks: Mutex::new(tasks),
            keys: KeysInUse::default(),
            backlog,
            _stop: stop.clone().drop_guard(),
            stop,
        };
        EventStore { inner: Arc::new(inner) }
    }

    /// The id of the store, made once per database; consistency tokens and topics carry it.
    pub fn store_id(&self) -> Uuid {
        self.inner.common.store_id
    }
    /// The stream of an aggregate; `None` when the service has no aggregate of that name.
    pub fn stream(&self, aggregate: &str, id: &str) -> Option<StreamRef> {
        let served = &self.inner.common.reader.served;
        let place = served.named(aggregate)?;
        Some(StreamRef::new(served.aggregates[place].topic.clone(), id))
    }
    /// All partitions of all topics of the service, in order.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        self.inner.common.reader.served.all_partitions()
    }

    /// Stores ids that the registry gave: record full name, id, schema text.
    ///
    /// # Errors
    /// When the database does not answer, a text is no schema, or an id stood for another one.
    pub async fn learn_schemas(&self, ids: &[(String, u32, String)]) -> Result<(), StoreError> {
        let reader = &self.inner.common.reader;
        reader.schemas.learn(&reader.connections, &reader.served, ids).await
    }
    /// The events whose schemas, exactly as the code has them, have no id yet. A command that
    /// leads to one of them is refused as [`ExecuteError::NoSchema`].
    pub fn missing_schemas(&self) -> Vec<MissingSchema> {
        let reader = &self.inner.common.reader;
        reader.schemas.missing(&reader.served)
    }

    /// Decides a command and appends what it leads to. When it answers, whatever the answer rests
    /// on is committed. A caller that hangs up cancels nothing.
    ///
    /// # Errors
    /// See [`ExecuteError`]; a rejection by the aggregate is no error but a verdict.
    pub async fn execute(&self, execute: Execute) -> Result<Executed, ExecuteError> {
        let place = self.place(execute.aggregate, &execute.stream_id)?;
        let (aggregate, stream, partition) = place;
        self.run(execute, aggregate, stream, partition, Vec::new()).await?.result
    }

    /// Where an aggregate's stream belongs: the place of its type, the stream, its partition.
    pub(crate) fn place(
        &self,
        aggregate: &str,
        stream_id: &str,
    ) -> Result<(usize, Arc<StreamRef>, i32), ExecuteError> {
        let served = &self.inner.common.reader.served;
        let unknown = || ExecuteError::Broken(format!("no aggregate `{aggregate}` here"));
        let place = served.named(aggregate).ok_or_else(unknown)?;
        let stream = StreamRef::new(served.aggregates[place].topic.clone(), stream_id);
        let partition = served.partition(&stream);
        Ok((place, Arc::new(stream), partition))
    }

    /// Sends a command to its writer and waits for its answer.
    pub(crate) async fn run(
        &self,
        execute: Execute,
        aggregate: usize,
        stream: Arc<StreamRef>,
        partition: i32,
        others: Vec<JobPart>,
    ) -> Result<Answer, ExecuteError> {
        let (common, backlog) = (&self.inner.common, self.backlog());
        if backlog.state(&common.limits) == BacklogState::Full {
            return Err(ExecuteError::OutboxFull);
        }
        let key = match &execute.idempotency {
            Some(key) => Some(
                KeyInUse::take(&self.inner.keys, &key.scope, &key.key)
                    .ok_or(ExecuteError::KeyInProgress)?,
            ),
            None => None,
        };
        let deadline = Instant::now() + execute.deadline;
        let (phase, (reply, answer)) = (Arc::new(Phase::default()), oneshot::channel());
        self.send(Job {
            aggregate,
            stream,
            partition,
            execute,
            request: Uuid::new_v4(),
            deadline,
            phase: phase.clone(),
            conflicts: 0,
            unsettled: false,
            repeats: false,
            others,
            reply,
            key,
        })?;
        let answer = match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Some(answer),
            // Its writer ended, or gave it up at the deadline.
            Ok(Err(_)) | Err(_) => None,
        };
        match answer {
            Some(answer) => Ok(answer),
            None if phase.abandon() => {
                Err(ExecuteError::Unavailable("the deadline passed, nothing was done".into()))
            }
            None => Err(ExecuteError::OutcomeUnknown),
        }
    }

    /// To the writer of the command's partition.
    fn send(&self, job: Job) -> Result<(), ExecuteError> {
        let writers = self.inner.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hasher = DefaultHasher::new();
        (&job.stream.topic, job.partition).hash(&mut hasher);
        let closed = || ExecuteError::Unavailable("the store is closing".into());
        let place = (hasher.finish() as usize).checked_rem(writers.len()).ok_or_else(closed)?;
        match writers[place].try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(ExecuteError::Overloaded),
            Err(TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Events of a stream from a version on, at most `limit`; none for an unknown stream.
    ///
    /// # Errors
    /// When the database does not answer, the topic is not of this service, or an event is broken.
    pub async fn history(
        &self,
        stream: &StreamRef,
        from_version: u64,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        self.inner.common.reader.history(stream, from_version, limit).await
    }
    /// The state of a stream with its version there; `None` before its first event.
    ///
    /// # Errors
    /// When the database does not answer, the topic is not of this service, or an event is broken.
    pub async fn state(
        &self,
        stream: &StreamRef,
        until: Until,
    ) -> Result<Option<(u64, AnyState)>, StoreError> {
        self.inner.common.reader.state(stream, until).await
    }
    /// The last position of each partition.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        outbox::heads(&self.inner.common.reader.connections).await
    }
    /// What waits for the relay, as it was measured last: within a second while something does.
    pub fn backlog(&self) -> Backlog {
        self.inner.backlog.get()
    }
    /// What that means for commands, under the limits of this store.
    pub fn backlog_state(&self) -> BacklogState {
        self.backlog().state(&self.inner.common.limits)
    }
    /// Measures what waits for the relay now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn measure_backlog(&self) -> Result<Backlog, StoreError> {
        let common = &self.inner.common;
        let connections = &common.reader.connections;
        self.inner.backlog.measure(connections, &common.metrics, &common.limits).await
    }
    /// Whether the database answers; for readiness.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        let connections = &self.inner.common.reader.connections;
        let mut connection = connections.borrow().await?;
        let call = sqlx::query("select 1").execute(&mut *connection);
        in_time(self.inner.common.timings.connect, call).await?;
        connection.give_back();
        Ok(())
    }
    /// What reads of this store go through.
    pub(crate) fn reader(&self) -> &Reader {
        &self.inner.common.reader
    }
    /// The outbox: this store as the relay sees it. Each call makes another owner of leases.
    pub fn outbox(&self) -> PostgresOutbox {
        PostgresOutbox::new(&self.inner.common, &self.inner.owner)
    }

    /// Takes no more commands, finishes those under way and closes the connections.
    pub async fn close(&self) {
        self.inner.writers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.inner.stop.cancel();
        let mut tasks =
            std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let finished = async { while tasks.join_next().await.is_some() {} };
        if timeout(CLOSING, finished).await.is_err() {
            tracing::warn!("commands are still under way; they are left to their writers");
            tasks.detach_all();
        }
        self.inner.common.reader.connections.close().await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writers end by themselves when they have done what was sent to them.
        self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).detach_all();
    }
}

/// Makes what a new store needs, or checks that the old one is this one; answers its id.
async fn introduce(
    connections: &Connections,
    options: &StoreOptions,
    served: &Served,
) -> Result<Uuid, StoreError> {
    if options.partitions < 1 {
        return Err(Invalid::new("partitions", "a topic has at least one partition").into());
    }
    let mut connection = connections.borrow().await?;
    let insert = sqlx::query(
        "insert into meta (app, service, partitions) values ($1, $2, $3)
         on conflict do nothing",
    )
    .bind(&options.app)
    .bind(&options.service)
    .bind(options.partitions)
    .execute(&mut *connection);
    in_time(connections.call, insert).await?;
    let select = sqlx::query_as("select store_id, app, service, partitions from meta")
        .fetch_one(&mut *connection);
    let (store_id, app, service, stored): (Uuid, String, String, i32) =
        in_time(connections.call, select).await?;
    if (&app, &service) != (&options.app, &options.service) {
        return Err(StoreError::OtherService { app, service });
    }
    if stored != options.partitions {
        return Err(StoreError::Partitions { stored, given: options.partitions });
    }
    let all = served.all_partitions();
    let topics: Vec<&str> = all.iter().map(|at| at.topic.as_str()).collect();
    let partitions: Vec<i32> = all.iter().map(|at| at.partition).collect();
    for statement in [
        "insert into heads (topic, partition) select * from unnest($1::text[], $2::integer[])
         on conflict do nothing",
        "insert into leases (topic, partition) select * from unnest($1::text[], $2::integer[])
         on conflict do nothing",
    ] {
        let insert = sqlx::query(statement).bind(&topics).bind(&partitions);
        in_time(connections.call, insert.execute(&mut *connection)).await?;
    }
    connection.give_back();
    Ok(store_id)
}
