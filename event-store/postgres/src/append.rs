//! The one call that appends a batch, and what it answers.

use crate::batch::{Batch, Others, Outcome};
use crate::reading::unsigned;
use crate::several::KeptVerdict;
use crate::{StoreError, Verdict};
use foldstream_core::{Invalid, StreamRef, TopicPartition, Uuid};
use sqlx::PgConnection;
use sqlx::types::Json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// What became of a batch. Everything that is not named here was written.
#[derive(Default)]
pub(crate) struct Reply {
    /// The position after which each partition of the call was written.
    pub(crate) heads: BTreeMap<TopicPartition, u64>,
    /// Streams that have another version than their decisions rest on.
    pub(crate) stale: HashMap<usize, u64>,
    /// Commands whose key has a verdict already.
    pub(crate) stored: HashMap<usize, Stored>,
    /// Where the other streams of such a verdict stand, when it is one over several.
    pub(crate) stored_others: HashMap<usize, Vec<Place>>,
    /// Commands that were applied before, with their events.
    pub(crate) applied: HashMap<usize, Vec<Applied>>,
    /// Streams of which nothing was written, for any of these reasons, or because a command over
    /// several streams ties them to such a one.
    pub(crate) failed: HashSet<usize>,
}

/// A verdict that a key keeps.
pub(crate) struct Stored {
    /// Whether it was given to the same request.
    pub(crate) same: bool,
    pub(crate) kept: KeptVerdict,
    pub(crate) place: Option<Place>,
}

/// An event of a command that was applied before.
pub(crate) struct Applied {
    pub(crate) id: Uuid,
    pub(crate) event_type: String,
    pub(crate) version: u64,
    pub(crate) place: Place,
}

/// Where the event of a version stands.
pub(crate) struct Place {
    pub(crate) stream: StreamRef,
    pub(crate) partition: i32,
    pub(crate) position: u64,
}

#[derive(sqlx::FromRow)]
struct Row {
    kind: String,
    index: i32,
    version: Option<i64>,
    topic: Option<String>,
    partition: Option<i32>,
    position: Option<i64>,
    stream_id: Option<String>,
    event_id: Option<Uuid>,
    #[sqlx(rename = "type")]
    event_type: Option<String>,
    same: Option<bool>,
    verdict: Option<Json<KeptVerdict>>,
}

/// The arguments of `append_batch`, which see for their meaning. Indexes are 1-based there.
#[derive(Default)]
struct Arguments<'a> {
    p_topic: Vec<&'a str>,
    p_partition: Vec<i32>,
    p_events: Vec<i32>,
    s_part: Vec<i32>,
    s_stream: Vec<&'a str>,
    s_version: Vec<i64>,
    c_stream: Vec<i32>,
    c_id: Vec<Uuid>,
    c_metadata: Vec<String>,
    m_command: Vec<i32>,
    m_stream: Vec<i32>,
    k_command: Vec<i32>,
    k_scope: Vec<&'a str>,
    k_key: Vec<&'a str>,
    k_hash: Vec<&'a [u8]>,
    k_version: Vec<i64>,
    k_verdict: Vec<Option<String>>,
    e_command: Vec<i32>,
    e_stream: Vec<i32>,
    e_ordinal: Vec<i32>,
    e_version: Vec<i64>,
    e_id: Vec<Uuid>,
    e_type: Vec<&'a str>,
    e_schema: Vec<i64>,
    e_data: Vec<&'a [u8]>,
    e_place: Vec<i32>,
    look: bool,
}

fn place(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}
fn place_after(index: usize) -> i32 {
    place(index + 1)
}
fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
fn json<T: serde::Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(e.into()))
}

fn kept(verdict: &Verdict, request: Uuid, others: &Others) -> Result<String, sqlx::Error> {
    let (verdict, request) = (verdict.clone(), Some(request));
    json(&KeptVerdict { verdict, request, part: others.part, others: others.accepted.clone() })
}

impl<'a> Arguments<'a> {
    fn of(batch: &'a Batch, partitions: &'a [TopicPartition]) -> Result<Self, sqlx::Error> {
        let mut all = Arguments {
            look: batch.commands.iter().any(|c| c.job.unsettled || c.job.repeats || !c.has_events),
            ..Arguments::default()
        };
        for partition in partitions {
            all.p_topic.push(&partition.topic);
            all.p_partition.push(partition.partition);
            all.p_events.push(0);
        }
        for stream in &batch.streams {
            let at = (stream.key.topic.as_str(), stream.partition);
            let part = partitions
                .binary_search_by(|p| (p.topic.as_str(), p.partition).cmp(&at))
                .map_err(|_| sqlx::Error::Encode("a stream without a partition".into()))?;
            all.s_part.push(place_after(part));
            all.s_stream.push(&stream.key.stream_id);
            all.s_version.push(big(stream.base.version));
        }
        for (c, command) in batch.commands.iter().enumerate() {
            let execute = &command.job.execute;
            all.c_stream.push(place_after(command.stream));
            all.c_id.push(execute.at.command_id);
            all.c_metadata.push(json(&execute.metadata)?);
            for other in &command.others.streams {
                all.m_command.push(place_after(c));
                all.m_stream.push(place_after(*other));
            }
            let Some(key) = &execute.idempotency else { continue };
            all.k_command.push(place_after(c));
            all.k_scope.push(&key.scope);
            all.k_key.push(&key.key);
            all.k_hash.push(&key.request_hash);
            all.k_version.push(big(command.version));
            all.k_verdict.push(match &command.outcome {
                Outcome::Verdict(verdict) => {
                    Some(kept(verdict, command.job.request, &command.others)?)
                }
                Outcome::Unmet(_) => None,
            });
        }
        for event in &batch.events {
            all.e_command.push(place_after(event.command));
            all.e_stream.push(place_after(event.stream));
            all.e_ordinal.push(event.ordinal);
            all.e_version.push(big(event.version));
            all.e_id.push(event.id);
            all.e_type.push(event.event_type);
            all.e_schema.push(i64::from(event.schema_id));
            all.e_data.push(&event.datum);
            let part = all.s_part[event.stream];
            let events = &mut all.p_events[part as usize - 1];
            *events += 1;
            all.e_place.push(*events);
        }
        Ok(all)
    }
}

/// Appends the batch. When it answers, the batch is committed: all rows up to the end of the
/// statement are awaited, and the statement is its own transaction.
pub(crate) async fn append(
    connection: &mut PgConnection,
    batch: &Batch,
    keep_keys: Duration,
) -> Result<Vec<AppendRow>, sqlx::Error> {
    let partitions = partitions(batch);
    let all = Arguments::of(batch, &partitions)?;
    let rows = sqlx::query_as::<_, Row>(
        "select * from append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                                    $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27,
                                    $28)",
    )
    .bind(all.p_topic)
    .bind(all.p_partition)
    .bind(all.p_events)
    .bind(all.s_part)
    .bind(all.s_stream)
    .bind(all.s_version)
    .bind(all.c_stream)
    .bind(all.c_id)
    .bind(all.c_metadata)
    .bind(all.m_command)
    .bind(all.m_stream)
    .bind(all.k_command)
    .bind(all.k_scope)
    .bind(all.k_key)
    .bind(all.k_hash)
    .bind(all.k_version)
    .bind(all.k_verdict)
    .bind(keep_keys.as_secs_f64())
    .bind(all.e_command)
    .bind(all.e_stream)
    .bind(all.e_ordinal)
    .bind(all.e_version)
    .bind(all.e_id)
    .bind(all.e_type)
    .bind(all.e_schema)
    .bind(all.e_data)
    .bind(all.e_place)
    .bind(all.look)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(AppendRow).collect())
}

/// A row of the answer, not yet understood.
pub(crate) struct AppendRow(Row);

/// Sorted: the order in which heads are locked everywhere.
fn partitions(batch: &Batch) -> Vec<TopicPartition> {
    let of = |s: &crate::batch::Stream| TopicPartition::new(s.key.topic.clone(), s.partition);
    let mut all: Vec<_> = batch.streams.iter().map(of).collect();
    all.sort();
    all.dedup();
    all
}

/// Understands the answer.
///
/// # Errors
/// When the function of the database is not the one of this version.
pub(crate) fn understand(batch: &Batch, rows: Vec<AppendRow>) -> Result<Reply, StoreError> {
    let partitions = partitions(batch);
    let mut reply = Reply::default();
    for AppendRow(row) in rows {
        let index = usize::try_from(row.index - 1).unwrap_or(usize::MAX);
        let stream_of = || batch.commands.get(index).map(|c| c.stream).ok_or_else(foreign);
        match row.kind.as_str() {
            "head" => {
                let partition = partitions.get(index).ok_or_else(foreign)?;
                reply.heads.insert(partition.clone(), number(row.position)?);
            }
            "stale" => {
                reply.failed.insert(index);
                reply.stale.insert(index, number(row.version)?);
            }
            "stored" => {
                reply.failed.insert(stream_of()?);
                reply.stored.insert(index, stored(row)?);
            }
            "others" => {
                reply.stored_others.entry(index).or_default().push(place_of(row)?);
            }
            "spread" => {
                reply.failed.insert(index);
            }
            "applied" => {
                reply.failed.insert(stream_of()?);
                reply.applied.entry(index).or_default().push(applied(row)?);
            }
            _other => return Err(foreign().into()),
        }
    }
    Ok(reply)
}

fn stored(row: Row) -> Result<Stored, StoreError> {
    let same = row.same.unwrap_or(false);
    let kept = row.verdict.clone().ok_or_else(foreign)?.0;
    let place = if row.position.is_some() { Some(place_of(row)?) } else { None };
    Ok(Stored { same, kept, place })
}
fn applied(row: Row) -> Result<Applied, StoreError> {
    Ok(Applied {
        id: row.event_id.ok_or_else(foreign)?,
        event_type: row.event_type.clone().ok_or_else(foreign)?,
        version: number(row.version)?,
        place: place_of(row)?,
    })
}
fn place_of(row: Row) -> Result<Place, StoreError> {
    let (Some(topic), Some(stream_id)) = (row.topic, row.stream_id) else {
        return Err(foreign().into());
    };
    Ok(Place {
        stream: StreamRef::new(topic, stream_id),
        partition: row.partition.ok_or_else(foreign)?,
        position: number(row.position)?,
    })
}
fn number(value: Option<i64>) -> Result<u64, StoreError> {
    unsigned(value.ok_or_else(foreign)?)
}
fn foreign() -> Invalid {
    Invalid::new("append-answer", "append_batch is not the one of this version")
}
