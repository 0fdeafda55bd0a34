//! Sending one partition's events, in order.

use super::RelayOptions;
use super::producer::{Producer, tag};
use super::state::{Board, PartitionState, Slot};
use super::takeover::read;
use crate::planted::skips_gaps;
use crate::wire::{self, Envelope};
use foldstream_core::{Outbox, OutboxEvent};
use rdkafka::error::KafkaError as Client;
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long to wait after the event store failed.
const PAUSE: Duration = Duration::from_millis(250);
/// After so many records others on this thread get their turn.
const TURN: usize = 250;

/// One partition, taken over, until its session ends.
pub(super) struct Lane<O: Outbox> {
    pub(super) outbox: Arc<O>,
    pub(super) producer: Arc<Producer>,
    pub(super) board: Arc<Board>,
    pub(super) options: Arc<RelayOptions>,
    pub(super) slot: Arc<Slot>,
    /// The slot's number in the producer.
    pub(super) number: usize,
    pub(super) end: CancellationToken,
}

/// Why nothing more of this partition may be sent.
struct Stop(String);

impl<O: Outbox> Lane<O> {
    pub(super) async fn run(self) {
        let partition = self.slot.partition();
        let envelope =
            Envelope::new(&partition.topic, self.outbox.store_id(), &self.options.registry_url);
        let stop = tokio::select! {
            () = self.end.cancelled() => None,
            () = self.slot.leave.cancelled() => None,
            Stop(reason) = self.relay(&envelope) => Some(reason),
        };
        self.slot.rest();
        let Some(stop) = stop else { return };
        tracing::error!(%partition, reason = stop, "the relay stops this partition");
        self.board.set(&self.slot, PartitionState::Stopped(stop));
    }

    async fn relay(&self, envelope: &Envelope) -> Stop {
        let mut head = self.slot.head.subscribe();
        loop {
            let sent = self.slot.sent.load(Ordering::Acquire);
            if *head.borrow_and_update() <= sent {
                // Its sender is in the slot, which we hold.
                let _ = head.changed().await;
                continue;
            }
            self.producer.client().context().room().await;
            let most = (self.options.read_events, self.options.read_bytes);
            let deadline = self.options.deadline;
            let events =
                match read(&*self.outbox, self.slot.partition(), sent, most, deadline).await {
                    Ok(events) if events.is_empty() => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    Ok(events) => events,
                    Err(reason) => {
                        self.board.set(&self.slot, PartitionState::OutboxAway(reason));
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
            self.board.set(&self.slot, PartitionState::Relaying);
            if let Err(stop) = self.send_all(envelope, events).await {
                return stop;
            }
        }
    }

    async fn send_all(&self, envelope: &Envelope, events: Vec<OutboxEvent>) -> Result<(), Stop> {
        for (index, mut event) in events.into_iter().enumerate() {
            let expected = self.slot.sent.load(Ordering::Acquire) + 1;
            if event.position != expected && !skips_gaps() {
                let reason = format!("the store yields {} after {}", event.position, expected - 1);
                return Err(Stop(reason));
            }
            let value = wire::value(&mut event);
            if value.len() > wire::MAX_DATUM_BYTES {
                let reason = format!("position {} has {} bytes", event.position, value.len());
                return Err(Stop(reason));
            }
            self.send(envelope, &event, &value).await?;
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        envelope: &Envelope,
        event: &OutboxEvent,
        value: &[u8],
    ) -> Result<(), Stop> {
        let partition = self.slot.partition();
        let link = self.producer.client().context();
        let mut record =
            BaseRecord::with_opaque_to(&partition.topic, tag(self.number, event.position))
                .partition(partition.partition)
                .key(event.stream_id.as_bytes())
                .payload(value)
                .timestamp(wire::millis(event.recorded_at))
                .headers(envelope.headers(event));
        loop {
            if link.is_closed() {
                // The session is over and ends this lane in a moment.
                std::future::pending::<()>().await;
            }
            // Counted before: the acknowledgement may be here before the call returns.
            link.enter(value.len());
            self.slot.sent.store(event.position, Ordering::Release);
            let Err((error, back)) = self.producer.send(record) else { return Ok(()) };
            link.leave(value.len());
            self.slot.sent.store(event.position - 1, Ordering::Release);
            match error {
                Client::MessageProduction(Code::QueueFull) => {
                    record = back;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Client::MessageProduction(Code::MessageSizeTooLarge) => {
                    return Err(Stop(format!("position {}: {error}", event.position)));
                }
                other => {
                    record = back;
                    link.fail(format!("{partition}: {other}"));
                }
            }
        }
    }
}
