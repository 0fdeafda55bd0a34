//! The relay moves events from an event store to their topics: contiguous positions, in order,
//! none lost, repeats byte for byte.
//!
//! One relay owns a topic-partition at a time. It begins by reading what the topic holds after the
//! recorded offset, and sends on from there with an idempotent producer. At the first trouble (a
//! failed delivery, an offset that does not rise, a claim that went elsewhere) it destroys the
//! producer with all that it holds and begins anew.

mod lane;
mod producer;
mod session;
mod state;
mod tails;
mod takeover;
mod takeovers;
mod verify;

pub use state::{PartitionState, PartitionStatus, RelayStatus};
pub use verify::{Finding, PartitionReport, Verification, Verified, VerifyError};

use crate::RelayMetrics;
use foldstream_core::Outbox;
use session::{End, Session};
use state::Board;
use std::sync::Arc;
use std::time::Duration;
use takeover::bounded;
use tokio_util::sync::CancellationToken;

/// How a [`Relay`] works.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Kafka's bootstrap servers.
    pub bootstrap: String,
    /// The schema registry's address as consumers know it; it goes into `ce_dataschema`.
    pub registry_url: String,
    /// How often claims are renewed.
    pub renew_every: Duration,
    /// How long a claim holds without being renewed; the event store's own figure.
    pub lease: Duration,
    /// How often progress is written while it moves.
    pub record_every: Duration,
    /// No call of the event store takes longer.
    pub deadline: Duration,
    /// At shutdown, what is under way has so long to be acknowledged.
    pub drain: Duration,
    /// So many bytes may be under way, all partitions together; at most 32 MiB.
    pub in_flight_bytes: usize,
    /// Events read from the store in one go.
    pub read_events: usize,
    /// Bytes read from the store in one go.
    pub read_bytes: usize,
    /// How long the producer waits for more before it sends.
    pub linger_ms: f64,
}
impl RelayOptions {
    /// The defaults, for this cluster and this registry.
    pub fn new(bootstrap: impl Into<String>, registry_url: impl Into<String>) -> Self {
        RelayOptions {
            bootstrap: bootstrap.into(),
            registry_url: registry_url.into(),
            renew_every: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            record_every: Duration::from_millis(200),
            deadline: Duration::from_secs(4),
            drain: Duration::from_secs(5),
            in_flight_bytes: 24 << 20,
            read_events: 2_000,
            read_bytes: 1 << 20,
            linger_ms: 0.5,
        }
    }
}

/// Moves events from an event store to Kafka. Several relays of one store share its partitions.
pub struct Relay<O: Outbox> {
    outbox: Arc<O>,
    options: Arc<RelayOptions>,
    board: Arc<Board>,
}

/// Tells how a relay is. Cheap to clone; outlives the relay.
#[derive(Debug, Clone)]
pub struct RelayWatch {
    board: Arc<Board>,
}
impl RelayWatch {
    /// How the relay is now.
    pub fn status(&self) -> RelayStatus {
        self.board.status()
    }
}

impl<O: Outbox> Relay<O> {
    /// A relay of this event store, counting into these metrics. It does nothing before it runs.
    pub fn new(outbox: Arc<O>, options: RelayOptions, metrics: Option<RelayMetrics>) -> Self {
        let board = Arc::new(Board::new(metrics));
        Relay { outbox, options: Arc::new(options), board }
    }

    /// The way to ask how it is.
    pub fn watch(&self) -> RelayWatch {
        RelayWatch { board: self.board.clone() }
    }

    /// How it is now.
    pub fn status(&self) -> RelayStatus {
        self.board.status()
    }

    /// Relays until `shutdown`; then what is under way has a moment to arrive, and the claims are
    /// given back. Whatever is missing meanwhile, it waits for and says so in its status.
    pub async fn run(self, shutdown: CancellationToken) {
        let pauses = [50, 200, 1000, 3000];
        let mut troubles = 0;
        while !shutdown.is_cancelled() {
            let begun = tokio::time::Instant::now();
            let (outbox, board) = (self.outbox.clone(), self.board.clone());
            match Session::new(outbox, board, self.options.clone()) {
                Ok(mut session) => {
                    let end = session.run(&shutdown).await;
                    session.close(&end).await;
                    if let End::Trouble(reason) = end {
                        tracing::warn!(reason, "the relay takes over anew");
                    }
                }
                Err(error) => tracing::error!(%error, "the relay has no producer"),
            }
            if begun.elapsed() > Duration::from_secs(30) {
                troubles = 0;
            }
            let pause = Duration::from_millis(pauses[troubles.min(pauses.len() - 1)]);
            troubles += 1;
            let _ = tokio::time::timeout(pause, shutdown.cancelled()).await;
        }
        if let Err(reason) = bounded(self.options.deadline, self.outbox.release()).await {
            tracing::warn!(reason, "the relay's claims are not given back; they run out");
        }
    }
}
