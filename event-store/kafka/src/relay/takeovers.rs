//! Taking partitions over one after the other, with one reader, and relaying each from then on.

use super::RelayOptions;
use super::lane::Lane;
use super::producer::Producer;
use super::state::{Board, PartitionState, Slot};
use super::takeover::{Obstacle, Takeover};
use crate::KafkaError;
use crate::reader::PartitionReader;
use foldstream_core::{Outbox, Progress};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two rounds over partitions that could not be taken over.
const RETRY: Duration = Duration::from_millis(300);

/// A claimed partition on its way to be relayed.
pub(super) struct Taking {
    pub(super) slot: Arc<Slot>,
    /// The slot's number in the producer.
    pub(super) number: usize,
}

pub(super) struct Takeovers<O: Outbox> {
    pub(super) outbox: Arc<O>,
    pub(super) board: Arc<Board>,
    pub(super) options: Arc<RelayOptions>,
    pub(super) producer: Arc<Producer>,
    pub(super) end: CancellationToken,
    pub(super) lanes: JoinSet<()>,
}

impl<O: Outbox> Takeovers<O> {
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Taking>) {
        let end = self.end.clone();
        let mut reader = None;
        tokio::select! {
            () = end.cancelled() => {}
            () = self.take_over_all(&mut queue, &mut reader) => {}
        }
        rest(reader).await;
        while self.lanes.join_next().await.is_some() {}
    }

    async fn take_over_all(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Taking>,
        reader: &mut Option<PartitionReader>,
    ) {
        let mut waiting: VecDeque<Taking> = VecDeque::new();
        let mut failures = 0;
        loop {
            while let Ok(taking) = queue.try_recv() {
                waiting.push_back(taking);
            }
            let Some(taking) = waiting.pop_front() else {
                // Nothing left to look at: the connection is not kept for it.
                rest(reader.take()).await;
                match queue.recv().await {
                    Some(taking) => waiting.push_back(taking),
                    None => return,
                }
                continue;
            };
            match self.take_over(&taking, reader).await {
                Ok((progress, head)) => {
                    failures = 0;
                    self.relay(taking, progress, head);
                }
                Err(obstacle) => {
                    if self.face(&taking.slot, obstacle) {
                        waiting.push_back(taking);
                        failures += 1;
                    }
                }
            }
            if failures > 0 && failures >= waiting.len() {
                failures = 0;
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn take_over(
        &self,
        taking: &Taking,
        reader: &mut Option<PartitionReader>,
    ) -> Result<(Progress, u64), Obstacle> {
        let reader = match reader {
            Some(reader) => reader,
            none => none.insert(PartitionReader::new(&self.options.bootstrap)?),
        };
        let takeover = Takeover {
            outbox: &*self.outbox,
            reader,
            claim: &taking.slot.claim,
            deadline: self.options.deadline,
        };
        takeover.run().await
    }

    fn relay(&mut self, taking: Taking, progress: Progress, head: u64) {
        let Taking { slot, number } = taking;
        let (partition, before) = (slot.partition(), slot.claim.progress.position);
        let (position, epoch) = (progress.position, slot.claim.epoch);
        if position < before {
            tracing::warn!(
                %partition, before, position,
                "the topic lost records; it is filled again from there"
            );
        }
        tracing::info!(%partition, epoch, position, head, "relaying");
        slot.begin(progress);
        slot.hear(head);
        self.board.set(&slot, PartitionState::Relaying);
        let lane = Lane {
            outbox: self.outbox.clone(),
            producer: self.producer.clone(),
            board: self.board.clone(),
            options: self.options.clone(),
            slot,
            number,
            end: self.end.clone(),
        };
        self.lanes.spawn(lane.run());
    }

    /// Shows what is in the way; whether it is worth to try again.
    fn face(&self, slot: &Slot, obstacle: Obstacle) -> bool {
        let partition = slot.partition();
        let state = match obstacle {
            Obstacle::Kafka(KafkaError::NoTopic(_)) => PartitionState::MissingTopic,
            Obstacle::Kafka(error) => PartitionState::KafkaAway(error.to_string()),
            Obstacle::Outbox(reason) => PartitionState::OutboxAway(reason),
            Obstacle::Contradiction(reason) => {
                tracing::error!(%partition, reason, "the relay stops this partition");
                self.board.set(slot, PartitionState::Stopped(reason));
                return false;
            }
        };
        if self.board.set(slot, state.clone()) {
            tracing::warn!(%partition, ?state, "cannot take over yet");
        }
        true
    }
}

/// Closing a client blocks for some milliseconds.
async fn rest(reader: Option<PartitionReader>) {
    if reader.is_some() {
        let _ = tokio::task::spawn_blocking(move || drop(reader)).await;
    }
}
