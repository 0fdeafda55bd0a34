//! Snapshots: states kept after the commit, off the way of the answers. A state that nobody has
//! time to keep is dropped; the next commit of its stream offers a newer one.

use crate::StoreError;
use crate::cache::Cached;
use crate::connection::{Connections, in_time};
use crate::served::Served;
use crate::writer::Shared;
use foldstream_core::{AnyState, StreamRef};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// States that wait to be kept.
const QUEUE: usize = 16;
/// A state larger than this as JSON is not kept.
const MOST_BYTES: usize = 16 << 20;

/// What is known of a stream's snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LastSnapshot {
    /// The version of its stream that it holds; 0 when there is none.
    pub(crate) version: u64,
    /// Whether it cannot be used, and is to be replaced.
    pub(crate) useless: bool,
}

/// A state to be kept.
pub(crate) struct Offer {
    aggregate: usize,
    stream: Arc<StreamRef>,
    version: u64,
    position: u64,
    state: AnyState,
    schema_version: u32,
    last: LastSnapshot,
}

/// Where committed states are offered.
pub(crate) struct Keeper(mpsc::Sender<Offer>);

impl Keeper {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Offer>) {
        let (sender, offers) = mpsc::channel(QUEUE);
        (Keeper(sender), offers)
    }
    /// Offers a committed state when so many events were folded since the last one.
    pub(crate) fn offer(&self, served: &Served, stream: &Arc<StreamRef>, cached: &mut Cached) {
        let Ok(aggregate) = served.of_topic(&stream.topic) else { return };
        let Some(policy) = served.aggregates[aggregate].snapshots else { return };
        let last = cached.snapshot;
        let from = if last.useless { 0 } else { last.version };
        if cached.version.saturating_sub(from) < policy.every {
            return;
        }
        let offer = Offer {
            aggregate,
            stream: stream.clone(),
            version: cached.version,
            position: cached.position,
            state: cached.state.clone(),
            schema_version: policy.schema_version,
            last,
        };
        // Full: it is busy with others, the next commit asks again.
        if self.0.try_send(offer).is_ok() {
            cached.snapshot = LastSnapshot { version: cached.version, useless: false };
        }
    }
}

/// Keeps what is offered, one after the other, until cancelled.
pub(crate) async fn keep(
    common: Arc<Shared>,
    mut offers: mpsc::Receiver<Offer>,
    stop: CancellationToken,
) {
    let reader = &common.reader;
    let keep = async {
        while let Some(offer) = offers.recv().await {
            let Some(bytes) = encoded(&reader.served, &offer).await else { continue };
            if let Err(error) = store(&reader.connections, &offer, bytes).await {
                tracing::debug!(%error, stream = ?offer.stream, "a snapshot cannot be kept now");
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = keep => {}
    }
}

/// On a thread of its own: a state may be large.
async fn encoded(served: &Served, offer: &Offer) -> Option<Vec<u8>> {
    let aggregate = served.aggregates[offer.aggregate].aggregate.clone();
    let state = offer.state.clone();
    let encode = tokio::task::spawn_blocking(move || aggregate.write_snapshot(&state));
    let stream = &offer.stream;
    match encode.await {
        Ok(Ok(bytes)) if bytes.len() <= MOST_BYTES => Some(bytes),
        Ok(Ok(bytes)) => {
            tracing::warn!(?stream, bytes = bytes.len(), "a state is too large for a snapshot");
            None
        }
        Ok(Err(error)) => {
            tracing::warn!(?stream, %error, "a state cannot be kept as a snapshot");
            None
        }
        Err(error) => {
            tracing::error!(?stream, %error, "writing a state for its snapshot panicked");
            None
        }
    }
}

/// Another process may have kept a newer one meanwhile; that one stays.
async fn store(connections: &Connections, offer: &Offer, bytes: Vec<u8>) -> Result<(), StoreError> {
    let big = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut connection = connections.borrow().await?;
    let call = sqlx::query(
        "insert into snapshots as s (topic, stream_id, schema_version, version, position, state)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (topic, stream_id) do update
            set schema_version = excluded.schema_version, version = excluded.version,
                position = excluded.position, state = excluded.state,
                taken_at = clock_timestamp()
            where s.version < excluded.version or s.schema_version <> excluded.schema_version
               or s.version = $7",
    )
    .bind(&offer.stream.topic)
    .bind(&offer.stream.stream_id)
    .bind(i64::from(offer.schema_version))
    .bind(big(offer.version))
    .bind(big(offer.position))
    .bind(bytes)
    .bind(offer.last.useless.then_some(big(offer.last.version)))
    .execute(&mut *connection);
    in_time(connections.call, call).await?;
    connection.give_back();
    Ok(())
}
