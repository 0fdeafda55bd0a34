//! The tables of the event store, read with plain SQL.

use std::time::Duration;

use serde_json::Value;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(120);

/// A row of the event table.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Event {
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub position: i64,
    /// The ledger.
    pub stream_id: String,
    /// Its place in the ledger.
    pub version: i64,
    /// Its id.
    pub event_id: Uuid,
    /// The command that led to it.
    pub command_id: Uuid,
    /// Its full name.
    #[sqlx(rename = "type")]
    pub event_type: String,
    /// The registry's id of its schema.
    pub schema_id: i64,
    /// The Avro datum.
    pub data: Vec<u8>,
    /// Who and why.
    pub metadata: Json<Value>,
    /// When.
    pub recorded_at: DateTime<Utc>,
}

impl Event {
    /// The token in its datum: both events are records of one string.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        only_string(&self.data)
    }
}

/// All that is read of the database, in one snapshot.
#[derive(Debug)]
pub struct Tables {
    /// By partition and position.
    pub events: Vec<Event>,
    /// The last position of each partition, as its head has it.
    pub heads: Vec<(i32, i64)>,
    /// Streams whose versions are not 1..n in the order of positions: `(stream, version, place)`.
    pub bad_versions: Vec<(String, i64, i64)>,
    /// Partitions whose positions are not 1..n: `(partition, position, place)`.
    pub bad_positions: Vec<(i32, i64, i64)>,
    /// Commands with more than one event: of ours none has.
    pub doubled_commands: Vec<(Uuid, i64)>,
    /// How many verdicts are kept, by key.
    pub kept_keys: Vec<(String, i64)>,
    /// The store's id.
    pub store_id: Uuid,
}

impl Tables {
    /// Reads them.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read(url: &str) -> Result<Self, String> {
        let read = timeout(DEADLINE, read(url)).await;
        read.map_err(|_| "the tables cannot be read in time".to_owned())?
            .map_err(|error| format!("the tables: {error}"))
    }
}

async fn read(url: &str) -> Result<Tables, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let mut db = connection.begin().await?;
    sqlx::raw_sql("set transaction isolation level repeatable read").execute(&mut *db).await?;
    let events = sqlx::query_as(
        "select partition, position, stream_id, version, event_id, command_id, type, schema_id,
                data, metadata, recorded_at
         from events order by partition, position",
    )
    .fetch_all(&mut *db)
    .await?;
    let heads = sqlx::query_as("select partition, position from heads").fetch_all(&mut *db).await?;
    let bad_versions = sqlx::query_as(
        "select stream_id, version, place from (
            select stream_id, version,
                   row_number() over (partition by topic, stream_id order by position) as place
            from events
         ) e where version <> place order by 1, 3 limit 20",
    )
    .fetch_all(&mut *db)
    .await?;
    let bad_positions = sqlx::query_as(
        "select partition, position, place from (
            select partition, position,
                   row_number() over (partition by topic, partition order by position) as place
            from events
         ) e where position <> place order by 1, 3 limit 20",
    )
    .fetch_all(&mut *db)
    .await?;
    let doubled_commands = sqlx::query_as(
        "select command_id, count(*) from events group by 1 having count(*) > 1 limit 20",
    )
    .fetch_all(&mut *db)
    .await?;
    let kept_keys =
        sqlx::query_as("select key, count(*) from idempotency group by 1").fetch_all(&mut *db);
    let kept_keys = kept_keys.await?;
    let store_id = sqlx::query_scalar("select store_id from meta").fetch_one(&mut *db).await?;
    db.rollback().await?;
    connection.close().await?;
    Ok(Tables { events, heads, bad_versions, bad_positions, doubled_commands, kept_keys, store_id })
}

/// An Avro datum that is one string and nothing else.
#[must_use]
pub fn only_string(datum: &[u8]) -> Option<String> {
    let (mut length, mut shift, mut at) = (0_u64, 0_u32, 0);
    loop {
        let byte = *datum.get(at)?;
        at += 1;
        length |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    // Zigzag: an even number is positive.
    let length = (length % 2 == 0).then(|| usize::try_from(length / 2).ok()).flatten()?;
    let text = datum.get(at..)?;
    (text.len() == length).then(|| std::str::from_utf8(text).ok().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datum_of_one_string_is_read_and_nothing_else_is() {
        assert_eq!(only_string(b"\x06abc"), Some("abc".to_owned()));
        assert_eq!(only_string(b"\x00"), Some(String::new()));
        let long = "x".repeat(100);
        assert_eq!(only_string(format!("\u{48}\u{1}{long}").as_bytes()), None);
        let mut datum = vec![0xc8, 0x01];
        datum.extend(long.as_bytes());
        assert_eq!(only_string(&datum), Some(long));
        for bad in [&b""[..], b"\x06ab", b"\x06abcd", b"\x05abc", b"\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(only_string(bad), None, "{bad:?}");
        }
    }
}
