//! COPY into the event table: the fastest way in, as a ceiling and to load a backlog.

use crate::load::{Client, Plan, closed_loop};
use crate::notes::{self, ACTOR, NoteTaken, PARTITIONS, PadEvent, text};
use anyhow::{Result, ensure};
use foldstream_core::{EventSet, Uuid, partition_of};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Rows of a batch, each batch a transaction of its own.
const BATCH: i64 = 1_000;
/// Rows of a batch of a backlog.
const LOAD: i64 = 10_000;

const COPY: &str = "copy events (topic, partition, position, stream_id, version, event_id,
    command_id, ordinal, type, schema_id, data, metadata, recorded_at) from stdin";

/// The kind of events that are loaded.
pub(crate) struct Kind {
    pub(crate) topic: &'static str,
    pub(crate) event_type: &'static str,
    /// The registry's id of their schema.
    pub(crate) schema: u32,
    /// The datum of the event of this number.
    pub(crate) datum: fn(i64) -> Result<Vec<u8>>,
}

/// Notes, whose one schema has the id 1.
pub(crate) const NOTES: Kind =
    Kind { topic: notes::TOPIC, event_type: notes::EVENT_TYPE, schema: 1, datum: note };

fn note(number: i64) -> Result<Vec<u8>> {
    let note: PadEvent = NoteTaken { number, text: text() }.into();
    Ok(note.encode()?)
}

/// Bytes in the hexadecimal form of Postgres, as COPY reads it.
fn hex(bytes: &[u8]) -> Result<String> {
    let mut hex = String::with_capacity(3 + 2 * bytes.len());
    hex.push_str("\\\\x");
    for byte in bytes {
        write!(hex, "{byte:02x}")?;
    }
    Ok(hex)
}

/// Where an event stands.
struct Place<'a> {
    partition: i32,
    position: i64,
    stream: &'a str,
    version: i64,
}

/// One row of COPY's text format.
fn row(into: &mut String, kind: &Kind, at: &Place<'_>, hex: &str, metadata: &str) -> Result<()> {
    let Kind { topic, event_type, schema, .. } = kind;
    let Place { partition, position, stream, version } = at;
    let (event, command) = (Uuid::new_v4(), Uuid::new_v4());
    writeln!(
        into,
        "{topic}\t{partition}\t{position}\t{stream}\t{version}\t{event}\t{command}\t0\t\
         {event_type}\t{schema}\t{hex}\t{metadata}\tnow"
    )?;
    Ok(())
}

async fn copy(connection: &mut PgConnection, rows: &str) -> Result<u64> {
    let mut copy = connection.copy_in_raw(COPY).await?;
    copy.send(rows.as_bytes()).await?;
    Ok(copy.finish().await?)
}

/// Copies batches into one partition.
struct Copier {
    connection: PgConnection,
    partition: i32,
    position: i64,
    hex: String,
    rows: String,
}

impl Client for Copier {
    async fn once(&mut self) -> Result<u64> {
        self.rows.clear();
        let metadata = format!("{{\"actor\":\"{ACTOR}\"}}");
        for _ in 0..BATCH {
            self.position += 1;
            let stream = format!("copied-{}-{}", self.partition, self.position);
            let (partition, position) = (self.partition, self.position);
            let at = Place { partition, position, stream: &stream, version: 1 };
            row(&mut self.rows, &NOTES, &at, &self.hex, &metadata)?;
        }
        copy(&mut self.connection, &self.rows).await
    }
}

/// Events per second by COPY in batches, over so many connections.
pub(crate) async fn ceiling(url: &str, connections: i32, plan: Plan) -> Result<f64> {
    let mut copiers = Vec::new();
    for partition in 0..connections {
        let connection = PgConnection::connect(url).await?;
        let (hex, rows) = (hex(&note(1)?)?, String::new());
        copiers.push(Copier { connection, partition, position: 0, hex, rows });
    }
    Ok(closed_loop(copiers, plan).await?.rate)
}

/// Fills the event table and its heads with events of so many streams, as commands over HTTP would
/// have: with actor, correlation and trace. The store must have been opened once.
pub(crate) async fn backlog(url: &str, kind: &Kind, events: i64, streams: i64) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let mut heads = BTreeMap::from_iter((0..PARTITIONS).map(|partition| (partition, 0)));
    let (mut rows, mut copied) = (String::new(), 0);
    for number in 0..events {
        let stream = format!("stream-{}", number % streams);
        let partition = partition_of(&stream, PARTITIONS);
        let head = heads.entry(partition).or_insert(0);
        *head += 1;
        let version = number / streams + 1;
        let trace = Uuid::new_v4().simple();
        let metadata = format!(
            "{{\"actor\":\"{ACTOR}\",\"correlation_id\":\"{trace}\",\
             \"traceparent\":\"00-{trace}-{:016x}-01\"}}",
            number + 1
        );
        let at = Place { partition, position: *head, stream: &stream, version };
        row(&mut rows, kind, &at, &hex(&(kind.datum)(number)?)?, &metadata)?;
        if (number + 1) % LOAD == 0 || number + 1 == events {
            copied += copy(&mut connection, &rows).await?;
            rows.clear();
        }
    }
    ensure!(copied == events as u64, "{copied} of {events} events were copied");
    for (partition, head) in heads {
        sqlx::query(
            "update heads set position = $3, recorded_at = now()
             where topic = $1 and partition = $2",
        )
        .bind(kind.topic)
        .bind(partition)
        .bind(head)
        .execute(&mut connection)
        .await?;
    }
    for statement in ["vacuum analyze events", "checkpoint"] {
        sqlx::raw_sql(statement).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
