//! What a store does by itself: it measures the backlog while there is one, and removes verdicts
//! that ran out.

use crate::StoreError;
use crate::backlog::LastBacklog;
use crate::connection::{Connections, in_time};
use crate::writer::Shared;
use std::sync::Arc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Rows removed by one statement.
const SLICE: i64 = 1_000;

/// Without a signal, another process may have appended: one look in so many.
const RARELY: u32 = 10;

/// Measures the backlog until cancelled: each second while something waits, else when something
/// was appended, or rarely.
pub(crate) async fn watch_backlog(
    common: Arc<Shared>,
    backlog: Arc<LastBacklog>,
    stop: CancellationToken,
) {
    let mut appended = common.appended.subscribe();
    let watch = async {
        let soft = common.limits.backlog_events / 2;
        let mut was_above = false;
        loop {
            let connections = &common.reader.connections;
            let waits = match backlog.measure(connections, &common.metrics).await {
                Ok(measured) => {
                    let is_above = measured.events > soft;
                    if is_above && !was_above {
                        tracing::warn!(events = measured.events, "the relay falls behind");
                    }
                    was_above = is_above;
                    measured.events > 0
                }
                Err(error) => {
                    tracing::debug!(%error, "the backlog cannot be measured");
                    true
                }
            };
            sleep(common.timings.backlog).await;
            if !waits {
                let rarely = common.timings.backlog * RARELY;
                // An error would mean that the store is gone; then this task is being cancelled.
                let _ = timeout(rarely, appended.changed()).await;
            }
            appended.mark_unchanged();
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch => {}
    }
}

/// Removes verdicts that ran out, in slices, until cancelled.
pub(crate) async fn prune(common: Arc<Shared>, stop: CancellationToken) {
    let every = common.timings.prune;
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let prune = async {
        loop {
            ticks.tick().await;
            loop {
                match prune_slice(&common.reader.connections).await {
                    Ok(removed) if removed < SLICE as u64 => break,
                    Ok(_) => sleep(common.timings.connect / 20).await,
                    Err(error) => {
                        tracing::debug!(%error, "old verdicts cannot be removed now");
                        break;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = prune => {}
    }
}

async fn prune_slice(connections: &Connections) -> Result<u64, StoreError> {
    let mut connection = connections.borrow().await?;
    let call = sqlx::query(
        "delete from idempotency where ctid = any (array(
            select ctid from idempotency where expires_at <= clock_timestamp()
            order by expires_at limit $1 for update skip locked))",
    )
    .bind(SLICE)
    .execute(&mut *connection);
    let removed = in_time(connections.call, call).await?.rows_affected();
    connection.give_back();
    Ok(removed)
}
