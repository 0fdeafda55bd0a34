//! What is looked at while everything runs: the backlog, memory, open files.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use crate::history::{History, Micros};
use crate::world::{Member, World, lock};

/// How often the backlog is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// How often processes are looked at: every so many looks at the backlog.
const PROCESSES_EVERY: usize = 5;
const DEADLINE: Duration = Duration::from_secs(2);

/// How far each partition has come.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When.
    pub at: Micros,
    /// What is committed, by partition.
    pub heads: BTreeMap<i32, i64>,
    /// What is recorded as relayed, by partition.
    pub relayed: BTreeMap<i32, i64>,
}

impl Sample {
    /// Whether all that this sample has committed is relayed in the other.
    #[must_use]
    pub fn is_relayed_in(&self, later: &Sample) -> bool {
        self.heads
            .iter()
            .all(|(partition, head)| later.relayed.get(partition).copied().unwrap_or(0) >= *head)
    }

    /// How many committed events are not recorded as relayed.
    #[must_use]
    pub fn pending(&self) -> i64 {
        let relayed = |partition: &i32| self.relayed.get(partition).copied().unwrap_or(0);
        self.heads.iter().map(|(partition, head)| (head - relayed(partition)).max(0)).sum()
    }
}

/// The most that a member ever used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// Open files.
    pub files: usize,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Watch {
    /// The backlog, in the order of time.
    pub samples: Mutex<Vec<Sample>>,
    /// The peak of each member.
    pub usage: Mutex<BTreeMap<Member, Usage>>,
}

impl Watch {
    /// Looks until it is dropped.
    pub async fn run(self: Arc<Self>, world: Arc<World>, history: Arc<History>) {
        let mut connection = None;
        for round in 0_usize.. {
            if let Some(sample) = sample(&world, &history, &mut connection).await {
                lock(&self.samples).push(sample);
            }
            if round.is_multiple_of(PROCESSES_EVERY) {
                for (member, pid) in world.pids() {
                    let mut usage = lock(&self.usage);
                    let usage = usage.entry(member).or_default();
                    usage.rss_kib = usage.rss_kib.max(rss_kib(pid));
                    let files = fs::read_dir(format!("/proc/{pid}/fd"));
                    usage.files = usage.files.max(files.map_or(0, Iterator::count));
                }
            }
            sleep(EVERY).await;
        }
    }
}

/// One look at the backlog; none while Postgres does not answer.
pub async fn sample(
    world: &World,
    history: &History,
    connection: &mut Option<PgConnection>,
) -> Option<Sample> {
    let looked = timeout(DEADLINE, async {
        let mut own = match connection.take() {
            Some(own) => own,
            None => PgConnection::connect(&world.events_url()).await?,
        };
        let at = history.now();
        let select = "select partition, position from heads";
        let heads: Vec<(i32, i64)> = sqlx::query_as(select).fetch_all(&mut own).await?;
        let select = "select partition, position from leases";
        let relayed: Vec<(i32, i64)> = sqlx::query_as(select).fetch_all(&mut own).await?;
        *connection = Some(own);
        let (heads, relayed) = (heads.into_iter().collect(), relayed.into_iter().collect());
        Ok::<_, sqlx::Error>(Sample { at, heads, relayed })
    });
    looked.await.ok()?.ok()
}

fn rss_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
