//! Taking partitions over together, with one reader, and relaying each from then on.

use super::RelayOptions;
use super::lane::Lane;
use super::producer::Producer;
use super::state::{Board, PartitionState, Slot};
use super::tails::Tails;
use super::takeover::{Obstacle, Scan, Seen, bounded, compare};
use crate::KafkaError;
use foldstream_core::{Head, Outbox, Progress, TopicPartition};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Records read in one go.
const CHUNK: usize = 1000;
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

/// Everything between two connections to Kafka.
#[derive(Default)]
struct Work {
    tails: Option<Tails>,
    /// Not looked at yet, or not with success.
    waiting: Vec<Taking>,
    /// They are looked at from then on.
    retry_at: Option<Instant>,
    /// Being read.
    scans: Vec<(Taking, Scan)>,
    /// Numbers of partitions that had no more.
    ends: HashSet<i32>,
}

impl<O: Outbox> Takeovers<O> {
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Taking>) {
        let end = self.end.clone();
        let mut work = Work::default();
        tokio::select! {
            () = end.cancelled() => {}
            () = self.take_over_all(&mut queue, &mut work) => {}
        }
        rest(work.tails).await;
        while self.lanes.join_next().await.is_some() {}
    }

    async fn take_over_all(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Taking>,
        work: &mut Work,
    ) {
        loop {
            while let Ok(taking) = queue.try_recv() {
                work.waiting.push(taking);
            }
            while self.lanes.try_join_next().is_some() {}
            work.drop_leaving();
            if work.retry_at.is_none_or(|at| at <= Instant::now()) && !work.waiting.is_empty() {
                work.retry_at = None;
                self.begin(work).await;
            } else if work.scans.is_empty() {
                let next = match work.retry_at.filter(|_| !work.waiting.is_empty()) {
                    Some(at) => timeout_at(at, queue.recv()).await.ok(),
                    None => {
                        // Nothing left to look at: the connection is not kept for it.
                        rest(work.tails.take()).await;
                        Some(queue.recv().await)
                    }
                };
                match next {
                    Some(Some(taking)) => work.waiting.push(taking),
                    Some(None) => return,
                    None => {}
                }
            }
            if !work.scans.is_empty()
                && let Err(error) = self.read_on(work).await
            {
                tracing::debug!(%error, "the tails of topics cannot be read");
                work.again();
            }
        }
    }

    /// Asks for the watermarks of all that wait, then for the heads, and begins to read.
    async fn begin(&mut self, work: &mut Work) {
        let takings = std::mem::take(&mut work.waiting);
        if work.tails.is_none() {
            match Tails::new(&self.options.bootstrap) {
                Ok(tails) => work.tails = Some(tails),
                Err(error) => {
                    takings.into_iter().for_each(|taking| self.face(work, taking, error.clone()));
                    return;
                }
            }
        }
        let Some(tails) = &work.tails else { return };
        let (mut marked, mut obstacles, mut away) = (Vec::new(), Vec::new(), None);
        for taking in takings {
            // One that does not answer is not asked again for each partition.
            let marks = match &away {
                Some(error) => Err(KafkaError::clone(error)),
                None => tails.watermarks(taking.slot.partition()).await,
            };
            match marks {
                Ok(marks) => marked.push((taking, marks)),
                Err(error) => {
                    if !matches!(error, KafkaError::NoTopic(_)) {
                        away = Some(error.clone());
                    }
                    obstacles.push((taking, Obstacle::Kafka(error)));
                }
            }
        }
        if !marked.is_empty() {
            // Asked for after the watermarks: what was in a topic by then is in the store by now.
            let heads = bounded(self.options.deadline, self.outbox.heads()).await;
            for (taking, marks) in marked {
                let scan = match &heads {
                    Ok(heads) => {
                        let own = |head: &&Head| head.partition == *taking.slot.partition();
                        let head = heads.iter().find(own).map_or(0, |head| head.position);
                        let claim = taking.slot.claim.clone();
                        Scan::new(claim, self.outbox.store_id(), marks, head)
                    }
                    Err(reason) => Err(Obstacle::Outbox(reason.clone())),
                };
                match scan {
                    Ok(scan) => work.scans.push((taking, scan)),
                    Err(obstacle) => obstacles.push((taking, obstacle)),
                }
            }
        }
        for (taking, obstacle) in obstacles {
            self.face(work, taking, obstacle);
        }
        self.finish(work);
        if let Err(error) = work.assign().await {
            tracing::debug!(%error, "the tails of topics cannot be read");
            work.again();
        }
    }

    /// Reads on and takes in what came.
    async fn read_on(&mut self, work: &mut Work) -> Result<(), KafkaError> {
        let Some(tails) = &work.tails else { return Ok(()) };
        let tide = tails.next(CHUNK, self.options.deadline).await?;
        let silent = tide.records.is_empty() && tide.ends.is_empty();
        work.ends.extend(tide.ends);
        let mut again = false;
        for (partition, records) in tide.records {
            let of = |(taking, _): &(Taking, Scan)| *taking.slot.partition() == partition;
            let Some(place) = work.scans.iter().position(of) else { continue };
            let scan = &mut work.scans[place].1;
            let seen = match scan.look(&records) {
                Ok(Seen::Counted(counted)) => {
                    let deadline = self.options.deadline;
                    compare(&*self.outbox, &partition, &counted, deadline).await
                }
                Ok(Seen::Again) => {
                    again = true;
                    Ok(())
                }
                Err(obstacle) => Err(obstacle),
            };
            if let Err(obstacle) = seen {
                let (taking, _) = work.scans.swap_remove(place);
                self.face(work, taking, obstacle);
            }
        }
        if silent {
            let ended = work.ends.clone();
            let mut scans = work.scans.iter_mut().map(|(_, scan)| scan);
            if !scans.any(|scan| ended.contains(&scan.partition().partition)) {
                return Err(KafkaError::Unavailable("the partitions yield no records".into()));
            }
            let all = work.scans.iter_mut().map(|(_, scan)| scan);
            all.filter(|s| ended.contains(&s.partition().partition)).for_each(Scan::end);
        }
        let done = self.finish(work);
        match again {
            true => work.assign().await,
            false => work.pause(done).await,
        }
    }

    /// Begins to relay what is read to its end; says which.
    fn finish(&mut self, work: &mut Work) -> Vec<TopicPartition> {
        let mut done = Vec::new();
        for (taking, scan) in std::mem::take(&mut work.scans) {
            if scan.is_done() {
                done.push(scan.partition().clone());
                self.relay(taking, scan.run, scan.head);
            } else {
                work.scans.push((taking, scan));
            }
        }
        done
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

    /// Shows what is in the way, and tries again later if it is worth it.
    fn face(&self, work: &mut Work, taking: Taking, obstacle: impl Into<Obstacle>) {
        let slot = &taking.slot;
        let partition = slot.partition();
        let state = match obstacle.into() {
            Obstacle::Kafka(KafkaError::NoTopic(_)) => PartitionState::MissingTopic,
            Obstacle::Kafka(error) => PartitionState::KafkaAway(error.to_string()),
            Obstacle::Outbox(reason) => PartitionState::OutboxAway(reason),
            Obstacle::Contradiction(reason) => {
                tracing::error!(%partition, reason, "the relay stops this partition");
                self.board.set(slot, PartitionState::Stopped(reason));
                slot.rest();
                return;
            }
        };
        if self.board.set(slot, state.clone()) {
            tracing::warn!(%partition, ?state, "cannot take over yet");
        }
        work.retry_at = Some(Instant::now() + RETRY);
        work.waiting.push(taking);
    }
}

impl Work {
    /// Those that go to another relay are not looked at any more.
    fn drop_leaving(&mut self) {
        let stays = |taking: &Taking| {
            let leaves = taking.slot.leave.is_cancelled();
            if leaves {
                taking.slot.rest();
            }
            !leaves
        };
        self.waiting.retain(stays);
        self.scans.retain(|(taking, _)| stays(taking));
    }
    /// Begins anew with everything, a little later.
    fn again(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY);
        self.waiting.extend(std::mem::take(&mut self.scans).into_iter().map(|(taking, _)| taking));
    }
    /// Reads all scans, each from where it is.
    async fn assign(&mut self) -> Result<(), KafkaError> {
        self.ends.clear();
        let all = self.scans.iter().map(|(_, scan)| (scan.partition().clone(), scan.next));
        let all: Vec<_> = all.collect();
        match &self.tails {
            Some(tails) if !all.is_empty() => tails.assign(all).await,
            Some(_) | None => Ok(()),
        }
    }
    async fn pause(&self, done: Vec<TopicPartition>) -> Result<(), KafkaError> {
        match &self.tails {
            Some(tails) if !done.is_empty() && !self.scans.is_empty() => tails.pause(done).await,
            Some(_) | None => Ok(()),
        }
    }
}

/// Closing a client blocks for some milliseconds.
async fn rest(tails: Option<Tails>) {
    if tails.is_some() {
        let _ = tokio::task::spawn_blocking(move || drop(tails)).await;
    }
}
