//! The admin routes: what the process knows, as JSON.

use super::doctor;
use crate::process::Process;
use crate::roles;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use foldstream_core::AnyReadModel;
use foldstream_kafka::Cluster;
use foldstream_postgres::Backlog;
use foldstream_projections::ProjectionStatus;
use foldstream_service::{Problem, ProblemKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// No database call of an admin route takes longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// All of them.
pub(crate) fn routes(process: &Arc<Process>) -> Router {
    Router::new()
        .route("/admin/projections", get(projections))
        .route("/admin/projections/{name}", get(projection))
        .route("/admin/topics", get(topics))
        .route("/admin/status", get(status))
        .route("/admin/doctor", get(examine))
        .with_state(process.clone())
        .merge(super::streams::routes(process))
        .merge(super::outbox::routes(process))
}

async fn projections(State(process): State<Arc<Process>>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "data": all_projections(&process).await? })))
}

async fn projection(
    State(process): State<Arc<Process>>,
    Path(name): Path<String>,
) -> Result<Json<ProjectionStatus>, Problem> {
    let all = all_projections(&process).await?;
    let names: Vec<String> = all.iter().map(|one| one.name.clone()).collect();
    all.into_iter().find(|one| one.name == name).map(Json).ok_or_else(|| {
        let detail = format!("there is no read model `{name}`; there are: {}", names.join(", "));
        Problem::new(ProblemKind::NotFound).detail(detail)
    })
}

async fn topics(State(process): State<Arc<Process>>) -> Result<Json<Value>, Problem> {
    let Some(bootstrap) = &process.settings.kafka.bootstrap else {
        return Err(away("this process has no address of Kafka"));
    };
    let names = process.app.topics();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let described = async {
        let cluster = Cluster::new(bootstrap).map_err(|e| e.to_string())?;
        cluster.describe(&names).await.map_err(|e| e.to_string())
    };
    let described = described.await.map_err(|reason| away(&format!("Kafka: {reason}")))?;
    Ok(Json(json!({ "data": described })))
}

async fn status(State(process): State<Arc<Process>>) -> Json<Value> {
    let readiness = process.health.readiness().await;
    let mut backlog = BTreeMap::new();
    for (service, store) in process.stores.all().await {
        let Backlog { events, oldest } = store.backlog();
        let (oldest, state) = (oldest.as_secs_f64(), store.backlog_state());
        let state = format!("{state:?}").to_lowercase();
        let shown =
            json!({ "pending_events": events, "oldest_age_seconds": oldest, "state": state });
        backlog.insert(service, shown);
    }
    let projections = all_projections(&process).await.unwrap_or_default();
    Json(json!({
        "app": process.app.name,
        "version": env!("CARGO_PKG_VERSION"),
        "readiness": readiness,
        "outbox": backlog,
        "projections": projections,
    }))
}

async fn examine(State(process): State<Arc<Process>>) -> Json<Value> {
    Json(json!({ "data": doctor::examine(&process).await }))
}

fn away(detail: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable).detail(detail)
}

async fn all_projections(process: &Process) -> Result<Vec<ProjectionStatus>, Problem> {
    let Ok(url) = roles::read_database(&process.settings) else {
        return Err(away("this process has no address of the read database"));
    };
    let asked = async {
        let pool = foldstream_tables::pool(&url, 1, DEADLINE).map_err(|e| e.to_string())?;
        let status = foldstream_projections::status(&pool).await.map_err(|e| e.to_string());
        pool.close().await;
        status
    };
    asked.await.map_err(|reason| {
        tracing::warn!(reason, "the projections cannot be asked");
        away("the read database does not answer")
    })
}

/// Whether every read model has folded all that the event stores of this process hold.
pub(crate) async fn caught_up(process: &Process) -> bool {
    let Ok(projections) = all_projections(process).await else { return false };
    let app = process.app.name;
    let of_model = |model: &Arc<dyn AnyReadModel>| {
        let topics = model.topics().iter().map(|topic| topic.full_name(app)).collect();
        (model.table().name, topics)
    };
    let reads: BTreeMap<&str, Vec<String>> = process.app.read_models.iter().map(of_model).collect();
    for (_, store) in process.stores.all().await {
        let Ok(heads) = store.heads().await else { return false };
        let behind = |projection: &ProjectionStatus| {
            let read = reads.get(projection.name.as_str()).map_or(&[][..], Vec::as_slice);
            heads.iter().filter(|head| read.contains(&head.partition.topic)).any(|head| {
                let at = projection.partitions.iter().find(|at| {
                    at.topic == head.partition.topic && at.partition == head.partition.partition
                });
                let position = at.and_then(|at| u64::try_from(at.position).ok()).unwrap_or(0);
                position < head.position
            })
        };
        if projections.iter().any(behind) {
            return false;
        }
    }
    true
}
