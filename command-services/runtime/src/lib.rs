//! HTTP to decide to append: the command side of a service.
//!
//! [`Service`] lists aggregates; [`router`] gives each its routes over an event store:
//!
//! | Route | Does |
//! |---|---|
//! | `POST /v1/{aggregates}` | the creating command |
//! | `POST /v1/{aggregates}/{id}/commands/{command}` | any command |
//! | `GET /v1/{aggregates}/{id}/history` | the events of one stream |
//! | `GET /v1/{aggregates}/{id}/state` | its state, now or before |
//!
//! A request is checked in this order: syntax, idempotency key, preconditions, and last the rules
//! of the aggregate. Commands run in a task of their own: a client that hangs up cancels nothing.

mod answer;
mod headers;
mod identity;
mod metrics;
mod openapi;
mod query;
mod reads;
mod request;
mod routes;
mod service;
mod store;

pub use metrics::CommandMetrics;
pub use openapi::openapi;
pub use reads::history_json;
pub use routes::{Options, router};
pub use service::Service;
