//! The schema registry and the topics of the shop.

use crate::infra::Infra;
use crate::served::{self, PARTITIONS, Serving};
use anyhow::Result;
use foldstream_core::EventSchema;
use foldstream_kafka::{Cluster, SchemaRegistry, TopicSpec};
use foldstream_postgres::EventStore;
use foldstream_service::metrics::HttpMetrics;

/// The application that the shop's topics belong to.
pub(crate) const APP: &str = "shop";

/// Serves a registry with a database of its own.
pub(crate) async fn start(infra: &Infra) -> Result<(Serving, SchemaRegistry)> {
    let registry = foldstream_registry::Registry::open(&infra.empty_database().await?).await?;
    let http = HttpMetrics::new(&prometheus::Registry::new())?;
    let serving = served::serve(registry.router(), http).await?;
    let client = SchemaRegistry::new(&format!("http://{}", serving.address))?;
    Ok((serving, client))
}

/// Registers all schemas of the store's events; answers each full name with its id.
pub(crate) async fn register(
    store: &EventStore,
    registry: &SchemaRegistry,
) -> Result<Vec<(String, u32)>> {
    let mut ids = Vec::new();
    for missing in store.missing_schemas() {
        let EventSchema { full_name, json, .. } = missing.schema;
        let text = json.to_string();
        let id = registry.register(&format!("{}-{full_name}", missing.topic), &text).await?;
        store.learn_schemas(&[(full_name.clone(), id, text)]).await?;
        ids.push((full_name.clone(), id));
    }
    Ok(ids)
}

/// Makes the topics of the shop.
pub(crate) async fn topics(infra: &Infra) -> Result<()> {
    let topics = shop_schemas::topics();
    let spec = |(topic, _): &(&str, _)| TopicSpec::new(format!("{APP}.{topic}"), PARTITIONS);
    let topics: Vec<TopicSpec> = topics.iter().map(spec).collect();
    Cluster::new(infra.kafka())?.ensure(&topics).await?;
    Ok(())
}
