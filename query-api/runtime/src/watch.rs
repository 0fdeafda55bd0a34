//! One watcher per process for all reads that wait for a token: while there are any it asks for
//! the checkpoints of all read models every few milliseconds, else it sleeps.

use crate::database::Database;
use foldstream_core::TopicPartition;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(4);
/// After a look that failed.
const REST: Duration = Duration::from_millis(100);
/// A look takes no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Positions of the live builds by read model.
type Positions = HashMap<String, HashMap<TopicPartition, u64>>;

struct Shared {
    waiting: AtomicUsize,
    wake: Notify,
    seen: watch::Sender<Arc<Positions>>,
}

/// Ends its task when it is dropped.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    _end: DropGuard,
}

impl Watcher {
    /// Starts the task; it asks nothing until someone waits. Inside a tokio runtime.
    pub(crate) fn start(database: Database, models: Vec<String>) -> Self {
        let (waiting, wake) = (AtomicUsize::new(0), Notify::new());
        let shared = Arc::new(Shared { waiting, wake, seen: watch::Sender::default() });
        let end = CancellationToken::new();
        let task = look_again_and_again(Arc::clone(&shared), database, models);
        let ended = end.clone();
        tokio::spawn(async move { ended.run_until_cancelled_owned(task).await });
        Watcher { shared, _end: end.drop_guard() }
    }

    /// Waits until the live build of a read model has these positions; answers whether it has
    /// before the deadline. A hint: who reads then looks for himself.
    pub(crate) async fn until(
        &self,
        model: &str,
        required: &[(TopicPartition, u64)],
        deadline: Instant,
    ) -> bool {
        let mut seen = self.shared.seen.subscribe();
        let _waiting = Waiting::new(&self.shared);
        // What was seen before this wait began is no news.
        while let Ok(Ok(())) = timeout_at(deadline, seen.changed()).await {
            let positions = Arc::clone(&seen.borrow_and_update());
            let own = positions.get(model);
            let has = |at| own.and_then(|own| own.get(at)).copied().unwrap_or(0);
            if required.iter().all(|(at, position)| has(at) >= *position) {
                return true;
            }
        }
        false
    }
}

/// One that waits; the watcher looks as long as there is one.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        shared.wake.notify_one();
        Waiting(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn look_again_and_again(shared: Arc<Shared>, database: Database, models: Vec<String>) {
    loop {
        if shared.waiting.load(Ordering::SeqCst) == 0 {
            shared.wake.notified().await;
            continue;
        }
        let rest = match timeout(PATIENCE, look(&database, &models)).await {
            Ok(Some(positions)) => {
                shared.seen.send_replace(Arc::new(positions));
                PERIOD
            }
            Ok(None) | Err(_) => REST,
        };
        sleep(rest).await;
    }
}

/// `None` when Postgres does not say; the reads themselves tell why.
async fn look(database: &Database, models: &[String]) -> Option<Positions> {
    let mut connection = database.acquire().await.ok()?;
    let rows: Result<Vec<(String, String, i32, i64)>, _> = sqlx::query_as(
        "select c.read_model, c.topic, c.partition, c.position
         from meta.builds b join meta.checkpoints c
           on c.read_model = b.read_model and c.build = b.build
         where b.state = 'live' and b.read_model = any($1)",
    )
    .bind(models)
    .fetch_all(&mut *connection)
    .await;
    let Ok(rows) = rows else {
        connection.close_on_drop();
        return None;
    };
    let mut positions = Positions::new();
    for (model, topic, partition, position) in rows {
        let position = u64::try_from(position).unwrap_or_default();
        positions.entry(model).or_default().insert(TopicPartition::new(topic, partition), position);
    }
    Some(positions)
}
