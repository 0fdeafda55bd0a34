//! The producer of one session: what it is configured with, what its acknowledgements mean.

use super::RelayOptions;
use super::state::{Board, Slot};
use crate::planted::{Fault, planted};
use crate::{KafkaError, settings};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError as Client;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::sync::Notify;

/// What the producer holds of a record beside its value, in bytes: headers, key, bookkeeping.
const OVERHEAD: usize = 1500;
/// What the producer itself lets in: a little more than our own bound, which is the one that acts.
const QUEUE_KBYTES: usize = 32 << 10;
/// A record's tag holds its slot above these many bits and its position below.
const POSITION_BITS: u32 = 48;

pub(super) type Producer = ThreadedProducer<Link>;

/// What the producer's callbacks know.
pub(super) struct Link {
    board: Arc<Board>,
    slots: RwLock<Vec<Arc<Slot>>>,
    in_flight: AtomicUsize,
    bound: usize,
    freed: Notify,
    failure: OnceLock<String>,
    closed: AtomicBool,
    /// Something failed.
    pub(super) failed: Notify,
    /// A partition has nothing under way any more.
    pub(super) drained: Notify,
}

impl Link {
    /// Adds a slot and says which number it has.
    pub(super) fn add(&self, slot: Arc<Slot>) -> usize {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.push(slot);
        slots.len() - 1
    }
    /// Nothing counts and nothing is sent any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.freed.notify_waiters();
    }
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
    pub(super) fn fail(&self, reason: String) {
        if self.is_closed() {
            return;
        }
        // The first failure is the one to tell; those behind it are its consequences.
        let _ = self.failure.set(reason);
        self.close();
        self.failed.notify_one();
    }
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
    pub(super) fn enter(&self, value: usize) {
        self.in_flight.fetch_add(value + OVERHEAD, Ordering::AcqRel);
    }
    pub(super) fn leave(&self, value: usize) {
        let size = value + OVERHEAD;
        let before = self.in_flight.fetch_sub(size, Ordering::AcqRel);
        if before >= self.bound / 2 && before - size < self.bound / 2 {
            self.freed.notify_waiters();
        }
    }
    /// Returns when there is room in the producer.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.in_flight.load(Ordering::Acquire) < self.bound || self.is_closed() {
                return;
            }
            freed.await;
        }
    }
}

/// A record's tag. 2^48 events in one partition are a million a second for nine years.
pub(super) fn tag(slot: usize, position: u64) -> usize {
    (slot << POSITION_BITS) | (position as usize & ((1 << POSITION_BITS) - 1))
}

impl ClientContext for Link {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        settings::log(level, facility, message);
    }
    fn error(&self, error: Client, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => self.board.kafka(Some(reason.to_owned())),
            Some(Code::Fatal) => self.fail(format!("the producer is finished: {reason}")),
            Some(_) | None => tracing::debug!(%error, reason, "relay's producer"),
        }
    }
}

impl ProducerContext for Link {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let message = match result {
            Ok(message) => message,
            Err((error, message)) => {
                self.leave(message.payload_len());
                self.fail(format!("a delivery failed: {error}"));
                return;
            }
        };
        self.leave(message.payload_len());
        if self.is_closed() {
            return;
        }
        let position = (tag & ((1 << POSITION_BITS) - 1)) as u64;
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get(tag >> POSITION_BITS) else { return };
        match slot.acknowledge(position, message.offset()) {
            Ok(()) => {
                if slot.is_drained() {
                    self.drained.notify_one();
                }
            }
            Err(reason) => {
                let reason = format!("{}: {reason}", slot.partition());
                drop(slots);
                self.fail(reason);
            }
        }
    }
}

/// A new producer with no memory of any before it.
pub(super) fn producer(options: &RelayOptions, board: Arc<Board>) -> Result<Producer, KafkaError> {
    let mut config = settings::client(&options.bootstrap, "foldstream-relay");
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // A local time-out would be a silent hole: what was sent is sent until it is taken.
        .set("message.timeout.ms", "0")
        .set("request.timeout.ms", "10000")
        .set("max.in.flight.requests.per.connection", "5")
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES.to_string())
        .set("linger.ms", options.linger_ms.to_string())
        .set("compression.codec", "zstd")
        // A topic that is deleted is an error at once and not in 30 seconds.
        .set("topic.metadata.propagation.max.ms", "1000");
    if planted(Fault::TailTakeover) {
        config.set("message.timeout.ms", "3000").set("request.timeout.ms", "2000");
    }
    let link = Link {
        board,
        slots: RwLock::default(),
        in_flight: AtomicUsize::new(0),
        bound: options.in_flight_bytes.min(QUEUE_KBYTES << 10),
        freed: Notify::new(),
        failure: OnceLock::new(),
        closed: AtomicBool::new(false),
        failed: Notify::new(),
        drained: Notify::new(),
    };
    Ok(ThreadedProducer::from_config_and_context(&config, link)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use foldstream_core::{Claim, Progress, TopicPartition};
    use rdkafka::producer::{BaseRecord, Producer as _};
    use std::time::Duration;
    use tokio::time::timeout;

    const LONG: Duration = Duration::from_secs(20);

    fn at_work() -> (Producer, Arc<Slot>) {
        // Nobody is there: what is sent stays under way.
        let options = RelayOptions::new("127.0.0.1:1", "http://registry");
        let producer = producer(&options, Arc::new(Board::new(None))).unwrap();
        let partition = TopicPartition::new("none", 0);
        let claim = Claim { partition, epoch: 1, progress: Progress::default() };
        let slot = Arc::new(Slot::new(claim));
        slot.begin(Progress::default());
        producer.client().context().add(slot.clone());
        (producer, slot)
    }

    /// Makes the client believe that it can never go on, as when its sequence numbers are unknown
    /// to the broker.
    #[expect(unsafe_code, reason = "the client has no safe way to provoke a fatal error")]
    fn break_for_good(producer: &Producer) {
        use rdkafka::bindings::{rd_kafka_resp_err_t, rd_kafka_test_fatal_error};
        let code = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client lives as long as the producer, the text is a constant with its end.
        unsafe {
            rd_kafka_test_fatal_error(producer.client().native_ptr(), code, c"for a test".as_ptr());
        }
    }

    #[tokio::test]
    async fn a_fatal_error_ends_the_session_and_nothing_counts_any_more() {
        let (producer, slot) = at_work();
        let link = producer.client().context().clone();
        link.enter(3);
        slot.sent.store(1, Ordering::Release);
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to("none", tag(0, 1)).partition(0);
        producer.send(record.payload(&b"abc"[..])).map_err(|(error, _)| error).unwrap();
        break_for_good(&producer);
        timeout(LONG, link.failed.notified()).await.unwrap();
        let reason = link.failure().unwrap();
        assert!(reason.contains("finished") || reason.contains("failed"), "{reason}");
        assert!(link.is_closed());
        // What was under way comes back as failed, and moves nothing.
        timeout(LONG, async {
            while link.in_flight.load(Ordering::Acquire) > 0 {
                producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(slot.progress(), Progress::default());
        // The room is open, so that nobody waits for ever; a lane looks whether it is closed.
        timeout(LONG, link.room()).await.unwrap();
        assert_eq!(link.failure().unwrap(), reason, "the first reason stays");
    }

    #[test]
    fn only_the_next_position_at_a_higher_offset_is_acknowledged() {
        let (_producer, slot) = at_work();
        let at = |position, offset| Progress { position, offset: Some(offset) };
        assert_eq!(slot.acknowledge(1, 10), Ok(()));
        assert_eq!(slot.acknowledge(2, 15), Ok(()));
        assert!(slot.acknowledge(4, 16).unwrap_err().contains("acknowledged after 2"));
        assert!(slot.acknowledge(3, 15).unwrap_err().contains("lost records"));
        assert!(slot.acknowledge(2, 16).is_err());
        assert_eq!(slot.progress(), at(2, 15));
    }

    #[test]
    fn a_tag_keeps_slot_and_position() {
        let large = (1 << POSITION_BITS) - 1;
        let tagged = tag(300, large);
        assert_eq!((tagged >> POSITION_BITS, tagged & large as usize), (300, large as usize));
    }
}
