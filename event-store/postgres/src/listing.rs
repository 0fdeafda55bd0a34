//! Reads for people: which streams there are, pages of a history, what was appended since.
//!
//! Every statement here is bounded by rows and bytes, and walks an index from where it begins: none
//! of them grows with the number of events.

use crate::connection::in_time;
use crate::reading::{EventRow, HistoryEntry, Reader, unsigned};
use crate::{EventStore, Metadata, StoreError};
use foldstream_core::{RawRecord, StreamRef, Timestamp, TopicPartition, Uuid};
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};

/// Data of one page; a page whose first event alone is larger holds that event.
const PAGE_BYTES: i64 = 4 << 20;
/// Greater than every character of a stream id, as bytes are compared.
const PAST_ALL: &str = "~";

/// A stream, as a list of streams shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// The aggregate's id.
    pub stream_id: String,
    /// Its last version.
    pub version: u64,
    /// The full name of its last event, such as `shop.invoices.InvoiceIssued`.
    pub last_type: String,
    /// When that was appended.
    pub last_at: Timestamp,
}

/// A part of a history.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Events in the order of their versions.
    pub entries: Vec<HistoryEntry>,
    /// Whether there are more after them.
    pub has_more: bool,
}

/// An event with its place in its topic.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Where it lies; its position is in the record.
    pub partition: TopicPartition,
    /// The event.
    pub entry: HistoryEntry,
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    #[sqlx(flatten)]
    event: EventRow,
    #[sqlx(rename = "type")]
    event_type: String,
    command_id: Uuid,
    metadata: Json<Metadata>,
}

impl EventStore {
    /// Events of a stream from a version on, as one page: at most `limit`, and about 4 MiB of data.
    ///
    /// # Errors
    /// When the database does not answer, the topic is not of this service, or an event is broken.
    pub async fn history_page(
        &self,
        stream: &StreamRef,
        from_version: u64,
        limit: u32,
    ) -> Result<HistoryPage, StoreError> {
        self.reader().history_page(stream, from_version, limit).await
    }
    /// Streams of a topic whose ids begin with `prefix`, in the byte order of ids, after the id
    /// `after` (empty: from the first), at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer, or the topic is not of this service.
    pub async fn streams(
        &self,
        topic: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<StreamSummary>, StoreError> {
        self.reader().streams(topic, prefix, after, limit).await
    }
    /// What follows these positions, in the order of time: at most `limit` events of each partition
    /// and about 4 MiB of data; of each partition without a gap.
    ///
    /// # Errors
    /// When the database does not answer, or an event is missing or broken.
    pub async fn appended(
        &self,
        after: &[(TopicPartition, u64)],
        limit: u32,
    ) -> Result<Vec<Appended>, StoreError> {
        self.reader().appended(after, limit).await
    }
    /// After which positions the last `count` events of these partitions come; those of which none
    /// is among them are left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn before_last(
        &self,
        partitions: &[TopicPartition],
        count: u32,
    ) -> Result<Vec<(TopicPartition, u64)>, StoreError> {
        self.reader().before_last(partitions, count).await
    }
}

impl Reader {
    async fn entry(&self, row: EntryRow) -> Result<HistoryEntry, StoreError> {
        let record: RawRecord = self.record(row.event).await?;
        Ok(HistoryEntry {
            record,
            event_type: row.event_type,
            command_id: row.command_id,
            metadata: row.metadata.0,
        })
    }

    /// The recursion steps from one id to the next in the index of versions, so that a stream costs
    /// two descents however many events it has.
    /// Measured on 300,000 events, a third of them in one stream: 51 streams by 366 pages in 5 ms,
    /// cold; `distinct on` read 6,100 pages in 330 ms.
    async fn streams(
        &self,
        topic: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<StreamSummary>, StoreError> {
        self.served.of_topic(topic)?;
        let mut connection = self.connections.borrow().await?;
        let call = sqlx::query_as::<_, (String, i64, String, DateTime<Utc>)>(
            "with recursive found(stream_id, n) as (
                (select e.stream_id, 1 from events e
                 where e.topic = $1 and e.stream_id >= $2 and e.stream_id > $3
                   and e.stream_id < $4
                 order by e.stream_id limit 1)
                union all
                select next.stream_id, found.n + 1
                from found cross join lateral (
                    select e.stream_id from events e
                    where e.topic = $1 and e.stream_id > found.stream_id and e.stream_id < $4
                    order by e.stream_id limit 1
                ) next
                where found.n < $5
             )
             select found.stream_id, last.version, last.type, last.recorded_at
             from found cross join lateral (
                select e.version, e.type, e.recorded_at from events e
                where e.topic = $1 and e.stream_id = found.stream_id
                order by e.version desc limit 1
             ) last
             order by found.n",
        )
        .bind(topic)
        .bind(prefix)
        .bind(after)
        .bind(format!("{prefix}{PAST_ALL}"))
        .bind(i32::try_from(limit).unwrap_or(i32::MAX))
        .fetch_all(&mut *connection);
        let rows = in_time(self.connections.call, call).await?;
        connection.give_back();
        let summary = |(stream_id, version, last_type, last_at)| {
            let last_at = Timestamp::from(last_at);
            Ok(StreamSummary { stream_id, version: unsigned(version)?, last_type, last_at })
        };
        rows.into_iter().map(summary).collect()
    }

    async fn history_page(
        &self,
        stream: &StreamRef,
        from_version: u64,
        limit: u32,
    ) -> Result<HistoryPage, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            found: i64,
            #[sqlx(flatten)]
            entry: EntryRow,
        }
        self.served.of_topic(&stream.topic)?;
        let mut connection = self.connections.borrow().await?;
        // One more than asked tells whether there are more.
        let call = sqlx::query_as::<_, Row>(
            "select * from (
                select e.position, e.stream_id, e.version, e.event_id, e.schema_id, e.data,
                       e.recorded_at, e.type, e.command_id, e.metadata, count(*) over () as found,
                       sum(octet_length(e.data)) over (order by e.version)
                         - octet_length(e.data) as before
                from (
                    select * from events where topic = $1 and stream_id = $2 and version >= $3
                    order by version limit $4
                ) e
             ) page where before < $5 order by version",
        )
        .bind(&stream.topic)
        .bind(&stream.stream_id)
        .bind(i64::try_from(from_version).unwrap_or(i64::MAX))
        .bind(i64::from(limit) + 1)
        .bind(PAGE_BYTES)
        .fetch_all(&mut *connection);
        let mut rows = in_time(self.connections.call, call).await?;
        connection.give_back();
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let has_more = rows.first().is_some_and(|row| row.found > rows.len() as i64);
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            entries.push(self.entry(row.entry).await?);
        }
        Ok(HistoryPage { entries, has_more })
    }

    async fn appended(
        &self,
        after: &[(TopicPartition, u64)],
        limit: u32,
    ) -> Result<Vec<Appended>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            topic: String,
            partition: i32,
            #[sqlx(flatten)]
            entry: EntryRow,
        }
        let (topics, partitions): (Vec<&str>, Vec<i32>) =
            after.iter().map(|(at, _)| (at.topic.as_str(), at.partition)).unzip();
        let positions: Vec<i64> =
            after.iter().map(|(_, p)| i64::try_from(*p).unwrap_or(i64::MAX)).collect();
        let mut connection = self.connections.borrow().await?;
        // Taken in turn, one of each partition, so that none waits for all of another.
        let call = sqlx::query_as::<_, Row>(
            "select * from (
                select e.*, sum(octet_length(e.data)) over (order by e.turn, e.topic, e.partition)
                              - octet_length(e.data) as before
                from (
                    select e.*, e.position - w.after as turn
                    from unnest($1::text[], $2::integer[], $3::bigint[])
                        as w(topic, partition, after)
                    cross join lateral (
                        select * from events
                        where topic = w.topic and partition = w.partition and position > w.after
                        order by position limit $4
                    ) e
                ) e
             ) page where before < $5 order by recorded_at, topic, partition, position",
        )
        .bind(topics)
        .bind(partitions)
        .bind(positions)
        .bind(i64::from(limit))
        .bind(PAGE_BYTES)
        .fetch_all(&mut *connection);
        let rows = in_time(self.connections.call, call).await?;
        connection.give_back();
        let mut last: std::collections::HashMap<_, _> = after.iter().cloned().collect();
        let mut appended = Vec::with_capacity(rows.len());
        for row in rows {
            let partition = TopicPartition::new(row.topic, row.partition);
            let entry = self.entry(row.entry).await?;
            let before = last.insert(partition.clone(), entry.record.position).unwrap_or(0);
            if entry.record.position != before + 1 {
                return Err(StoreError::Gap { partition, position: before + 1 });
            }
            appended.push(Appended { partition, entry });
        }
        Ok(appended)
    }

    async fn before_last(
        &self,
        partitions: &[TopicPartition],
        count: u32,
    ) -> Result<Vec<(TopicPartition, u64)>, StoreError> {
        let (topics, numbers): (Vec<&str>, Vec<i32>) =
            partitions.iter().map(|at| (at.topic.as_str(), at.partition)).unzip();
        let mut connection = self.connections.borrow().await?;
        let call = sqlx::query_as::<_, (String, i32, i64)>(
            "select topic, partition, min(position) - 1 from (
                select e.* from unnest($1::text[], $2::integer[]) as w(topic, partition)
                cross join lateral (
                    select topic, partition, position, recorded_at from events
                    where topic = w.topic and partition = w.partition
                    order by position desc limit $3
                ) e
                order by e.recorded_at desc, e.topic desc, e.partition desc, e.position desc
                limit $3
             ) last group by topic, partition",
        )
        .bind(topics)
        .bind(numbers)
        .bind(i64::from(count))
        .fetch_all(&mut *connection);
        let rows = in_time(self.connections.call, call).await?;
        connection.give_back();
        let place = |(topic, partition, position)| {
            Ok((TopicPartition::new(topic, partition), unsigned(position)?))
        };
        rows.into_iter().map(place).collect()
    }
}
