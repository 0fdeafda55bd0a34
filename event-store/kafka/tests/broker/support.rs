//! An event store in memory, as relays see it, and topics of the test's own.

use foldstream_core::{
    Claim, Claims, Head, Lease, Outbox, OutboxEvent, Progress, Timestamp, TopicPartition,
    partition_of,
};
use foldstream_kafka::{
    Cluster, Delivered, PartitionReader, Received, Relay, RelayOptions, RelayWatch, TopicSpec,
};
use foldstream_testkit::{infra, unique};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const LONG: Duration = Duration::from_secs(40);

#[derive(Debug, Default)]
struct Partition {
    events: Vec<OutboxEvent>,
    owner: Option<Uuid>,
    epoch: i64,
    progress: Progress,
}

/// All partitions of one store; relays look at it through [`MemoryOutbox`].
#[derive(Debug)]
pub(crate) struct MemoryStore {
    pub(crate) id: Uuid,
    partitions: Mutex<BTreeMap<TopicPartition, Partition>>,
    /// Relays that count for the shares.
    living: Mutex<Vec<Uuid>>,
    claims: AtomicUsize,
    appended: Notify,
}

/// The store as one relay sees it.
#[derive(Debug, Clone)]
pub(crate) struct MemoryOutbox {
    store: Arc<MemoryStore>,
    owner: Uuid,
    /// Swallows what is recorded: a relay that crashes before it writes its progress.
    forgetful: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the store in memory does not fail")]
pub(crate) struct Never;

impl MemoryStore {
    pub(crate) fn new(topic: &str, partitions: i32) -> Arc<Self> {
        let all = (0..partitions).map(|n| (TopicPartition::new(topic, n), Partition::default()));
        Arc::new(MemoryStore {
            id: Uuid::new_v4(),
            partitions: Mutex::new(all.collect()),
            living: Mutex::default(),
            claims: AtomicUsize::new(0),
            appended: Notify::new(),
        })
    }
    pub(crate) fn outbox(self: &Arc<Self>) -> Arc<MemoryOutbox> {
        Arc::new(MemoryOutbox { store: self.clone(), owner: Uuid::new_v4(), forgetful: false })
    }
    pub(crate) fn forgetful_outbox(self: &Arc<Self>) -> Arc<MemoryOutbox> {
        Arc::new(MemoryOutbox { store: self.clone(), owner: Uuid::new_v4(), forgetful: true })
    }
    /// Appends an event to a stream, in the stream's partition.
    pub(crate) fn append(&self, topic: &str, stream_id: &str) -> OutboxEvent {
        let mut partitions = self.partitions.lock().unwrap();
        let count = partitions.keys().filter(|at| at.topic == topic).count() as i32;
        let at = TopicPartition::new(topic, partition_of(stream_id, count));
        let partition = partitions.get_mut(&at).unwrap();
        let same = partition.events.iter().rev().find(|e| e.stream_id == stream_id);
        let position = partition.events.len() as u64 + 1;
        let event = OutboxEvent {
            position,
            stream_id: stream_id.into(),
            version: same.map_or(1, |e| e.version + 1),
            event_id: Uuid::new_v4(),
            event_type: "shop.invoices.InvoiceIssued".into(),
            schema_id: 7,
            datum: format!("{stream_id} at {position}").into_bytes(),
            recorded_at: Timestamp::from_micros(1_291_191_960_123_456 + position as i64).unwrap(),
            correlation_id: Some("correlation".into()),
            causation_id: None,
            actor: Some("clerk".into()),
            traceparent: None,
        };
        partition.events.push(event.clone());
        drop(partitions);
        self.appended.notify_waiters();
        event
    }
    /// Appends so many events over `streams` streams.
    pub(crate) fn append_many(&self, topic: &str, events: usize, streams: usize) {
        for n in 0..events {
            self.append(topic, &format!("stream-{}", n % streams));
        }
    }
    pub(crate) fn events(&self, at: &TopicPartition) -> Vec<OutboxEvent> {
        self.partitions.lock().unwrap()[at].events.clone()
    }
    pub(crate) fn progress(&self, at: &TopicPartition) -> Progress {
        self.partitions.lock().unwrap()[at].progress
    }
    pub(crate) fn is_relayed(&self) -> bool {
        let partitions = self.partitions.lock().unwrap();
        partitions.values().all(|p| p.progress.position == p.events.len() as u64)
    }
    /// Gives a partition to an owner that no relay is.
    pub(crate) fn take_away(&self, at: &TopicPartition) {
        let mut partitions = self.partitions.lock().unwrap();
        let partition = partitions.get_mut(at).unwrap();
        partition.owner = Some(Uuid::new_v4());
        partition.epoch += 1;
    }
    /// How often relays renewed.
    pub(crate) fn claims(&self) -> usize {
        self.claims.load(Ordering::Relaxed)
    }
    pub(crate) fn epochs(&self) -> Vec<i64> {
        self.partitions.lock().unwrap().values().map(|p| p.epoch).collect()
    }
    /// Makes free what a dead relay owned, as when its leases run out.
    pub(crate) fn bury(&self, dead: Uuid) {
        for partition in self.partitions.lock().unwrap().values_mut() {
            partition.owner = partition.owner.filter(|owner| *owner != dead);
        }
        self.living.lock().unwrap().retain(|owner| *owner != dead);
    }
    /// Makes all partitions free, as when leases run out.
    pub(crate) fn expire(&self) {
        self.living.lock().unwrap().clear();
        for partition in self.partitions.lock().unwrap().values_mut() {
            partition.owner = None;
        }
    }
    /// Replaces the id of an event: history is another one from now on.
    pub(crate) fn falsify(&self, at: &TopicPartition, position: u64) {
        let mut partitions = self.partitions.lock().unwrap();
        partitions.get_mut(at).unwrap().events[position as usize - 1].event_id = Uuid::new_v4();
    }
    /// Forgets the last events, as a restore from an old backup does.
    pub(crate) fn truncate(&self, at: &TopicPartition, events: usize) {
        let mut partitions = self.partitions.lock().unwrap();
        partitions.get_mut(at).unwrap().events.truncate(events);
    }
    pub(crate) fn forget_progress(&self) {
        for partition in self.partitions.lock().unwrap().values_mut() {
            partition.progress = Progress::default();
        }
    }
}

impl Outbox for MemoryOutbox {
    type Error = Never;

    fn store_id(&self) -> Uuid {
        self.store.id
    }
    async fn claim(&self) -> Result<Claims, Never> {
        self.store.claims.fetch_add(1, Ordering::Relaxed);
        let mut partitions = self.store.partitions.lock().unwrap();
        let mut living = self.store.living.lock().unwrap();
        if !living.contains(&self.owner) {
            living.push(self.owner);
        }
        let rank = living.iter().position(|owner| *owner == self.owner).unwrap();
        let share = (partitions.len() + living.len() - 1 - rank) / living.len();
        let mut count = partitions.values().filter(|p| p.owner == Some(self.owner)).count();
        let mut held = Vec::new();
        for (at, partition) in partitions.iter_mut() {
            if partition.owner.is_none() && count < share {
                count += 1;
                partition.owner = Some(self.owner);
                partition.epoch += 1;
            }
            if partition.owner == Some(self.owner) {
                let Partition { epoch, progress, .. } = *partition;
                held.push(Claim { partition: at.clone(), epoch, progress });
            }
        }
        Ok(Claims { held, share })
    }
    async fn give_up(&self, claims: &[Claim]) -> Result<(), Never> {
        let mut partitions = self.store.partitions.lock().unwrap();
        for claim in claims {
            let partition = partitions.get_mut(&claim.partition).unwrap();
            if partition.epoch == claim.epoch && partition.owner == Some(self.owner) {
                partition.owner = None;
            }
        }
        Ok(())
    }
    async fn release(&self) -> Result<(), Never> {
        self.store.living.lock().unwrap().retain(|owner| *owner != self.owner);
        for partition in self.store.partitions.lock().unwrap().values_mut() {
            if partition.owner == Some(self.owner) {
                partition.owner = None;
            }
        }
        Ok(())
    }
    async fn read(
        &self,
        partition: &TopicPartition,
        after: u64,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxEvent>, Never> {
        let partitions = self.store.partitions.lock().unwrap();
        let mut bytes = 0;
        let events = partitions[partition].events.iter().skip(after as usize).take(max_events);
        let fits = |event: &&OutboxEvent| {
            let first = bytes == 0;
            bytes += event.datum.len();
            first || bytes <= max_bytes
        };
        Ok(events.take_while(fits).cloned().collect())
    }
    async fn record(&self, progress: &[(Claim, Progress)]) -> Result<Vec<TopicPartition>, Never> {
        let mut partitions = self.store.partitions.lock().unwrap();
        let mut lost = Vec::new();
        for (claim, progress) in progress {
            let partition = partitions.get_mut(&claim.partition).unwrap();
            if partition.epoch != claim.epoch || partition.owner != Some(self.owner) {
                lost.push(claim.partition.clone());
            } else if !self.forgetful {
                partition.progress = *progress;
            }
        }
        Ok(lost)
    }
    async fn leases(&self) -> Result<Vec<Lease>, Never> {
        let partitions = self.store.partitions.lock().unwrap();
        let lease = |(at, partition): (&TopicPartition, &Partition)| Lease {
            partition: at.clone(),
            owner: partition.owner.map(|owner| owner.to_string()),
            epoch: partition.epoch,
            expires_at: None,
            has_expired: false,
            progress: partition.progress,
            head: partition.events.len() as u64,
        };
        Ok(partitions.iter().map(lease).collect())
    }
    async fn rewind(&self, at: &TopicPartition, to: Progress) -> Result<bool, Never> {
        let mut partitions = self.store.partitions.lock().unwrap();
        let partition = partitions.get_mut(at).unwrap();
        let had_come = partition.progress.position >= to.position;
        if had_come {
            partition.progress = to;
            partition.epoch += 1;
        }
        Ok(had_come)
    }
    async fn heads(&self) -> Result<Vec<Head>, Never> {
        let partitions = self.store.partitions.lock().unwrap();
        let head = |(at, partition): (&TopicPartition, &Partition)| Head {
            partition: at.clone(),
            position: partition.events.len() as u64,
            recorded_at: partition.events.last().map(|e| e.recorded_at),
        };
        Ok(partitions.iter().map(head).collect())
    }
    async fn woken(&self) {
        // What was appended since the last look and before this call waits for the time-out.
        let _ =
            tokio::time::timeout(Duration::from_millis(50), self.store.appended.notified()).await;
    }
}

/// A relay at work.
pub(crate) struct Running {
    pub(crate) watch: RelayWatch,
    owner: Uuid,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}
impl Running {
    pub(crate) fn start(outbox: Arc<MemoryOutbox>, bootstrap: &str) -> Self {
        let mut options = RelayOptions::new(bootstrap, "http://registry:1/");
        options.renew_every = Duration::from_millis(300);
        options.record_every = Duration::from_millis(50);
        let owner = outbox.owner;
        let relay = Relay::new(outbox, options, None);
        let (watch, shutdown) = (relay.watch(), CancellationToken::new());
        let task = tokio::spawn(relay.run(shutdown.clone()));
        Running { watch, owner, shutdown, task }
    }
    /// Who it is in the store's leases.
    pub(crate) fn owner(&self) -> Uuid {
        self.owner
    }
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LONG, self.task).await.unwrap().unwrap();
    }
    /// Ends it where it stands, with nothing written and nothing given back.
    pub(crate) fn crash(self) {
        self.task.abort();
    }
}

/// A fresh topic of this many partitions in the shared Kafka.
pub(crate) async fn topic(partitions: i32) -> (Cluster, String) {
    let cluster = Cluster::new(&infra().kafka).unwrap();
    let name = format!("{}.invoices", unique("kafka"));
    cluster.ensure(&[TopicSpec::new(&name, partitions)]).await.unwrap();
    (cluster, name)
}

/// All that a partition holds.
pub(crate) async fn read_all(bootstrap: &str, at: &TopicPartition) -> Vec<Delivered> {
    let mut reader = PartitionReader::new(bootstrap).unwrap();
    let (low, high) = reader.watermarks(at).await.unwrap();
    if low == high {
        return Vec::new();
    }
    reader.open(at, low).await.unwrap();
    let mut records = Vec::new();
    loop {
        let chunk = reader.next(10_000, LONG).await.unwrap();
        records.extend(chunk.records);
        if chunk.at_end {
            return records;
        }
    }
}

/// First occurrences are the store's events in order; repeats are byte-equal. Says how many.
pub(crate) fn check_first_occurrences(records: &[Delivered], events: &[OutboxEvent]) -> usize {
    let mut first: Vec<&Received> = Vec::new();
    let mut repeats = 0;
    for record in records {
        let event = record.as_ref().unwrap();
        let place = event.position as usize - 1;
        if place < first.len() {
            repeats += 1;
            let before = first[place];
            assert_eq!(
                (&event.stream_id, &event.datum, event.event_id, event.recorded_at),
                (&before.stream_id, &before.datum, before.event_id, before.recorded_at),
            );
        } else {
            assert_eq!(place, first.len(), "position {} comes too early", event.position);
            first.push(event);
        }
    }
    let found: Vec<_> = first.iter().map(|e| (e.position, e.event_id, &e.datum)).collect();
    let stored: Vec<_> = events.iter().map(|e| (e.position, e.event_id, &e.datum)).collect();
    assert_eq!(found, stored);
    repeats
}
