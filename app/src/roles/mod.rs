//! The roles a process can take; `dev` takes them all.

pub(crate) mod commands;
mod database;
pub(crate) mod migrate;
pub(crate) mod projections;
pub(crate) mod queries;
pub(crate) mod registry;
pub(crate) mod relay;
mod stores;

pub(crate) use stores::Stores;

use crate::process::Process;
use crate::settings::Settings;
use crate::{App, Exit, Failure, Service, contract};
use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use foldstream_kafka::Cluster;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Kafka has not answered a check that takes longer.
const KAFKA_DEADLINE: Duration = Duration::from_secs(3);

pub(crate) fn registry_database(settings: &Settings) -> Result<String, Failure> {
    let url = settings.registry.database_url.clone();
    url.ok_or_else(|| Failure::missing("registry.database_url", "REGISTRY_DATABASE_URL"))
}
/// The event database of a service.
pub(crate) fn event_database(settings: &Settings, service: &str) -> Result<String, Failure> {
    let url = settings.services.get(service).and_then(|s| s.database_url.clone());
    let env = format!("{}_DATABASE_URL", service.to_uppercase().replace('-', "_"));
    url.ok_or_else(|| Failure::missing(&format!("services.{service}.database_url"), &env))
}
pub(crate) fn read_database(settings: &Settings) -> Result<String, Failure> {
    let url = settings.read.database_url.clone();
    url.ok_or_else(|| Failure::missing("read.database_url", "READ_DATABASE_URL"))
}
pub(crate) fn kafka(settings: &Settings) -> Result<String, Failure> {
    let bootstrap = settings.kafka.bootstrap.clone();
    bootstrap.ok_or_else(|| Failure::missing("kafka.bootstrap", "KAFKA_BOOTSTRAP"))
}
pub(crate) fn registry_url(settings: &Settings) -> Result<String, Failure> {
    let url = settings.registry.url.clone();
    url.ok_or_else(|| Failure::missing("registry.url", "SCHEMA_REGISTRY_URL"))
}

/// Everything that a role needs and is not set, before a socket opens.
pub(crate) fn require(
    role: &str,
    only: &[String],
    app: &App,
    settings: &Settings,
) -> Result<(), Failure> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let services = || app.services.iter().map(Service::name);

    let needed: Vec<Result<String, Failure>> = match role {
        "commands" => services()
            .filter(|name| wanted(name))
            .map(|name| event_database(settings, name))
            .chain([registry_url(settings)])
            .collect(),
        "relay" => services()
            .map(|name| event_database(settings, name))
            .chain([kafka(settings), registry_url(settings), read_database(settings)])
            .collect(),
        "projections" => vec![kafka(settings), registry_url(settings), read_database(settings)],
        "queries" => vec![read_database(settings)],
        "registry" => vec![registry_database(settings)],
        _ => Vec::new(),
    };
    let missing: Vec<String> =
        needed.into_iter().filter_map(Result::err).map(|failure| failure.message).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(Exit::Configuration, missing.join("\n"))),
    }
}

/// Has `/readyz` ask Kafka: once, however many roles of the process need it.
pub(crate) fn check_kafka(process: &Process, bootstrap: &str) -> Result<(), Failure> {
    if process.asks_kafka.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let cluster = Arc::new(Cluster::new(bootstrap).map_err(Failure::failed)?);
    process.health.check("kafka", KAFKA_DEADLINE, move || {
        let cluster = Arc::clone(&cluster);
        async move {
            let asked = cluster.check(KAFKA_DEADLINE).await;
            asked.map(|()| "ok".to_owned()).map_err(|error| error.to_string())
        }
    });
    Ok(())
}

/// Commands and queries, each on its port and merged on that of the API.
pub(crate) async fn serve_all(process: &Arc<Process>) -> Result<(), Failure> {
    let commands = commands::router(process, &[]).await?;
    let queries = queries::router(process).await?;
    let listen = &process.settings.listen;
    let contract = contract::router(contract::commands(&process.app)?);
    process.serve("commands", &listen.commands, commands.clone().merge(contract)).await?;
    let contract = contract::router(contract::queries(&process.app)?);
    process.serve("queries", &listen.queries, queries.clone().merge(contract)).await?;
    let contract = contract::router(contract::all(&process.app)?);
    // There is no console yet; whoever follows its address finds the page of the API.
    let console = Router::new().route("/console", get(|| async { Redirect::temporary("/docs") }));
    let api = commands.merge(queries).merge(contract).merge(console);
    process.serve("api", &listen.api, api).await
}
