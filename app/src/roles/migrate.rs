//! `shop migrate`: all databases as this program needs them.

use super::database;
use crate::settings::Settings;
use crate::{App, Exit, Failure};
use std::fmt::Display;

/// Migrates what is configured, and says what.
pub(crate) async fn run(app: &App, settings: &Settings) -> Result<(), Failure> {
    if let Some(url) = &settings.registry.database_url {
        registry(url).await?;
    }
    for service in &app.services {
        let url = super::event_database(settings, service.name())?;
        let migrated = foldstream_postgres::migrate(&url).await;
        migrated.map_err(|e| down(&format!("the database of {}", service.name()), &e))?;
        tracing::info!(database = service.name(), "migrated");
    }
    let url = super::read_database(settings)?;
    let migrated = foldstream_tables::migrate(&url, app.name, &app.read_models).await;
    migrated.map_err(|e| down("the read database", &e))?;
    tracing::info!(database = "read", "migrated");
    Ok(())
}

/// The registry's database.
pub(crate) async fn registry(url: &str) -> Result<(), Failure> {
    let what = "the registry's database";
    database::ensure(url).await.map_err(|error| down(what, &error))?;
    foldstream_registry::migrate(url).await.map_err(|error| down(what, &error))?;
    tracing::info!(database = "registry", "migrated");
    Ok(())
}

fn down(what: &str, error: &dyn Display) -> Failure {
    Failure::new(Exit::DependencyDown, format!("{what}: {error}"))
}
