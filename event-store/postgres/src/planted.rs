//! Mistakes that are easily made, compiled in by the feature `planted-faults` and chosen by an
//! environment variable: the crash tests prove with them that they would find such a mistake.
//! Without the feature [`planted`] is false at compile time and nothing of this is left.

use crate::batch::{Batch, Outcome};
use crate::connection::{connect, in_time};
use crate::jobs::{Answer, Job};
use crate::writer::Shared;
use crate::{ExecuteError, Executed, Verdict};
use foldstream_core::{ConsistencyToken, Uuid};
use tokio::sync::oneshot;

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A command is answered when its append is sent.
    AnswerBeforeCommit,
    /// After a lost connection a look-up decides whether the append happened.
    LookUp,
    /// Gaps between positions are not minded.
    PollBySequence,
    /// A relay takes every partition, and of its events those that no other has locked.
    SkipLocked,
    /// A refusal that was decided on a stale state is answered.
    StaleRejection,
}

/// Whether this process makes this mistake.
#[cfg(feature = "planted-faults")]
pub(crate) fn planted(fault: Fault) -> bool {
    std::env::var("FOLDSTREAM_PLANTED_FAULT").is_ok_and(|name| name == format!("{fault:?}"))
}
/// No process does.
#[cfg(not(feature = "planted-faults"))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

/// Answers all commands of a batch that the database has not seen.
pub(crate) fn answer_before_commit(batch: &mut Batch) {
    for command in &mut batch.commands {
        let Outcome::Verdict(verdict) = &command.outcome else { continue };
        let token = ConsistencyToken::default();
        let executed = Executed { verdict: verdict.clone(), token, replayed: false };
        let answered = Answer { result: Ok(executed), part: None, others: Vec::new() };
        let (nobody, _) = oneshot::channel();
        let _ = std::mem::replace(&mut command.job.reply, nobody).send(answered);
    }
}

/// Looks once whether these commands were applied; those that were not are answered as failed.
pub(crate) async fn look_up(common: &Shared, jobs: Vec<Job>) -> Vec<Job> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.execute.at.command_id).collect();
    let found = async {
        let mut connection = connect(&common.connect, common.timings.connect).await?;
        let select =
            sqlx::query_scalar("select command_id from events where command_id = any ($1)")
                .bind(ids)
                .fetch_all(&mut connection);
        in_time(common.timings.call, select).await
    };
    let found = found.await.unwrap_or_default();
    let mut applied = Vec::new();
    for mut job in jobs {
        if found.contains(&job.execute.at.command_id) {
            job.repeats = true;
            applied.push(job);
        } else {
            let error = ExecuteError::Unavailable("nothing was done".into());
            job.answer(Answer::error(error, None));
        }
    }
    applied
}

pub(crate) fn is_refusal(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Verdict(Verdict::Refused(_)))
}

/// Takes every partition, whoever holds it.
pub(crate) const CLAIM_ALL: &str = "
    select l.topic, l.partition, l.epoch, l.position, l.\"offset\",
           null::integer as pid, null::timestamptz as backend_start
    from leases l
    join unnest($2::text[], $3::integer[]) as own(topic, partition)
      on own.topic = l.topic and own.partition = l.partition
    where $1::text is not null and $4::float8 > 0 and $5::bigint >= 0";

/// Records whatever it is told.
pub(crate) const RECORD_ALL: &str = "
    update leases l
    set position = greatest(l.position, new.position), \"offset\" = new.place
    from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[],
                $6::bigint[]) as new(topic, partition, epoch, position, place)
    where l.topic = new.topic and l.partition = new.partition and $1::text is not null
    returning l.topic, l.partition";

/// A few events, each for whoever comes first; slow, so that another comes meanwhile.
pub(crate) const PAGE_OF_UNLOCKED: &str = "
    with nap as materialized (select pg_sleep(0.05))
    select position, stream_id, version, event_id, type, schema_id, data, metadata, recorded_at
    from (
        select * from events
        where topic = $1 and partition = $2 and position > $3
        order by position offset 0
    ) page
    where $5::bigint > 0 and (select count(*) from nap) = 1
      and pg_try_advisory_lock(partition, position::integer)
    limit least($4, 20)";
