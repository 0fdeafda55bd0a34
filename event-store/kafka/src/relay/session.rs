//! One producer and what it sends, from the first claim to the first trouble.

use super::RelayOptions;
use super::producer::{Producer, producer};
use super::state::{Board, Slot};
use super::takeover::bounded;
use super::takeovers::{Takeovers, Taking};
use crate::KafkaError;
use crate::planted::{Fault, planted};
use foldstream_core::{Claim, Outbox, Progress, TopicPartition};
use rdkafka::producer::{Producer as _, PurgeConfig};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// A relay that has less than its share asks so often for more.
const HUNGRY: Duration = Duration::from_millis(500);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(300);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was asked to.
    Shutdown,
    /// A delivery failed, the topic lost records, a claim went to another relay: everything is
    /// taken over anew.
    Trouble(String),
}

/// Everything between one producer's making and its destruction.
pub(super) struct Session<O: Outbox> {
    outbox: Arc<O>,
    board: Arc<Board>,
    options: Arc<RelayOptions>,
    producer: Arc<Producer>,
    slots: HashMap<TopicPartition, Held>,
    /// Ends the tasks of this session.
    end: CancellationToken,
    tasks: JoinSet<()>,
    renewed: Instant,
    /// How many partitions are its share, as last heard.
    share: usize,
    /// When it was last asked whether Kafka is back.
    looked: Instant,
}
struct Held {
    slot: Arc<Slot>,
    recorded: Progress,
    counted: u64,
    /// It was given back, though the answer may have been lost.
    given: bool,
}

impl<O: Outbox> Session<O> {
    pub(super) fn new(
        outbox: Arc<O>,
        board: Arc<Board>,
        options: Arc<RelayOptions>,
    ) -> Result<Self, KafkaError> {
        board.clear();
        let producer = Arc::new(producer(&options, board.clone())?);
        Ok(Session {
            outbox,
            board,
            options,
            producer,
            slots: HashMap::new(),
            end: CancellationToken::new(),
            tasks: JoinSet::new(),
            renewed: Instant::now(),
            share: 0,
            looked: Instant::now(),
        })
    }

    /// Claims, takes over, relays, records; until it is told to end or cannot go on.
    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> End {
        let (claims, takeovers) = mpsc::unbounded_channel();
        self.spawn_takeovers(takeovers);
        self.spawn_watch();
        let producer = self.producer.clone();
        let link = producer.client().context();
        let mut renew = interval(self.options.renew_every);
        let mut tick = interval(self.options.record_every);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return End::Shutdown,
                () = link.failed.notified() => {
                    let reason = link.failure().unwrap_or("unknown").to_owned();
                    return End::Trouble(reason);
                }
                _ = renew.tick() => {
                    if let Err(reason) = self.renew(&claims).await {
                        return End::Trouble(reason);
                    }
                    if self.slots.len() < self.share {
                        // Others hand over, or their leases run out: soon there is more to take.
                        renew.reset_after(self.options.renew_every.min(HUNGRY));
                    }
                }
                _ = tick.tick() => {
                    if let Err(reason) = self.record().await {
                        return End::Trouble(reason);
                    }
                    self.hand_over().await;
                    self.look_for_kafka();
                }
            }
        }
    }

    /// Hears of new events and tells the lanes.
    fn spawn_watch(&mut self) {
        let (outbox, board, end) = (self.outbox.clone(), self.board.clone(), self.end.clone());
        let deadline = self.options.deadline;
        self.tasks.spawn(async move {
            let watch = async {
                loop {
                    match bounded(deadline, outbox.heads()).await {
                        Ok(heads) => board.heads(&heads),
                        Err(reason) => {
                            tracing::debug!(reason, "the heads are not known");
                            tokio::time::sleep(RETRY).await;
                            continue;
                        }
                    }
                    outbox.woken().await;
                }
            };
            tokio::select! { () = end.cancelled() => {} () = watch => {} }
        });
    }

    fn spawn_takeovers(&mut self, queue: mpsc::UnboundedReceiver<Taking>) {
        let takeovers = Takeovers {
            outbox: self.outbox.clone(),
            board: self.board.clone(),
            options: self.options.clone(),
            producer: self.producer.clone(),
            end: self.end.clone(),
            lanes: JoinSet::new(),
        };
        self.tasks.spawn(takeovers.run(queue));
    }

    /// Renews the claims; an error when one was lost.
    async fn renew(&mut self, takeovers: &mpsc::UnboundedSender<Taking>) -> Result<(), String> {
        // Never longer than the lease lasts, or a claim that ran out would go unnoticed.
        let left = self.options.lease.saturating_sub(self.renewed.elapsed());
        let deadline = self.options.deadline.min(left.max(self.options.renew_every));
        let claims = match bounded(deadline, self.outbox.claim()).await {
            Ok(claims) => claims,
            Err(reason) => {
                self.board.claims(Err(reason.clone()));
                // Whoever takes the claims over may begin when the lease is over, so we end before.
                let late = self.renewed.elapsed() + self.options.renew_every > self.options.lease;
                return match late && !self.slots.is_empty() {
                    true => Err(format!("the claims could not be renewed: {reason}")),
                    false => Ok(()),
                };
            }
        };
        self.board.claims(Ok(()));
        self.renewed = Instant::now();
        self.share = claims.share;
        let is_held = |partition: &TopicPartition| {
            claims.held.iter().any(|claim| claim.partition == *partition)
        };
        for partition in self.given().filter(|at| !is_held(at)).cloned().collect::<Vec<_>>() {
            self.forget(&partition);
        }
        for (partition, held) in &self.slots {
            let same = |claim: &&Claim| claim.partition == *partition;
            match claims.held.iter().find(same) {
                Some(claim) if claim.epoch == held.slot.claim.epoch => {}
                Some(_) | None => return Err(format!("the claim on {partition} was lost")),
            }
        }
        self.begin_to_leave(claims.surplus());
        for claim in claims.held {
            if !self.slots.contains_key(&claim.partition) {
                self.take(claim, takeovers);
            }
        }
        Ok(())
    }

    fn take(&mut self, claim: Claim, takeovers: &mpsc::UnboundedSender<Taking>) {
        let slot = Arc::new(Slot::new(claim));
        self.board.put(&slot);
        let recorded = slot.claim.progress;
        let counted = recorded.position;
        let held = Held { slot: slot.clone(), recorded, counted, given: false };
        self.slots.insert(slot.partition().clone(), held);
        let number = self.producer.client().context().add(slot.clone());
        // The task at the other end lives as long as the session.
        let _ = takeovers.send(Taking { slot, number });
    }

    /// Sends nothing more of as many partitions as are more than the share: the last ones in the
    /// order in which free ones are taken.
    fn begin_to_leave(&self, surplus: usize) {
        let mut slots: Vec<&Arc<Slot>> = self.slots.values().map(|held| &held.slot).collect();
        let leaving = slots.iter().filter(|slot| slot.leave.is_cancelled()).count();
        slots.retain(|slot| !slot.leave.is_cancelled());
        slots.sort_by_key(|slot| {
            let TopicPartition { topic, partition } = slot.partition();
            std::cmp::Reverse((*partition, topic))
        });
        for slot in slots.into_iter().take(surplus.saturating_sub(leaving)) {
            tracing::info!(partition = %slot.partition(), "goes to another relay");
            slot.leave.cancel();
        }
    }

    /// Gives back what left: all of it is acknowledged and recorded.
    async fn hand_over(&mut self) {
        let mut claims = Vec::new();
        for held in self.slots.values_mut().filter(|held| held.slot.has_left()) {
            if held.recorded == held.slot.progress() {
                held.given = true;
                claims.push(held.slot.claim.clone());
            }
        }
        if claims.is_empty() {
            return;
        }
        let deadline = self.options.deadline.min(self.options.renew_every);
        match bounded(deadline, self.outbox.give_up(&claims)).await {
            Ok(()) => claims.iter().for_each(|claim| self.forget(&claim.partition)),
            Err(reason) => tracing::debug!(reason, "not handed over yet"),
        }
    }

    fn given(&self) -> impl Iterator<Item = &TopicPartition> {
        self.slots.iter().filter(|(_, held)| held.given).map(|(partition, _)| partition)
    }

    fn forget(&mut self, partition: &TopicPartition) {
        self.slots.remove(partition);
        self.board.remove(partition);
    }

    /// Writes down how far everything has come, where that changed; an error when a claim was lost.
    async fn record(&mut self) -> Result<(), String> {
        let mut moved = Vec::new();
        for held in self.slots.values_mut().filter(|held| held.slot.is_taken_over()) {
            let mut progress = held.slot.progress();
            if planted(Fault::ProgressBeforeDelivery) {
                progress.position = held.slot.sent.load(Ordering::Acquire);
            }
            if progress.position > held.counted {
                let topic = &held.slot.partition().topic;
                self.board.published(topic, progress.position - held.counted);
            }
            held.counted = progress.position;
            if progress != held.recorded {
                moved.push((held.slot.claim.clone(), progress));
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        // Short, for renewing waits meanwhile.
        let deadline = self.options.deadline.min(self.options.renew_every);
        match bounded(deadline, self.outbox.record(&moved)).await {
            Ok(lost) if lost.is_empty() => {
                for (claim, progress) in moved {
                    if let Some(held) = self.slots.get_mut(&claim.partition) {
                        held.recorded = progress;
                    }
                }
                Ok(())
            }
            Ok(lost) => Err(format!("the claim on {} was lost", lost[0])),
            Err(reason) => {
                // Nothing is lost by it: the next owner reads a little more of the topic.
                tracing::debug!(reason, "progress is not recorded yet");
                Ok(())
            }
        }
    }

    /// While Kafka is away and nothing is being sent, nothing else tells that it is back.
    fn look_for_kafka(&mut self) {
        let due = self.looked.elapsed() > Duration::from_secs(1);
        if !due || !self.board.is_kafka_away() || self.slots.is_empty() {
            return;
        }
        self.looked = Instant::now();
        let (producer, board) = (self.producer.clone(), self.board.clone());
        let topic = self.slots.keys().next().map(|partition| partition.topic.clone());
        drop(tokio::task::spawn_blocking(move || {
            let asked = producer.client().fetch_metadata(topic.as_deref(), RETRY);
            if asked.is_ok() {
                board.kafka(None);
            }
        }));
    }

    /// Ends the tasks, destroys the producer and what it still holds. Shutting down waits a moment
    /// for what is under way.
    pub(super) async fn close(mut self, end: &End) {
        let link = self.producer.client().context().clone();
        self.end.cancel();
        let patience = self.options.deadline + Duration::from_secs(1);
        if matches!(end, End::Shutdown) {
            let drained = async {
                while !self.slots.values().all(|held| held.slot.is_drained()) {
                    link.drained.notified().await;
                }
            };
            // What is not acknowledged by then is found by the next takeover.
            let _ = tokio::time::timeout(self.options.drain, drained).await;
        }
        link.close();
        if planted(Fault::TailTakeover) {
            std::mem::forget(self.producer.clone());
        } else {
            self.producer.purge(PurgeConfig::default().queue().inflight());
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, ended).await.is_err() {
            self.tasks.abort_all();
        }
        if let Err(reason) = self.record().await {
            tracing::debug!(reason, "progress is not recorded");
        }
        self.board.clear();
        let producer = self.producer;
        drop(self.tasks);
        // Destroying a producer blocks for some milliseconds.
        let destroyed = tokio::task::spawn_blocking(move || drop(producer));
        let _ = tokio::time::timeout(patience, destroyed).await;
    }
}
