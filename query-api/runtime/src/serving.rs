//! Reading with a token: at once where the build is there already, else after a wait, else not.

use crate::database::{Database, ReadError};
use crate::freshness::{self, Reached, Required};
use crate::metrics::{QueryMetrics, TokenRead};
use crate::model::{Asked, Model, Outcome, Reading};
use crate::preferences::Preferences;
use crate::watch::Watcher;
use foldstream_core::{ConsistencyToken, TopicPartition};
use foldstream_service::metrics::HttpMetrics;
use foldstream_service::{FieldError, Problem, ProblemKind};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What all routes share.
pub(crate) struct Serving {
    pub(crate) database: Database,
    pub(crate) watcher: Watcher,
    /// Requests that wait hold their place among those in flight; they may not take all of them.
    pub(crate) waiting: Semaphore,
    pub(crate) metrics: QueryMetrics,
    pub(crate) http: HttpMetrics,
}

impl Serving {
    /// Reads what is asked, not from before the token unless the client prefers that to nothing.
    ///
    /// # Errors
    /// 409 for a token of another store, 503 when the token is not reached in time, or when the
    /// database is away or busy.
    pub(crate) async fn read(
        &self,
        model: &Model,
        asked: &Asked,
        token: &ConsistencyToken,
        preferences: Preferences,
    ) -> Result<Reading, Problem> {
        let deadline = Instant::now() + preferences.wait;
        let required = Required::of(token, model);
        let mut waited = false;
        loop {
            let last = waited && Instant::now() >= deadline;
            let reading = match self.read_once(model, asked).await? {
                Outcome::Read(reading) => reading,
                Outcome::NotLive => return Err(required.behind(None)),
            };
            match required.reached(&reading.snapshot) {
                Reached::OtherStore => return Err(other_store()),
                Reached::Yes => {
                    self.count(model, &required, waited);
                    return Ok(reading);
                }
                Reached::NotYet if !last => {}
                Reached::NotYet if preferences.lenient => return Ok(reading),
                Reached::NotYet => {
                    self.metrics.token_read(model.table.name, TokenRead::Behind);
                    let headers = freshness::headers(&reading.snapshot, token);
                    let problem = required.behind(Some(&reading.snapshot));
                    return Err(headers.into_iter().fold(problem, |p, (n, v)| p.header(n, v)));
                }
            }
            waited = true;
            self.wait(model, &required.positions, deadline).await?;
        }
    }

    async fn wait(
        &self,
        model: &Model,
        positions: &[(TopicPartition, u64)],
        deadline: Instant,
    ) -> Result<(), Problem> {
        let Ok(_place) = self.waiting.try_acquire() else {
            self.http.shed("token_waits");
            return Err(Problem::new(ProblemKind::Overloaded));
        };
        let _counted = self.metrics.token_waits();
        self.watcher.until(model.table.name, positions, deadline).await;
        Ok(())
    }

    async fn read_once(&self, model: &Model, asked: &Asked) -> Result<Outcome, Problem> {
        model.read(&self.database, asked).await.map_err(|error| {
            if matches!(error, ReadError::Busy(_)) {
                self.http.shed("db_pool");
            }
            error.into_problem()
        })
    }

    fn count(&self, model: &Model, required: &Required, waited: bool) {
        if !required.is_empty() {
            let outcome = if waited { TokenRead::Waited } else { TokenRead::AtOnce };
            self.metrics.token_read(model.table.name, outcome);
        }
    }
}

fn other_store() -> Problem {
    let detail = "the positions were given by another event store than the one folded here";
    Problem::new(ProblemKind::TokenOfOtherStore).error(FieldError::new(
        "consistency-token",
        "other-store",
        detail,
    ))
}
