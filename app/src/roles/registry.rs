//! `shop registry`: a Confluent-compatible schema registry.

use super::registry_database;
use crate::Failure;
use crate::process::Process;
use foldstream_registry::Registry;
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn start(process: &Arc<Process>) -> Result<(), Failure> {
    let url = registry_database(&process.settings)?;
    let open = || Registry::open(&url);
    let Some(registry) = process.until_ready("the registry's database", open).await else {
        return Ok(());
    };
    let asked = registry.clone();
    process.health.check("registry database", Duration::from_secs(3), move || {
        let registry = asked.clone();
        async move { registry.check().await.map(|()| "ok".into()).map_err(|e| e.to_string()) }
    });
    process.serve("registry", &process.settings.listen.registry, registry.router()).await
}
