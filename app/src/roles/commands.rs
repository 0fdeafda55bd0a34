//! `shop commands`: validates commands and appends their events.

use super::registry_url;
use crate::process::Process;
use crate::{Exit, Failure, contract, schemas};
use axum::Router;
use foldstream_commands::{CommandMetrics, Options, Service};
use foldstream_kafka::{SchemaError, SchemaRegistry};
use foldstream_postgres::{EventStore, MissingSchema, StoreError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest body: a document of 5,000 lines with texts as long as they may be.
const BODY_LIMIT_BYTES: usize = 2 << 20;
/// Pauses between two questions to a registry that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);

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
        if !learn_schemas(process, service.name(), &store).await? {
            continue;
        }
        let (options, metrics, http) = (options.clone(), metrics.clone(), process.http.clone());
        router = router.merge(foldstream_commands::router(service, store, options, metrics, http));
    }
    Ok(router)
}

/// Registers the schemas that the event database has no id of, once the registry said that they
/// fit; waits for a registry that is away or talks nonsense. False when the process ends before.
async fn learn_schemas(
    process: &Process,
    service: &str,
    store: &EventStore,
) -> Result<bool, Failure> {
    let missing = store.missing_schemas();
    if missing.is_empty() {
        return Ok(true);
    }
    let registry = SchemaRegistry::new(&registry_url(&process.settings)?);
    let registry = registry
        .map_err(|error| Failure::new(Exit::Configuration, format!("`registry.url`: {error}")))?;
    // Until all are known `/readyz` says what is waited for.
    let waits_for = Arc::new(Mutex::new(Some("the schema registry was not asked yet".to_owned())));
    let shown = waits_for.clone();
    process.health.check(format!("schemas of {service}"), Duration::from_secs(1), move || {
        let waits_for = lock(&shown).clone();
        async move { waits_for.map_or_else(|| Ok("known".to_owned()), Err) }
    });
    for schema in missing {
        let subject = schemas::subject(&schema.topic, schema.schema);
        let mut pause = FIRST_PAUSE;
        while let Err(error) = learn(&registry, store, &schema, &subject).await {
            let reason = match error {
                Learn::Refused(failure) => return Err(failure),
                Learn::Wait(reason) => reason,
            };
            let said = format!("waiting for the schema registry, for {subject}: {reason}");
            if lock(&waits_for).replace(said.clone()).as_ref() != Some(&said) {
                tracing::warn!(service, subject, reason, "waiting for the schema registry");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
                () = process.shutdown.cancelled() => return Ok(false),
            }
        }
    }
    *lock(&waits_for) = None;
    Ok(true)
}

enum Learn {
    /// Nothing but another build or another registry helps.
    Refused(Failure),
    Wait(String),
}

async fn learn(
    registry: &SchemaRegistry,
    store: &EventStore,
    missing: &MissingSchema,
    subject: &str,
) -> Result<(), Learn> {
    let text = missing.schema.json.to_string();
    let id = async {
        schemas::refuse_incompatible(registry, subject, &text).await?;
        registry.register(subject, &text).await
    };
    let id = id.await.map_err(|error| match error {
        SchemaError::Unavailable(_) | SchemaError::Unknown(_) => Learn::Wait(error.to_string()),
        SchemaError::Incompatible { .. } | SchemaError::Invalid(_) => {
            Learn::Refused(Failure::new(Exit::Configuration, refusal(registry, &error)))
        }
    })?;
    let known = [(missing.schema.full_name.clone(), id, text)];
    store.learn_schemas(&known).await.map_err(|error| match error {
        StoreError::SchemaId { .. } => {
            let said = format!("the event database and the schema registry disagree: {error}");
            Learn::Refused(Failure::new(Exit::Configuration, said))
        }
        error => Learn::Wait(error.to_string()),
    })
}

fn refusal(registry: &SchemaRegistry, error: &SchemaError) -> String {
    format!(
        "the schema registry at {} refuses a schema of this build, and nothing was written with \
         it: {error}. `schemas check` says what a newer version of an event may change",
        registry.url()
    )
}

/// What is under the lock is whole whatever happened to who held it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
