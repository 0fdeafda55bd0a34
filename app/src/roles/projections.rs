//! `shop projections`: folds topics into read models.

use super::{check_kafka, kafka, read_database, registry_url};
use crate::process::Process;
use crate::{Exit, Failure};
use foldstream_kafka::SchemaRegistry;
use foldstream_projections::{ProjectionMetrics, Projections};
use std::sync::Arc;
use std::time::Duration;

/// A worker that is silent for so long loses its partitions to others: for so long nobody folds
/// them after it was killed. One that was only stopped and comes back is fenced by its checkpoints.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn start(process: &Arc<Process>, only: &[String]) -> Result<(), Failure> {
    let all = &process.app.read_models;
    if let Some(unknown) = only.iter().find(|name| !all.iter().any(|m| m.table().name == **name)) {
        let names: Vec<&str> = all.iter().map(|model| model.table().name).collect();
        let message =
            format!("there is no read model `{unknown}`; there are: {}", names.join(", "));
        return Err(Failure::new(Exit::NotFound, message));
    }
    let registry = SchemaRegistry::new(&registry_url(&process.settings)?);
    let registry = registry.map_err(|error| Failure::new(Exit::Configuration, error))?;
    let asked = registry.clone();
    process.health.check("schemas of the topics", Duration::from_secs(1), move || {
        let trouble = asked.trouble();
        async move { trouble.map_or_else(|| Ok("known".to_owned()), Err) }
    });
    check_kafka(process, &kafka(&process.settings)?)?;
    let projections = Projections {
        app: process.app.name.to_owned(),
        models: all.clone(),
        read_database_url: read_database(&process.settings)?,
        bootstrap: kafka(&process.settings)?,
        registry,
        metrics: ProjectionMetrics::new(&process.registry).map_err(Failure::failed)?,
        session_timeout: SESSION_TIMEOUT,
    };
    let projections = projections.only(only).map_err(Failure::failed)?;
    process.spawn("projections", projections.run(process.shutdown.clone()));
    Ok(())
}
