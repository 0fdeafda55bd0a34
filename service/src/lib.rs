//! What every Foldstream process has: the HTTP server and its refusals, strict JSON, request
//! context, admission, health, metrics, logs, configuration, API documents and shutdown.
//!
//! Nothing here knows a domain, Kafka or Postgres.
//!
//! | Module | Holds |
//! |---|---|
//! | [`problem`] | RFC 9457 answers and the closed catalogue of their codes |
//! | [`json`] | reading a request body strictly, decoding it with pointers to what is wrong |
//! | [`server`] | the accept loop with its deadlines, limits and drain; [`server::detached`] |
//! | [`context`] | trace ids, access log, request metrics, panics, 404 and 405 |
//! | [`admission`] | a bound on requests in flight, beyond it 503 at once |
//! | [`health`] | `/livez`, `/readyz`, `/startupz`, `/metrics` |
//! | [`metrics`] | the HTTP metrics and `build_info` |
//! | [`telemetry`] | logs |
//! | [`config`] | file < environment < flags |
//! | [`openapi`] | the OpenAPI 3.1 document and its page |
//! | [`shutdown`] | signals to a cancellation token |

pub mod admission;
pub mod config;
pub mod context;
pub mod health;
pub mod json;
pub mod metrics;
pub mod openapi;
pub mod problem;
pub mod server;
pub mod shutdown;
pub mod telemetry;

pub use context::RequestContext;
pub use problem::{FieldError, Problem, ProblemKind};
