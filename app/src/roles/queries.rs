//! `shop queries`: serves the read models.

use super::read_database;
use crate::process::Process;
use crate::{Exit, Failure, contract};
use axum::Router;
use foldstream_queries::{Options, Queries, QueryMetrics};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn start(process: &Arc<Process>) -> Result<(), Failure> {
    let document = contract::queries(&process.app)?;
    let router = router(process).await?.merge(contract::router(document));
    process.serve("queries", &process.settings.listen.queries, router).await
}

pub(crate) async fn router(process: &Arc<Process>) -> Result<Router, Failure> {
    let url = read_database(&process.settings)?;
    let settings = &process.settings.queries;
    let secret = match &settings.cursor_secret {
        Some(secret) => secret.clone().into_bytes(),
        None => secret_of(&url),
    };
    check_database(process, &url)?;
    let models = process.app.read_models.clone();
    let mut options = Options::new(url, process.app.name, models, secret);
    options.in_flight = settings.max_in_flight;
    let metrics = QueryMetrics::new(&process.registry).map_err(Failure::failed)?;
    let queries = Queries::open(options, metrics, process.http.clone());
    let configuration = |error| Failure::new(Exit::Configuration, error);
    Ok(queries.map_err(configuration)?.router())
}

/// Signs cursors where no secret is set: the same in all processes of one read database, and
/// nothing that a client knows.
fn secret_of(read_database_url: &str) -> Vec<u8> {
    Sha256::digest(format!("foldstream cursors of {read_database_url}")).to_vec()
}

fn check_database(process: &Process, url: &str) -> Result<(), Failure> {
    let deadline = Duration::from_secs(3);
    let pool = foldstream_tables::pool(url, 1, deadline).map_err(|error| {
        Failure::new(Exit::Configuration, format!("read.database_url: {error}"))
    })?;
    process.health.check("read database", deadline, move || {
        let pool = pool.clone();
        async move {
            let asked = sqlx::query("select 1 from meta.builds limit 1").execute(&pool).await;
            asked.map(|_| "ok".to_owned()).map_err(|error| {
                tracing::debug!(%error, "the read database cannot be asked");
                "the read database does not answer, or is not migrated".to_owned()
            })
        }
    });
    Ok(())
}
