//! The event stores of this process: one per service, opened once, shared by its roles.

use super::event_database;
use crate::Failure;
use crate::process::Process;
use foldstream_commands::Service;
use foldstream_postgres::{BacklogState, EventStore, StoreOptions};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Mutex;

#[derive(Default)]
pub(crate) struct Stores(Mutex<HashMap<&'static str, EventStore>>);

impl Stores {
    /// The store of a service, opened when its database is there; `None` when the process ends
    /// before.
    pub(crate) async fn open(
        &self,
        process: &Process,
        service: &Service,
    ) -> Result<Option<EventStore>, Failure> {
        let mut open = self.0.lock().await;
        if let Some(store) = open.get(service.name()) {
            return Ok(Some(store.clone()));
        }
        let options = options(process, service)?;
        let what = format!("the event database of {}", service.name());
        let attempt = || {
            let options = options.clone();
            async { EventStore::open(options, service.aggregates(), &process.registry).await }
        };
        let Some(store) = process.until_ready(&what, attempt).await else { return Ok(None) };
        let asked = store.clone();
        process.health.check(what, Duration::from_secs(3), move || {
            let store = asked.clone();
            async move { store.check().await.map(|()| "ok".into()).map_err(|e| e.to_string()) }
        });
        let asked = store.clone();
        let what = format!("outbox of {}", service.name());
        process.health.check(what, Duration::from_secs(3), move || {
            let (backlog, state) = (asked.backlog(), asked.backlog_state());
            async move {
                match state {
                    BacklogState::Well => Ok(backlog.to_string()),
                    // Commands are taken still: this is to be seen, not to end it.
                    BacklogState::Filling => Ok(format!("filling: {backlog}")),
                    BacklogState::Full => Err(format!("full: {backlog}; commands are refused")),
                }
            }
        });
        open.insert(service.name(), store.clone());
        Ok(Some(store))
    }

    /// All that are open.
    pub(crate) async fn all(&self) -> Vec<(&'static str, EventStore)> {
        self.0.lock().await.iter().map(|(name, store)| (*name, store.clone())).collect()
    }
}

fn options(process: &Process, service: &Service) -> Result<StoreOptions, Failure> {
    let url = event_database(&process.settings, service.name())?;
    let commands = &process.settings.commands;
    let mut options = StoreOptions::new(url, process.app.name, service.name());
    options.partitions = process.settings.kafka.partitions;
    options.writers = commands.writers;
    // What an append takes, the relay can send.
    options.limits.event_bytes = foldstream_kafka::MAX_DATUM_BYTES;
    let outbox = &process.settings.outbox;
    options.limits.backlog_warning = outbox.warn_events;
    options.limits.backlog_events = outbox.max_events;
    options.limits.backlog_age =
        (outbox.max_age_minutes > 0).then(|| Duration::from_secs(outbox.max_age_minutes * 60));
    options.timings.idempotency = Duration::from_secs(commands.idempotency_hours * 3600);
    Ok(options)
}
