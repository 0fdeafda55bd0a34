//! `shop relay`: moves events from the event stores to their topics, and tells the read side how
//! far the topics go.

use super::{check_kafka, kafka, read_database, registry_url};
use crate::Failure;
use crate::process::Process;
use foldstream_kafka::{Cluster, Relay, RelayMetrics, RelayOptions, TopicSpec};
use std::sync::Arc;
use std::time::Duration;

/// How often the heads are written for the read side.
const HEADS_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn start(process: &Arc<Process>) -> Result<(), Failure> {
    let bootstrap = kafka(&process.settings)?;
    let registry = registry_url(&process.settings)?;
    read_database(&process.settings)?;
    check_kafka(process, &bootstrap)?;
    if !ensure_topics(process, &bootstrap).await? {
        return Ok(());
    }
    let metrics = RelayMetrics::new(&process.registry).map_err(Failure::failed)?;
    for service in &process.app.services {
        let Some(store) = process.stores.open(process, service).await? else { return Ok(()) };
        let outbox = store.outbox();
        let mut options = RelayOptions::new(&bootstrap, &registry);
        options.lease = outbox.lease();
        let relay = Relay::new(Arc::new(outbox), options, Some(metrics.clone()));
        let watch = relay.watch();
        process.health.check(format!("relay of {}", service.name()), Duration::from_secs(3), {
            move || {
                let trouble = watch.status().trouble();
                async move { trouble.map_or_else(|| Ok("relaying".to_owned()), Err) }
            }
        });
        process.tasks.spawn(relay.run(process.shutdown.clone()));
    }
    let heads = process.clone();
    process.spawn("heads", async move { write_heads(&heads).await });
    Ok(())
}

/// False when the process ends before the topics are there.
async fn ensure_topics(process: &Process, bootstrap: &str) -> Result<bool, Failure> {
    let settings = &process.settings.kafka;
    let cluster = Cluster::new(bootstrap).map_err(Failure::failed)?;
    let cluster = cluster.with_replication_factor(settings.replication_factor);
    let topics = process.app.topics();
    let specs: Vec<TopicSpec> =
        topics.iter().map(|topic| TopicSpec::new(topic, settings.partitions)).collect();
    let ensured = process.until_ready("Kafka, for the topics", || cluster.ensure(&specs)).await;
    if let Some(ensured) = &ensured {
        for warning in &ensured.warnings {
            tracing::warn!(warning, "a topic is not set as it should be");
        }
    }
    Ok(ensured.is_some())
}

/// Lag is heads less checkpoints: the heads go to the read database each second.
async fn write_heads(process: &Process) -> Result<(), Failure> {
    let url = read_database(&process.settings)?;
    let pool = foldstream_tables::pool(&url, 1, Duration::from_secs(5)).map_err(Failure::failed)?;
    let mut ticks = tokio::time::interval(HEADS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = process.shutdown.cancelled() => return Ok(()),
        }
        for (service, store) in process.stores.all().await {
            let written = async {
                let heads = store.heads().await.map_err(|e| e.to_string())?;
                let written = foldstream_tables::write_heads(&pool, &heads).await;
                written.map_err(|e| e.to_string())
            };
            if let Err(reason) = written.await {
                tracing::debug!(service, reason, "the heads are not written; lag is unknown");
            }
        }
    }
}
