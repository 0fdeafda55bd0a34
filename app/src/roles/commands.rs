//! `shop commands`: validates commands and appends their events.

use super::registry_url;
use crate::process::Process;
use crate::{Exit, Failure, contract, schema_files};
use axum::Router;
use foldstream_commands::{CommandMetrics, Options, Service};
use foldstream_kafka::SchemaRegistry;
use foldstream_postgres::EventStore;
use std::sync::Arc;
use std::time::Duration;

/// The longest body: a document of 5,000 lines with texts as long as they may be.
const BODY_LIMIT_BYTES: usize = 2 << 20;

pub(crate) async fn start(process: &Arc<Process>, only: &[String]) -> Result<(), Failure> {
    let names: Vec<&str> = process.app.services.iter().map(Service::name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        let message = format!("there is no service `{unknown}`; there are: {}", names.join(", "));
        return Err(Failure::new(Exit::NotFound, message));
    }
    let routes = router(process, only).await?;
    let document = contract::commands(&process.app)?;
    let router = routes.merge(contract::router(document));
    process.serve("commands", &process.settings.listen.commands, router).await
}

/// The routes of these services, or of all when none are named.
pub(crate) async fn router(process: &Arc<Process>, only: &[String]) -> Result<Router, Failure> {
    let metrics = CommandMetrics::new(&process.registry).map_err(Failure::failed)?;
    let settings = &process.settings.commands;
    let options = Options {
        deadline: Duration::from_millis(settings.deadline_ms),
        body_limit: BODY_LIMIT_BYTES,
        max_in_flight: settings.max_in_flight,
    };
    let mut router = Router::new();
    for service in &process.app.services {
        if !only.is_empty() && !only.iter().any(|name| name == service.name()) {
            continue;
        }
        let Some(store) = process.stores.open(process, service).await? else { continue };
        if !learn_schemas(process, &store).await? {
            continue;
        }
        let (options, metrics, http) = (options.clone(), metrics.clone(), process.http.clone());
        router = router.merge(foldstream_commands::router(service, store, options, metrics, http));
    }
    Ok(router)
}

/// Registers the schemas that the event database has no id of; waits for the registry. False when
/// the process ends before.
async fn learn_schemas(process: &Process, store: &EventStore) -> Result<bool, Failure> {
    let missing = store.missing_schemas();
    if missing.is_empty() {
        return Ok(true);
    }
    let registry = SchemaRegistry::new(&registry_url(&process.settings)?);
    let registry = registry
        .map_err(|error| Failure::new(Exit::Configuration, format!("`registry.url`: {error}")))?;
    for schema in missing {
        let subject = schema_files::subject(&schema.topic, schema.schema);
        let text = schema.schema.json.to_string();
        let attempt = || async {
            let id = registry.register(&subject, &text).await.map_err(|e| e.to_string())?;
            let known = [(schema.schema.full_name.clone(), id, text.clone())];
            store.learn_schemas(&known).await.map_err(|e| e.to_string())
        };
        let what = format!("the schema registry, for {subject}");
        if process.until_ready(&what, attempt).await.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
