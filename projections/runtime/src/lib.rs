//! Folds topics into read models, each effect once.
//!
//! One worker per read model owns partitions through its consumer group. Where it begins is not
//! the group's to say but the checkpoint's, which lies beside the rows and moves in the transaction
//! that writes them, by compare-and-set under the owner's epoch: a crash, a rebalance, a worker
//! that sleeps and comes back, or a repeated record changes no row twice.
//!
//! | Module | Holds |
//! |---|---|
//! | `worker` | what is owned, what is next, one job at a time |
//! | `partition` | the position rule: last + 1 is folded, lower is dropped, higher is a gap |
//! | `writer` | decode, fold, write, commit; retries, halves, failures |
//! | `fold` | decoding and folding with panics caught |
//! | `status` | how projections are, from the read database |

mod error;
mod fold;
mod metrics;
mod partition;
mod patience;
mod source;
mod status;
#[cfg(test)]
mod tests;
mod worker;
mod writer;

pub use error::ProjectionError;
pub use metrics::{ProjectionMetrics, State};
pub use status::{PartitionStatus, ProjectionStatus, status};

use foldstream_core::AnyReadModel;
use foldstream_kafka::{ConsumerOptions, GroupConsumer, SchemaRegistry};
use foldstream_tables::checkpoints::BuildRef;
use foldstream_tables::{Build, rows::TableSql};
use source::Group;
use sqlx::postgres::PgPool;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use worker::Worker;
use writer::Writer;

/// No statement of a batch takes longer.
const STATEMENT: Duration = Duration::from_secs(25);
/// Lag is measured this often.
const LAG_EVERY: Duration = Duration::from_secs(2);
/// A worker that ended, which it should not, is started again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// The projections of an application, or some of them, in this process.
#[derive(Clone)]
pub struct Projections {
    /// The application's name, the first part of its topics and groups.
    pub app: String,
    /// The read models to fill.
    pub models: Vec<Arc<dyn AnyReadModel>>,
    /// Where the read models lie.
    pub read_database_url: String,
    /// Kafka's bootstrap servers.
    pub bootstrap: String,
    /// Knows the schemas of the topics.
    pub registry: SchemaRegistry,
    /// Where it is counted.
    pub metrics: ProjectionMetrics,
    /// A worker that is silent for so long loses its partitions to others.
    pub session_timeout: Duration,
}

impl std::fmt::Debug for Projections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let models: Vec<&str> = self.models.iter().map(|model| model.table().name).collect();
        f.debug_struct("Projections").field("app", &self.app).field("models", &models).finish()
    }
}

impl Projections {
    /// Keeps only the read models of these names; none named: all.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn only(mut self, names: &[String]) -> Result<Self, ProjectionError> {
        for name in names {
            if !self.models.iter().any(|model| model.table().name == name) {
                return Err(ProjectionError::Unknown(name.clone()));
            }
        }
        if !names.is_empty() {
            self.models.retain(|model| names.iter().any(|name| name == model.table().name));
        }
        Ok(self)
    }

    /// Migrates the read database and folds until shutdown. Waits for dependencies that are away,
    /// at the start and later.
    ///
    /// # Errors
    /// When the read database is not as the declared read models need it, or a configuration is
    /// wrong; never because something is away.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ProjectionError> {
        let Some(builds) = self.builds(&shutdown).await? else { return Ok(()) };
        let connections = u32::try_from(self.models.len()).unwrap_or(u32::MAX).saturating_add(1);
        let pool = foldstream_tables::pool(&self.read_database_url, connections, STATEMENT);
        let pool = pool.map_err(ProjectionError::Address)?;
        let mut workers = JoinSet::new();
        for (model, build) in self.models.iter().zip(builds) {
            let writer = Arc::new(self.writer(model, build, &pool, &shutdown));
            // Made here once, so that a wrong configuration ends the start.
            let consumer = self.consumer(&writer)?;
            workers.spawn(self.clone().keep(writer, consumer));
        }
        workers.spawn(measure(self.clone(), pool.clone(), shutdown.clone()));
        while workers.join_next().await.is_some() {}
        pool.close().await;
        Ok(())
    }

    /// The live builds; `None` at shutdown.
    async fn builds(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<Option<Vec<Build>>, ProjectionError> {
        let mut pause = Duration::from_millis(100);
        loop {
            let migrated =
                foldstream_tables::migrate(&self.read_database_url, &self.app, &self.models);
            let error = match migrated.await.map_err(ProjectionError::from) {
                Ok(builds) => return Ok(Some(builds)),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            tracing::warn!(%error, "the read database is away, waiting");
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
            }
        }
    }

    fn writer(
        &self,
        model: &Arc<dyn AnyReadModel>,
        build: Build,
        pool: &PgPool,
        shutdown: &CancellationToken,
    ) -> Writer {
        let topics = model.topics();
        Writer {
            build: BuildRef { read_model: model.table().name, build: build.place.build },
            sql: TableSql::new(build.place),
            model: model.clone(),
            topics: topics.iter().map(|topic| (topic.full_name(&self.app), *topic)).collect(),
            pool: pool.clone(),
            registry: self.registry.clone(),
            metrics: self.metrics.clone(),
            waiting: AtomicBool::new(false),
            shutdown: shutdown.clone(),
        }
    }

    fn consumer(&self, writer: &Writer) -> Result<GroupConsumer, ProjectionError> {
        let BuildRef { read_model, build } = writer.build;
        let group = format!("{}.{read_model}.b{build}", self.app);
        let options = ConsumerOptions {
            session_timeout: self.session_timeout,
            ..ConsumerOptions::new(self.bootstrap.as_str(), group, writer.topics.keys())
        };
        Ok(GroupConsumer::new(options)?)
    }

    /// Keeps one read model's worker running: a bug that ends one does not end the others.
    async fn keep(self, writer: Arc<Writer>, first: GroupConsumer) {
        let mut consumer = Some(first);
        while !writer.shutdown.is_cancelled() {
            match consumer.take().map_or_else(|| self.consumer(&writer), Ok) {
                Ok(consumer) => {
                    let worker = Worker::new(writer.clone(), Group::from(consumer));
                    if let Err(error) = tokio::spawn(worker.run()).await {
                        tracing::error!(%error, "a projection's worker ended");
                    }
                }
                Err(error) => tracing::error!(%error, "a projection's worker cannot start"),
            }
            tokio::select! {
                () = writer.shutdown.cancelled() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

/// Shows the lag in the metrics.
async fn measure(projections: Projections, pool: PgPool, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LAG_EVERY) => {}
        }
        let lags = status(&pool).await.unwrap_or_default();
        for model in &projections.models {
            let name = model.table().name;
            // Of several builds the live one is the last that is not being built.
            let lag = lags.iter().rfind(|status| status.name == name && status.state != "building");
            let (events, seconds) = lag.map_or((None, None), |l| (l.lag_events, l.lag_seconds));
            projections.metrics.set_lag(name, events, seconds);
        }
    }
}
