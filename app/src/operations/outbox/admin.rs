//! The admin routes of the outbox: who relays what, and whether the topics hold it.

use super::check::{self, Part};
use crate::process::Process;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use foldstream_core::{Lease, Outbox};
use foldstream_service::{Problem, ProblemKind};
use futures_util::stream::unfold;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Lines that wait for a slow reader; beyond them the work waits.
const LINES: usize = 16;

/// All of them.
pub(crate) fn routes(process: &Arc<Process>) -> Router {
    Router::new()
        .route("/admin/outbox", get(status))
        .route("/admin/outbox/verify", get(verify))
        .route("/admin/outbox/repair", post(repair))
        .with_state(process.clone())
}

/// `?topic=`: only this one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    topic: Option<String>,
}

type Asked = Result<Query<Which>, QueryRejection>;

/// The leases that are asked for, service by service.
async fn parts(process: &Process, asked: Asked) -> Result<Vec<Part>, Problem> {
    let Query(which) =
        asked.map_err(|error| Problem::new(ProblemKind::InvalidQuery).detail(error.body_text()))?;
    let mut parts = Vec::new();
    for (service, store) in process.stores.all().await {
        let outbox = Arc::new(store.outbox());
        let leases = outbox.leases().await.map_err(|error| {
            tracing::warn!(%error, service, "the leases cannot be read");
            away("the event database does not answer")
        })?;
        let wanted = |lease: &Lease| {
            which.topic.as_ref().is_none_or(|topic| *topic == lease.partition.topic)
        };
        let leases: Vec<Lease> = leases.into_iter().filter(wanted).collect();
        if !leases.is_empty() {
            parts.push(Part { service, outbox, leases });
        }
    }
    if !parts.is_empty() {
        return Ok(parts);
    }
    match which.topic {
        Some(topic) if !process.stores.all().await.is_empty() => {
            let topics = process.app.topics().join(", ");
            let detail = format!("there is no topic `{topic}`; there are: {topics}");
            Err(Problem::new(ProblemKind::NotFound).detail(detail))
        }
        Some(_) | None => {
            Err(away("this process has no event store open; ask one with the role relay"))
        }
    }
}

async fn status(State(process): State<Arc<Process>>, asked: Asked) -> Result<Json<Value>, Problem> {
    let parts = parts(&process, asked).await?;
    let all = parts.iter().flat_map(|part| part.leases.iter().map(|l| shown(part.service, l)));
    let data: Vec<Value> = all.collect();
    let mut backlog = serde_json::Map::new();
    for (service, store) in process.stores.all().await {
        let (measured, state) = (store.backlog(), store.backlog_state());
        let entry = json!({
            "pending_events": measured.events,
            "oldest_age_seconds": measured.oldest.as_secs_f64(),
            "state": format!("{state:?}").to_lowercase(),
        });
        backlog.insert(service.to_owned(), entry);
    }
    Ok(Json(json!({ "data": data, "backlog": backlog })))
}

fn shown(service: &str, lease: &Lease) -> Value {
    let Lease { partition, owner, epoch, expires_at, has_expired, progress, head } = lease;
    json!({
        "service": service,
        "topic": partition.topic,
        "partition": partition.partition,
        "head": head,
        "relayed": progress.position,
        "offset": progress.offset,
        "pending": head.saturating_sub(progress.position),
        "owner": owner,
        "epoch": epoch,
        "lease_expires_at": expires_at.map(|at| at.to_string()),
        "lease_expired": has_expired,
    })
}

async fn verify(State(process): State<Arc<Process>>, asked: Asked) -> Result<Response, Problem> {
    let parts = parts(&process, asked).await?;
    let kafka = kafka(&process)?;
    Ok(lines(|lines| async move { check::verify(&kafka, parts, &lines).await }))
}

async fn repair(State(process): State<Arc<Process>>, asked: Asked) -> Result<Response, Problem> {
    let parts = parts(&process, asked).await?;
    let kafka = kafka(&process)?;
    tracing::info!("an operator has the topics repaired");
    let settings = process.settings.kafka.clone();
    Ok(lines(|lines| async move { check::repair(&kafka, &settings, parts, &lines).await }))
}

fn kafka(process: &Process) -> Result<String, Problem> {
    let given = process.settings.kafka.bootstrap.clone();
    given.ok_or_else(|| away("this process has no address of Kafka"))
}

fn away(detail: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable).detail(detail)
}

/// Where lines of an answer go, one JSON object each. It fails when nobody listens any more.
#[derive(Clone)]
pub(super) struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    pub(super) async fn say(&self, line: &Value) {
        // Who hung up is noticed by the task.
        let _ = self.0.send(format!("{line}\n").into()).await;
    }
}

/// An answer of JSON lines, the last of which is what the work yields. The work ends when nobody
/// listens any more.
fn lines<W: Future<Output = Value> + Send + 'static>(work: impl FnOnce(Lines) -> W) -> Response {
    let (sender, receiver) = mpsc::channel(LINES);
    let lines = Lines(sender.clone());
    let work = work(lines.clone());
    tokio::spawn(async move {
        tokio::select! {
            last = work => lines.say(&last).await,
            () = sender.closed() => tracing::debug!("nobody waits for the outcome any more"),
        }
    });
    let body = unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|line: Bytes| (Ok::<_, Infallible>(line), receiver))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}
