//! What a store does by itself: it measures the backlog while there is one, and removes verdicts
//! that ran out.

use crate::backlog::{Backlog, BacklogState, LastBacklog};
use crate::connection::{Connections, in_time};
use crate::writer::Shared;
use crate::{Limits, StoreError};
use std::sync::Arc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Rows removed by one statement.
const SLICE: i64 = 1_000;

/// Without a signal, another process may have appended: while nothing waits, every so many looks
/// are left out. Few, for the figures must be true when they are next scraped.
const RARELY: u32 = 2;

/// Measures the backlog until cancelled: each second while something waits, else when something
/// was appended, or a little more rarely.
pub(crate) async fn watch_backlog(
    common: Arc<Shared>,
    backlog: Arc<LastBacklog>,
    stop: CancellationToken,
) {
    let mut appended = common.appended.subscribe();
    let watch = async {
        let mut told = BacklogState::Well;
        loop {
            let (connections, limits) = (&common.reader.connections, &common.limits);
            let waits = match backlog.measure(connections, &common.metrics, limits).await {
                Ok(measured) => {
                    told = tell(told, measured, limits);
                    measured.events > 0
                }
                Err(error) => {
                    tracing::debug!(%error, "the backlog cannot be measured");
                    backlog.age(common.timings.backlog, &common.metrics, limits);
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

/// Says it once when a bound is crossed, and once when all is well again: below half of the soft
/// bound, or a backlog that wavers about it would fill the log.
fn tell(told: BacklogState, measured: Backlog, limits: &Limits) -> BacklogState {
    let Backlog { events, oldest } = measured;
    let state = measured.state(limits);
    match (told, state) {
        (BacklogState::Well | BacklogState::Filling, BacklogState::Full) => {
            tracing::error!(
                events,
                ?oldest,
                "too many events wait for the relay: commands are refused"
            );
        }
        (BacklogState::Well, BacklogState::Filling) => {
            tracing::warn!(events, ?oldest, "the relay falls behind");
        }
        (BacklogState::Full, BacklogState::Filling) => {
            tracing::warn!(
                events,
                ?oldest,
                "the relay still is behind, but commands are taken again"
            );
        }
        (BacklogState::Filling, BacklogState::Well) if events > limits.backlog_warning / 2 => {
            return told;
        }
        (BacklogState::Filling | BacklogState::Full, BacklogState::Well) => {
            tracing::info!(events, "the relay has caught up");
        }
        (BacklogState::Well, BacklogState::Well)
        | (BacklogState::Filling, BacklogState::Filling)
        | (BacklogState::Full, BacklogState::Full) => {}
    }
    state
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
