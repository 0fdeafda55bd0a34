//! Servers that answer what the command routes answer, with another way behind them.
//!
//! They are built of the same pieces: the accept loop, the request context, admission, strict JSON,
//! the decoder of commands, the rules, a detached task, the same answer.

use crate::plain::{self, Plain};
use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use foldstream_core::{
    Aggregate, At, CommandSet, ConsistencyToken, Decoder, EventSet, Refused, StreamRef, Timestamp,
    TopicPartition, Uuid, partition_of,
};
use foldstream_service::admission::Admission;
use foldstream_service::context::with_context;
use foldstream_service::json::{decode, read_json};
use foldstream_service::metrics::HttpMetrics;
use foldstream_service::server::{Limits, Server, detached};
use foldstream_service::{FieldError, Problem, RequestContext};
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shop_invoicing::Invoice;
use shop_schemas::invoices::{InvoiceCommand, InvoiceId};
use sqlx::types::chrono::Utc;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

pub(crate) const TOPIC: &str = "shop.invoices";
pub(crate) const PARTITIONS: i32 = 8;
pub(crate) const EVENT_TYPE: &str = "shop.invoices.InvoiceIssued";
const BODY_LIMIT: usize = 1 << 20;

/// A server on a port of its own; ends when dropped with its runtime.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Serves these routes, as every process of Foldstream does.
pub(crate) async fn serve(routes: Router, http: HttpMetrics) -> Result<Serving> {
    let routes = with_context(routes, http.clone());
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(free, routes, Limits::default(), http).await?;
    let (address, shutdown) = (server.address()?, CancellationToken::new());
    tokio::spawn(server.run(shutdown.clone()));
    Ok(Serving { address, shutdown })
}

/// An invoice of one line, as clients send it.
pub(crate) fn invoice(id: &str) -> String {
    let line = json!({
        "sku": "85123A", "description": "WHITE HANGING HEART T-LIGHT HOLDER", "quantity": 6,
        "unit_price": "2.55",
    });
    json!({
        "invoice_id": id, "issued_at": "2010-12-01T08:26:00Z", "customer_id": "17850",
        "country": "United Kingdom", "currency": "GBP", "lines": [line],
    })
    .to_string()
}

/// Answers at once without looking: what server and clients can do at most.
pub(crate) fn hello() -> Router {
    Router::new().route("/v1/invoices", post(|| async { "hello" }))
}

/// What is done once an invoice is decided.
#[derive(Clone)]
pub(crate) enum Then {
    /// Nothing: only the append is left out.
    Nothing,
    /// A transaction of its own.
    Transaction(Plain),
}

/// `POST /v1/invoices` without an event store.
pub(crate) fn invoices(then: Then, http: HttpMetrics) -> Router {
    let router = Router::new().route("/v1/invoices", post(issue)).with_state(then);
    Admission::new("commands", 512, http).guard(router)
}

struct Strictly<'a>(&'a Value);

impl Decoder for Strictly<'_> {
    type Error = Problem;
    fn decode<T: DeserializeOwned>(self) -> Result<T, Problem> {
        decode(self.0)
    }
}

async fn issue(
    State(then): State<Then>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut body = read_json(&parts.headers, body, BODY_LIMIT).await?;
    let id = body.as_object_mut().and_then(|members| members.remove("invoice_id"));
    let wrong =
        |code, detail| Problem::invalid_body(vec![FieldError::new("/invoice_id", code, detail)]);
    let Some(Value::String(id)) = id else {
        return Err(wrong("wrong-type", "expected a text".to_owned()));
    };
    InvoiceId::parse(&id).map_err(|invalid| wrong(invalid.code, invalid.detail))?;
    let parsed = InvoiceCommand::parse("issue-invoice", Strictly(&body));
    let command = parsed.ok_or_else(|| wrong("no-command", "no such command".to_owned()))??;
    detached(async move { decided(then, &context, id, command).await }).await?
}

async fn decided(
    then: Then,
    context: &RequestContext,
    id: String,
    command: InvoiceCommand,
) -> Result<Response, Problem> {
    let (now, actor) = (Timestamp::from(Utc::now()), context.actor.clone());
    let at = At { now, actor, command_id: Uuid::now_v7() };
    let events = Invoice::default().decide(command, &at).map_err(|rejection| {
        let refused = Refused::from_rejection(&rejection);
        Problem::domain(StatusCode::UNPROCESSABLE_ENTITY, refused.code, refused.detail)
    })?;
    let partition = partition_of(&id, PARTITIONS);
    if let Then::Transaction(plain) = then {
        let data = events.0.iter().map(EventSet::encode).collect::<Result<Vec<_>, _>>();
        let command = plain::Command {
            topic: TOPIC,
            partitions: PARTITIONS,
            stream: &id,
            event_type: EVENT_TYPE,
            data: data.map_err(|error| Problem::internal(&error))?,
            metadata: json!({
                "actor": context.actor, "correlation_id": context.correlation_id,
                "traceparent": context.traceparent,
            }),
        };
        let appended = plain.append(&command, 0).await;
        appended.map_err(|error| Problem::internal(&std::io::Error::other(error)))?;
    }
    let events: Vec<Value> = (1..)
        .zip(&events.0)
        .map(|(version, _)| {
            json!({"id": at.id(version), "type": "InvoiceIssued", "version": version})
        })
        .collect();
    let place = TopicPartition::new(TOPIC, partition);
    let token = ConsistencyToken::at(Uuid::nil(), place, 1, StreamRef::new(TOPIC, id.as_str()));
    answer(&id, &events, &token)
}

fn answer(id: &str, events: &[Value], token: &ConsistencyToken) -> Result<Response, Problem> {
    let body = json!({
        "stream": format!("invoices/{id}"), "invoice_id": id, "version": 1, "events": events,
    });
    let body = serde_json::to_vec(&body).map_err(|error| Problem::internal(&error))?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::CREATED;
    let location = HeaderValue::try_from(format!("/v1/invoices/{id}"));
    let location = location.map_err(|error| Problem::internal(&error))?;
    let token = HeaderValue::try_from(token.encode());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(LOCATION, location);
    headers.insert(ETAG, HeaderValue::from_static("\"1\""));
    headers.insert("consistency-token", token.map_err(|error| Problem::internal(&error))?);
    Ok(response)
}
