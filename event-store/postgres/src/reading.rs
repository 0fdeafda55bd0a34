//! Reads of streams: folds, histories.

use crate::cache::Cached;
use crate::connection::{Connections, in_time};
use crate::schemas::{Schemas, not_an_id};
use crate::served::{Served, ServedAggregate};
use crate::snapshots::LastSnapshot;
use crate::{Metadata, StoreError};
use foldstream_core::{AnyAggregate, AnyState, Invalid, RawRecord, StreamRef, Timestamp, Uuid};
use sqlx::AssertSqlSafe;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Events of one stream read at once.
const PAGE: usize = 1_000;
/// Bytes of events read at once, over all streams; one event more than that.
const MOST_BYTES: usize = 16 << 20;
/// Each stream's share of them, however many they are.
const LEAST_BYTES: usize = 64 << 10;

/// How far a state is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// To the last event.
    Latest,
    /// To this version; the last one when there are fewer.
    Version(u64),
    /// To the last event recorded at this instant or before.
    Instant(Timestamp),
}

/// An event of a stream, with who, why and when.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// The event as it is stored: version, position, time, schema, datum.
    pub record: RawRecord,
    /// The event's name with its namespace, such as `shop.invoices.InvoiceIssued`.
    pub event_type: String,
    /// The command that led to it.
    pub command_id: Uuid,
    /// Who and why.
    pub metadata: Metadata,
}

#[derive(sqlx::FromRow)]
pub(crate) struct EventRow {
    pub(crate) position: i64,
    pub(crate) stream_id: String,
    pub(crate) version: i64,
    pub(crate) event_id: Uuid,
    pub(crate) schema_id: i64,
    pub(crate) data: Vec<u8>,
    pub(crate) recorded_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct HistoryRow {
    #[sqlx(flatten)]
    event: EventRow,
    #[sqlx(rename = "type")]
    event_type: String,
    command_id: Uuid,
    metadata: Json<Metadata>,
}

/// What every reader of events needs.
pub(crate) struct Reader {
    pub(crate) connections: Connections,
    pub(crate) served: Served,
    pub(crate) schemas: Schemas,
}

impl Reader {
    /// The row as a record. Looks the schema up once more when another process learned it.
    pub(crate) async fn record(&self, row: EventRow) -> Result<RawRecord, StoreError> {
        let id = schema_id(row.schema_id)?;
        let writer = match self.schemas.writer(id) {
            Some(writer) => writer,
            None => {
                self.schemas.load(&self.connections, &self.served).await?;
                let missing = || Invalid::new("schema-id", format!("schema {id} is not known"));
                self.schemas.writer(id).ok_or_else(missing)?
            }
        };
        Ok(RawRecord {
            stream_id: row.stream_id.into(),
            version: unsigned(row.version)?,
            position: unsigned(row.position)?,
            event_id: row.event_id,
            recorded_at: Timestamp::from(row.recorded_at),
            writer,
            datum: row.data,
        })
    }
    /// Events of a stream from a version on.
    pub(crate) async fn history(
        &self,
        stream: &StreamRef,
        from_version: u64,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        self.served.of_topic(&stream.topic)?;
        let mut connection = self.connections.borrow().await?;
        let call = sqlx::query_as::<_, HistoryRow>(
            "select position, stream_id, version, event_id, schema_id, data, recorded_at, type,
                    command_id, metadata
             from events where topic = $1 and stream_id = $2 and version >= $3
             order by version limit $4",
        )
        .bind(&stream.topic)
        .bind(&stream.stream_id)
        .bind(i64::try_from(from_version).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&mut *connection);
        let rows = in_time(self.connections.call, call).await?;
        connection.give_back();
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            entries.push(HistoryEntry {
                record: self.record(row.event).await?,
                event_type: row.event_type,
                command_id: row.command_id,
                metadata: row.metadata.0,
            });
        }
        Ok(entries)
    }
    /// The state of a stream at some place, with the version there; `None` before its first event.
    /// Read page by page: each has the deadline of a call, and a caller that gives up ends it.
    pub(crate) async fn state(
        &self,
        stream: &StreamRef,
        until: Until,
    ) -> Result<Option<(u64, AnyState)>, StoreError> {
        let place = self.served.of_topic(&stream.topic)?;
        let served = &self.served.aggregates[place];
        let mut cached = Cached::nothing(served.aggregate.initial());
        let mut wanted = Wanted::after(place, Arc::new(stream.clone()), &cached, served);
        loop {
            let mut connection = self.connections.borrow().await?;
            let call = read_pages(&mut connection, std::slice::from_ref(&wanted), until);
            let pages = in_time(self.connections.call, call).await?;
            connection.give_back();
            let page = pages.into_iter().next().unwrap_or_default();
            if !self.fold(place, &mut cached, page).await? {
                return Ok((cached.version > 0).then_some((cached.version, cached.state)));
            }
            wanted = wanted.on(&cached);
        }
    }
    /// Folds a page into the state it was read for; whether there may be more.
    pub(crate) async fn fold(
        &self,
        aggregate: usize,
        cached: &mut Cached,
        page: Page,
    ) -> Result<bool, StoreError> {
        let aggregate = self.served.aggregates[aggregate].aggregate.as_ref();
        let has_more = page.has_more;
        if let Some(found) = page.snapshot {
            cached.snapshot = LastSnapshot { version: found.version, useless: true };
            if let Some(bytes) = found.state {
                let Some(state) = thaw(aggregate, &bytes) else {
                    // The events of this page come after a state that is not there.
                    return Ok(true);
                };
                cached.snapshot.useless = false;
                (cached.state, cached.bytes) = (state, bytes.len());
                (cached.version, cached.position) = (found.version, found.position);
            }
        }
        for row in page.events {
            let bytes = row.data.len();
            let record = self.record(row).await?;
            // Taken out, so that it is evolved in place.
            let state = std::mem::replace(&mut cached.state, Arc::new(()));
            cached.state = evolve(aggregate, state, &record)?;
            (cached.version, cached.position) = (record.version, record.position);
            cached.bytes += bytes;
        }
        Ok(has_more)
    }
}

/// The state of a snapshot; `None` when it is broken.
fn thaw(aggregate: &dyn AnyAggregate, bytes: &[u8]) -> Option<AnyState> {
    match catch_unwind(AssertUnwindSafe(|| aggregate.read_snapshot(bytes))) {
        Ok(Ok(state)) => Some(state),
        Ok(Err(error)) => {
            tracing::warn!(aggregate = aggregate.name(), %error, "a snapshot cannot be read");
            None
        }
        Err(_) => {
            tracing::error!(aggregate = aggregate.name(), "reading a snapshot panicked");
            None
        }
    }
}

/// Evolves a state; a panic in it is the stream's misfortune only.
fn evolve(
    aggregate: &dyn AnyAggregate,
    state: AnyState,
    record: &RawRecord,
) -> Result<AnyState, StoreError> {
    let evolved = catch_unwind(AssertUnwindSafe(|| aggregate.evolve(state, record)));
    let panicked = || Invalid::new("panic", format!("evolve of {} panicked", aggregate.name()));
    Ok(evolved.map_err(|_| panicked())??)
}

pub(crate) fn schema_id(id: i64) -> Result<u32, StoreError> {
    Ok(u32::try_from(id).map_err(|_| not_an_id(id))?)
}
pub(crate) fn unsigned(number: i64) -> Result<u64, StoreError> {
    let negative = |_| Invalid::new("negative", format!("{number} is no version or position"));
    Ok(u64::try_from(number).map_err(negative)?)
}

/// A stream to be read on from where its state stands.
pub(crate) struct Wanted {
    pub(crate) aggregate: usize,
    pub(crate) stream: Arc<StreamRef>,
    after: u64,
    /// The schema version of a snapshot to start from.
    snapshot: Option<u32>,
}

impl Wanted {
    pub(crate) fn after(
        aggregate: usize,
        stream: Arc<StreamRef>,
        cached: &Cached,
        served: &ServedAggregate,
    ) -> Self {
        let policy = served.snapshots.filter(|_| cached.version == 0);
        let snapshot = policy.map(|policy| policy.schema_version);
        Wanted { aggregate, stream, after: cached.version, snapshot }
    }
    /// The next page, without a look at the snapshot again.
    pub(crate) fn on(self, cached: &Cached) -> Self {
        Wanted { after: cached.version, snapshot: None, ..self }
    }
}

/// What was read of a stream at once.
#[derive(Default)]
pub(crate) struct Page {
    snapshot: Option<FoundSnapshot>,
    events: Vec<EventRow>,
    has_more: bool,
}

struct FoundSnapshot {
    version: u64,
    position: u64,
    /// `None` when it is of another schema, or no state of this stream up to there.
    state: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct PageRow {
    place: i64,
    is_event: bool,
    position: i64,
    stream_id: String,
    version: i64,
    event_id: Uuid,
    schema_id: i64,
    data: Option<Vec<u8>>,
    recorded_at: DateTime<Utc>,
}

const EVENTS: &str = "
    select w.place, true as is_event, e.position, e.stream_id, e.version, e.event_id, e.schema_id,
           e.data, e.recorded_at
    from w
    cross join lateral (
        select *, sum(octet_length(data)) over (order by version) - octet_length(data) as before
        from events
        where topic = w.topic and stream_id = w.stream_id
          and version > w.after and version <= $4
          and ($5::timestamptz is null or recorded_at <= $5)
        order by version limit $6
    ) e
    where e.before < $7";

/// Each statement reads only what was committed before it began, so that a snapshot and the events
/// after it fit together.
const SNAPSHOTS: &str = "
    with w as materialized (
        select w.place, w.topic, w.stream_id, k.version, k.position,
               case when k.fits then k.state end as state,
               case when k.fits then k.version else w.after end as after
        from unnest($1::text[], $2::text[], $3::bigint[], $8::bigint[]) with ordinality
            as w(topic, stream_id, after, schema_version, place)
        left join lateral (
            select s.version, s.position, s.state,
                   s.schema_version = w.schema_version and exists (
                       select 1 from events e
                       where e.topic = s.topic and e.stream_id = s.stream_id
                         and e.version = s.version and e.position = s.position
                         and e.version <= $4 and ($5::timestamptz is null or e.recorded_at <= $5)
                   ) as fits
            from snapshots s
            where s.topic = w.topic and s.stream_id = w.stream_id and w.schema_version is not null
        ) k on true
    )
    select place, false as is_event, position, stream_id, version, gen_random_uuid() as event_id,
           0::bigint as schema_id, state as data, clock_timestamp() as recorded_at
    from w where version is not null
    union all";

const NO_SNAPSHOTS: &str = "
    with w as materialized (
        select * from unnest($1::text[], $2::text[], $3::bigint[]) with ordinality
            as w(topic, stream_id, after, place)
    )";

/// The next page of each stream, in one round trip; one for each in the same order.
pub(crate) async fn read_pages(
    connection: &mut sqlx::PgConnection,
    wanted: &[Wanted],
    until: Until,
) -> Result<Vec<Page>, sqlx::Error> {
    let big = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let topics: Vec<&str> = wanted.iter().map(|w| w.stream.topic.as_str()).collect();
    let ids: Vec<&str> = wanted.iter().map(|w| w.stream.stream_id.as_str()).collect();
    let after: Vec<i64> = wanted.iter().map(|w| big(w.after)).collect();
    let (last, time) = match until {
        Until::Latest => (i64::MAX, None),
        Until::Version(version) => (big(version), None),
        Until::Instant(time) => (i64::MAX, Some(time.utc())),
    };
    let bytes = (MOST_BYTES / wanted.len().max(1)).max(LEAST_BYTES);
    let with_snapshots = wanted.iter().any(|w| w.snapshot.is_some());
    let first = if with_snapshots { SNAPSHOTS } else { NO_SNAPSHOTS };
    let mut call = sqlx::query_as::<_, PageRow>(AssertSqlSafe(format!("{first}{EVENTS}")))
        .bind(topics)
        .bind(ids)
        .bind(after)
        .bind(last)
        .bind(time)
        .bind(PAGE as i64)
        .bind(bytes as i64);
    if with_snapshots {
        call = call.bind(wanted.iter().map(|w| w.snapshot.map(i64::from)).collect::<Vec<_>>());
    }
    let rows = call.fetch_all(connection).await?;
    let mut pages: Vec<Page> = wanted.iter().map(|_| Page::default()).collect();
    for row in rows {
        let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
        let Some(page) = pages.get_mut(place) else { continue };
        page.take(row)?;
    }
    for page in &mut pages {
        // A lateral join keeps the order in practice; nothing promises it.
        page.events.sort_by_key(|event| event.version);
        let read: usize = page.events.iter().map(|event| event.data.len()).sum();
        page.has_more = page.events.len() >= PAGE || read >= bytes;
    }
    Ok(pages)
}

impl Page {
    fn take(&mut self, row: PageRow) -> Result<(), sqlx::Error> {
        let negative = || sqlx::Error::Decode("a negative version or position".into());
        let PageRow { position, stream_id, version, event_id, schema_id, recorded_at, .. } = row;
        if row.is_event {
            let data = row.data.unwrap_or_default();
            self.events.push(EventRow {
                position,
                stream_id,
                version,
                event_id,
                schema_id,
                data,
                recorded_at,
            });
        } else {
            self.snapshot = Some(FoundSnapshot {
                version: u64::try_from(version).map_err(|_| negative())?,
                position: u64::try_from(position).map_err(|_| negative())?,
                state: row.data,
            });
        }
        Ok(())
    }
}
