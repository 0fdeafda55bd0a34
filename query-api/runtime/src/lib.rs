//! The query side: every declared read model as an HTTP resource with filters, order, pages, keys,
//! consistency tokens and freshness headers.
//!
//! | Module | Holds |
//! |---|---|
//! | `query_string` | strict percent-decoding |
//! | `filter`, `order`, `list_query` | what a list is asked for, checked against the declaration |
//! | `cursor` | signed places between two rows |
//! | `statement` | SQL text; names from the declaration, values as parameters |
//! | `database` | pool, deadlines, what an error means |
//! | `model` | reading from the build that is live in the rows' own snapshot |
//! | `freshness` | headers, and whether a token is reached |
//! | `watch`, `serving` | waiting for a token |
//! | `page`, `routes` | answers |
//! | `openapi` | the contract |

mod cursor;
mod database;
mod filter;
mod freshness;
mod list_query;
mod metrics;
mod model;
mod openapi;
mod order;
mod page;
mod preferences;
mod query_string;
mod routes;
#[cfg(test)]
#[allow(unreachable_pub, reason = "shared with the tests over HTTP")]
#[path = "../tests/api/sample.rs"]
mod sample;
mod serving;
mod statement;
mod watch;

pub use metrics::QueryMetrics;
pub use openapi::openapi;
pub use preferences::CONSISTENCY_TOKEN;

use axum::Router;
use database::{Bounds, Database};
use foldstream_core::AnyReadModel;
use foldstream_service::admission::Admission;
use foldstream_service::metrics::HttpMetrics;
use model::Model;
use routes::ModelRoutes;
use serving::Serving;
use std::sync::Arc;
use std::time::Duration;

/// The shortest secret that cursors are signed with, in bytes.
const MIN_SECRET: usize = 32;

/// What the query side serves and bears.
#[derive(Clone)]
pub struct Options {
    /// The read database.
    pub read_database_url: String,
    /// The application's name, the first part of its topics' names.
    pub app: String,
    /// The read models to serve.
    pub models: Vec<Arc<dyn AnyReadModel>>,
    /// Signs cursors; the same in all processes that serve the same clients. At least 32 bytes.
    pub cursor_secret: Vec<u8>,
    /// How long a cursor is good for, at least. Default 24 h.
    pub cursor_lifetime: Duration,
    /// Connections to the read database; one more is for waiting tokens. Default 16.
    pub connections: u32,
    /// Requests in flight, beyond which 503 is answered; half of them may wait for a token.
    /// Default 128.
    pub in_flight: usize,
    /// How long a request waits for a connection. Default 300 ms.
    pub pool_wait: Duration,
    /// How long a statement runs. Default 5 s.
    pub statement_timeout: Duration,
}

impl Options {
    /// These models, with defaults for all else.
    #[must_use]
    pub fn new(
        read_database_url: impl Into<String>,
        app: impl Into<String>,
        models: Vec<Arc<dyn AnyReadModel>>,
        cursor_secret: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            read_database_url: read_database_url.into(),
            app: app.into(),
            models,
            cursor_secret: cursor_secret.into(),
            cursor_lifetime: Duration::from_hours(24),
            connections: 16,
            in_flight: 128,
            pool_wait: Duration::from_millis(300),
            statement_timeout: Duration::from_secs(5),
        }
    }
}

/// Without the secret and the address, which may hold a password.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let models: Vec<_> = self.models.iter().map(|m| m.table().name).collect();
        f.debug_struct("Options").field("app", &self.app).field("models", &models).finish()
    }
}

/// The query side cannot serve what it is given.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address of the read database is none.
    #[error("the read database's address: {0}")]
    Address(#[from] sqlx::Error),
    /// The secret is too short to sign with.
    #[error("the cursor secret has {0} bytes; it needs at least {MIN_SECRET}")]
    WeakSecret(usize),
    /// A column that can be filtered by is named like a parameter of lists.
    #[error("read model `{model}`: a column to filter by cannot be named `{column}`")]
    ReservedColumn {
        /// The read model.
        model: &'static str,
        /// The column.
        column: &'static str,
    },
    /// Two read models have one name.
    #[error("two read models are named `{0}`")]
    Twice(&'static str),
}

/// The query side of a process.
pub struct Queries {
    models: Vec<Arc<Model>>,
    serving: Arc<Serving>,
    cursors: cursor::Cursors,
    in_flight: usize,
}

impl Queries {
    /// Makes ready to serve; connects when first asked, so the database may still be away. Call it
    /// inside a tokio runtime: a task that watches checkpoints lives as long as the routes.
    ///
    /// # Errors
    /// When the options cannot be served, whatever the database holds.
    pub fn open(
        options: Options,
        metrics: QueryMetrics,
        http: HttpMetrics,
    ) -> Result<Self, OpenError> {
        check(&options)?;
        let url = &options.read_database_url;
        let bounds = Bounds {
            connections: options.connections.max(1),
            pool_wait: options.pool_wait,
            statement: options.statement_timeout,
        };
        let database = Database::new(url, bounds, metrics.clone())?;
        // Its own connection: readers that fill the pool cannot keep it from looking.
        let lookout = Database::new(url, Bounds { connections: 1, ..bounds }, metrics.clone())?;
        let models: Vec<_> =
            options.models.iter().map(|m| Arc::new(Model::new(&**m, &options.app))).collect();
        let names = models.iter().map(|model| model.table.name.to_owned()).collect();
        let serving = Serving {
            database,
            watcher: watch::Watcher::start(lookout, names),
            waiting: tokio::sync::Semaphore::new((options.in_flight / 2).max(1)),
            metrics,
            http,
        };
        let cursors = cursor::Cursors::new(&options.cursor_secret, options.cursor_lifetime);
        Ok(Queries { models, serving: Arc::new(serving), cursors, in_flight: options.in_flight })
    }

    /// The routes of all read models, `GET /v1/{model}` and `GET /v1/{model}/{key…}`, under one
    /// bound on requests in flight. They merge with the routes of commands.
    pub fn router(&self) -> Router {
        let routes = self.models.iter().map(|model| {
            let (model, serving) = (Arc::clone(model), Arc::clone(&self.serving));
            ModelRoutes { model, serving, cursors: self.cursors.clone() }.router()
        });
        let router = routes.fold(Router::new(), Router::merge);
        if self.models.is_empty() {
            return router;
        }
        Admission::new("queries", self.in_flight, self.serving.http.clone()).guard(router)
    }
}

fn check(options: &Options) -> Result<(), OpenError> {
    if options.cursor_secret.len() < MIN_SECRET {
        return Err(OpenError::WeakSecret(options.cursor_secret.len()));
    }
    for (i, model) in options.models.iter().enumerate() {
        let table = model.table();
        if options.models[..i].iter().any(|other| other.table().name == table.name) {
            return Err(OpenError::Twice(table.name));
        }
        let reserved =
            |column: &&foldstream_core::ColumnDef| list_query::SINGLE.contains(&column.name);
        if let Some(column) = filter::filterable(table).find(reserved) {
            return Err(OpenError::ReservedColumn { model: table.name, column: column.name });
        }
    }
    Ok(())
}
