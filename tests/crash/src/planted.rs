//! Faults that are planted on purpose, each with what provokes it: the proof that the checker
//! sees. Without the fault the same happenings violate nothing.

use std::time::Duration;

use foldstream_testkit::eventually;
use foldstream_testkit::proxy::Ending;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::check::Invariant;
use crate::history::{Kind, Outcome};
use crate::ledger::ROOM;
use crate::stage::Stage;
use crate::topic::partition_of;
use crate::world::{Member, PARTITIONS};

/// The variable that names the fault to a binary with planted faults.
pub const VARIABLE: &str = "FOLDSTREAM_PLANTED_FAULT";
/// A condition that must come true does so within this time.
const LONG: Duration = Duration::from_secs(30);
/// So long a scenario waits for something that only the fault brings about.
const PATIENCE: Duration = Duration::from_secs(2);

/// A mistake that is easily made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The relay reads what is there after the last position and does not mind gaps.
    PollBySequence,
    /// Versions are checked in the snapshot from before the wait for the lock.
    CheckWithLock,
    /// Two relays share a partition, each skipping what the other has locked.
    SkipLocked,
    /// A command is answered when its append is sent.
    AnswerBeforeCommit,
    /// Progress is what was sent, and the next owner believes it.
    ProgressBeforeDelivery,
    /// After a delivery that failed, the relay resumes after the last record of the topic.
    TailTakeover,
    /// After a lost connection a look-up decides whether the append happened.
    LookUp,
    /// A refusal that was decided on a cached state is answered although the state was stale.
    StaleRejection,
}

/// All of them.
pub const ALL: [Planted; 8] = [
    Planted::StaleRejection,
    Planted::CheckWithLock,
    Planted::LookUp,
    Planted::AnswerBeforeCommit,
    Planted::ProgressBeforeDelivery,
    Planted::TailTakeover,
    Planted::SkipLocked,
    // Last: it changes how positions are given out.
    Planted::PollBySequence,
];

impl Planted {
    /// The invariant that it violates.
    #[must_use]
    pub fn violates(self) -> Invariant {
        match self {
            Planted::PollBySequence
            | Planted::SkipLocked
            | Planted::ProgressBeforeDelivery
            | Planted::TailTakeover => Invariant::Topic,
            Planted::CheckWithLock => Invariant::Versions,
            Planted::AnswerBeforeCommit | Planted::LookUp => Invariant::Kept,
            Planted::StaleRejection => Invariant::Order,
        }
    }

    /// What brings the mistake to light.
    ///
    /// # Errors
    /// The database does not answer.
    ///
    /// # Panics
    /// Something that must happen with and without the fault does not.
    pub async fn provoke(self, stage: &Stage, is_planted: bool) -> Result<(), String> {
        let done = match self {
            Planted::PollBySequence => poll_by_sequence(stage).await,
            Planted::CheckWithLock => check_with_lock(stage, is_planted).await,
            Planted::SkipLocked => skip_locked(stage, is_planted).await,
            Planted::AnswerBeforeCommit => answer_before_commit(stage).await,
            Planted::ProgressBeforeDelivery => progress_before_delivery(stage).await,
            Planted::TailTakeover => tail_takeover(stage).await,
            Planted::LookUp => look_up(stage).await,
            Planted::StaleRejection => stale_rejection(stage).await,
        };
        done.map_err(|error| format!("{self:?}: {error}"))
    }
}

type Done = Result<(), sqlx::Error>;

async fn connect(stage: &Stage) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect(&stage.world.events_url()).await
}

/// Holds all appends up until the connection ends or commits.
async fn lock_heads(stage: &Stage) -> Result<PgConnection, sqlx::Error> {
    let mut lock = connect(stage).await?;
    sqlx::raw_sql("begin; select 1 from heads for update").execute(&mut lock).await?;
    Ok(lock)
}

/// Waits until so many backends wait for that.
async fn until_waiting(db: &mut PgConnection, what: &str, least: i64) {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and $1 in (wait_event_type, wait_event)";
    eventually(LONG, "appends that wait", async || {
        let waiting: Result<i64, _> = sqlx::query_scalar(sql).bind(what).fetch_one(&mut *db).await;
        waiting.is_ok_and(|waiting| waiting >= least)
    })
    .await;
}

/// Sends one append to each of these ledgers, without waiting.
fn send_to(stage: &Stage, ledgers: &[String], through: usize) -> JoinSet<Outcome> {
    let mut sends = JoinSet::new();
    for ledger in ledgers {
        let clients = stage.clients.clone();
        let op = clients.intend(ledger, Kind::Append, None);
        sends.spawn(async move { clients.send(op, through).await });
    }
    sends
}

/// Sends until it is accepted.
async fn append(stage: &Stage, ledger: &str, through: usize) {
    eventually(LONG, "an append that is accepted", async || {
        let op = stage.clients.intend(ledger, Kind::Append, None);
        matches!(stage.clients.send(op, through).await, Outcome::Ok { .. })
    })
    .await;
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// One process has cached that a ledger is full; another extends it.
async fn stale_rejection(stage: &Stage) -> Done {
    let ledger = "stale";
    for _ in 0..ROOM {
        append(stage, ledger, 0).await;
    }
    for (kind, through) in [(Kind::Append, 0), (Kind::Extend, 1), (Kind::Append, 0)] {
        let op = stage.clients.intend(ledger, kind, None);
        stage.clients.send(op, through).await;
    }
    Ok(())
}

/// Two processes append to the same version of a ledger, both waiting for the same lock.
async fn check_with_lock(stage: &Stage, is_planted: bool) -> Done {
    let ledger = "checked";
    append(stage, ledger, 0).await;
    // A refusal is confirmed too: from then on the other one knows the version.
    let op = stage.clients.intend(ledger, Kind::Extend, None);
    stage.clients.send(op, 1).await;
    let mut db = connect(stage).await?;
    if is_planted {
        check_before_lock(&mut db).await?;
    }
    let version = stage.clients.read(ledger, 0).await;
    let mut lock = lock_heads(stage).await?;
    let mut sends = JoinSet::new();
    for through in 0..2 {
        let clients = stage.clients.clone();
        let op = clients.intend(ledger, Kind::Append, version);
        sends.spawn(async move { clients.send(op, through).await });
    }
    until_waiting(&mut db, "Lock", 2).await;
    sqlx::raw_sql("commit").execute(&mut lock).await?;
    while sends.join_next().await.is_some() {}
    Ok(())
}

/// Has the append check versions in a snapshot from before its wait for the lock, as a statement
/// that locks and checks at once does; and takes the constraint away that hides it.
async fn check_before_lock(db: &mut PgConnection) -> Done {
    let source = function(db).await?;
    let check = between(&source, "    for found_row in\n        select s.n,", "    end loop;\n");
    let lock = "    -- What a lock had to wait for";
    assert!(source.contains(lock), "append_batch is another one");
    let changed = source.replacen(&check, "", 1).replacen(lock, &format!("{check}\n{lock}"), 1);
    sqlx::raw_sql(AssertSqlSafe(changed)).execute(&mut *db).await?;
    sqlx::raw_sql("alter table events drop constraint events_one_version").execute(db).await?;
    Ok(())
}

async fn function(db: &mut PgConnection) -> Result<String, sqlx::Error> {
    let sql = "select pg_get_functiondef(oid) from pg_proc where proname = 'append_batch'";
    sqlx::query_scalar(sql).fetch_one(db).await
}

/// The first part of a text from `start` to `end`, both included.
fn between(text: &str, start: &str, end: &str) -> String {
    let found = text.find(start).and_then(|from| {
        let to = text[from..].find(end)? + end.len();
        Some(text[from..from + to].to_owned())
    });
    found.unwrap_or_else(|| panic!("append_batch is another one: no {start:?}"))
}

/// The connection breaks while an append waits for a lock; the append commits all the same.
async fn look_up(stage: &Stage) -> Done {
    let mut db = connect(stage).await?;
    let mut lock = lock_heads(stage).await?;
    let mut sends = send_to(stage, &names("looked-up", 4), 0);
    until_waiting(&mut db, "Lock", 1).await;
    stage.world.database_link(Member::commands(0)).cut(Ending::Close);
    let _ = tokio::time::timeout(PATIENCE, sends.join_next()).await;
    sqlx::raw_sql("commit").execute(&mut lock).await?;
    while sends.join_next().await.is_some() {}
    Ok(())
}

/// A process and its backends die while an append waits for a lock.
async fn answer_before_commit(stage: &Stage) -> Done {
    let mut db = connect(stage).await?;
    let lock = lock_heads(stage).await?;
    let mut sends = send_to(stage, &names("early", 4), 0);
    until_waiting(&mut db, "Lock", 1).await;
    let _ = tokio::time::timeout(PATIENCE, sends.join_next()).await;
    stage.world.kill(Member::commands(0)).await;
    sqlx::raw_sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock'",
    )
    .execute(&mut db)
    .await?;
    eventually(LONG, "no append that waits", async || {
        let sql = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut db).await.is_ok_and(|waiting| waiting == 0)
    })
    .await;
    lock.close().await?;
    while sends.join_next().await.is_some() {}
    restart(stage, Member::commands(0)).await;
    Ok(())
}

async fn restart(stage: &Stage, member: Member) {
    stage.world.begin(member);
    stage.world.until_ready(member, LONG * 2).await.unwrap_or_else(|error| panic!("{error}"));
}

/// Relays die with events that they have handed to their producer and that Kafka has not taken.
async fn progress_before_delivery(stage: &Stage) -> Done {
    let mut db = connect(stage).await?;
    stage.world.kafka_link.down();
    let mut sends = send_to(stage, &names("undelivered", 12), 1);
    while sends.join_next().await.is_some() {}
    // Time enough to record what is not true.
    sleep(PATIENCE).await;
    kill_relays(stage, &mut db).await?;
    stage.world.kafka_link.heal();
    begin_relays(stage);
    let mut sends = send_to(stage, &names("undelivered", 12), 1);
    while sends.join_next().await.is_some() {}
    Ok(())
}

/// kill -9, as long ago as their leases last.
async fn kill_relays(stage: &Stage, db: &mut PgConnection) -> Done {
    for number in 0..2 {
        stage.world.kill(Member::relay(number)).await;
    }
    let sql = "update leases set expires_at = clock_timestamp() where owner is not null;
               update relays set expires_at = clock_timestamp()";
    sqlx::raw_sql(sql).execute(db).await?;
    Ok(())
}

fn begin_relays(stage: &Stage) {
    for number in 0..2 {
        stage.world.begin(Member::relay(number));
    }
}

/// Deliveries fail one after the other while Kafka is away; then it is back.
async fn tail_takeover(stage: &Stage) -> Done {
    let ledgers = names("tail", 8);
    let mut sends = send_to(stage, &ledgers, 1);
    while sends.join_next().await.is_some() {}
    for _ in 0..2 {
        stage.world.kafka_link.down();
        // A second's worth of events each: those before time out first.
        for _ in 0..5 {
            let mut sends = send_to(stage, &ledgers, 1);
            while sends.join_next().await.is_some() {}
            sleep(Duration::from_millis(900)).await;
        }
        stage.world.kafka_link.heal();
        sleep(PATIENCE).await;
    }
    Ok(())
}

/// Two relays begin at once with many events to send.
async fn skip_locked(stage: &Stage, is_planted: bool) -> Done {
    let mut db = connect(stage).await?;
    kill_relays(stage, &mut db).await?;
    let ledgers = names("busy", 60);
    for _ in 0..4 {
        let mut sends = send_to(stage, &ledgers, 0);
        let mut others = send_to(stage, &ledgers, 1);
        while sends.join_next().await.is_some() || others.join_next().await.is_some() {}
    }
    // Both are to meet the whole backlog.
    let mut lock = connect(stage).await?;
    sqlx::raw_sql("begin; lock table events").execute(&mut lock).await?;
    begin_relays(stage);
    if is_planted {
        // One relay alone has four partitions, and waits for four pages.
        let sql = "select count(*) from pg_stat_activity where datname = current_database()
                   and wait_event_type = 'Lock' and query like '%pg_try_advisory_lock%'";
        eventually(LONG, "two relays that wait for events", async || {
            let waiting: Result<i64, _> = sqlx::query_scalar(sql).fetch_one(&mut db).await;
            waiting.is_ok_and(|waiting| waiting > 4)
        })
        .await;
    }
    sqlx::raw_sql("commit").execute(&mut lock).await?;
    Ok(())
}

/// Two appends to one partition commit in another order than they took their numbers.
async fn poll_by_sequence(stage: &Stage) -> Done {
    let (slow, fast) = two_of_one_partition();
    append(stage, &fast, 1).await;
    let mut db = connect(stage).await?;
    number_by_sequence(&mut db).await?;
    let mut sends = send_to(stage, &[slow], 0);
    until_waiting(&mut db, "PgSleep", 1).await;
    append(stage, &fast, 1).await;
    while sends.join_next().await.is_some() {}
    Ok(())
}

fn two_of_one_partition() -> (String, String) {
    let slow = "slow".to_owned();
    let wanted = partition_of(slow.as_bytes(), PARTITIONS);
    let fast = (0..).map(|number| format!("fast-{number}"));
    let mut fast = fast.filter(|name| partition_of(name.as_bytes(), PARTITIONS) == wanted);
    (slow, fast.next().unwrap_or_default())
}

/// Has the append take positions from a sequence, without a lock, as stores of events often do.
async fn number_by_sequence(db: &mut PgConnection) -> Done {
    let source = function(db).await?;
    for partition in 0..PARTITIONS {
        let sql = format!(
            "create sequence positions_{partition}; select setval('positions_{partition}',
             greatest(max(position), 1), max(position) is not null)
             from events where partition = {partition}"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *db).await?;
    }
    let place = "before[e.part] + e.place";
    let update = "        update heads h\n";
    let lock = "        for update\n";
    for anchor in [place, update, lock] {
        assert!(source.contains(anchor), "append_batch is another one: no {anchor:?}");
    }
    let sleep = "        if 'slow' = any (s_stream) then perform pg_sleep(1.5); end if;\n";
    let changed = source
        .replacen(lock, "", 1)
        .replacen(place, "nextval(format('positions_%s', p_partition[e.part])::regclass)", 1)
        .replacen(update, &format!("{sleep}{update}"), 1);
    sqlx::raw_sql(AssertSqlSafe(changed)).execute(db).await?;
    Ok(())
}
