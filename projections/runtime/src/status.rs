use crate::ProjectionError;
use foldstream_tables::TableError;
use serde::Serialize;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Postgres, Row};
use std::time::Duration;

/// Asking takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One build of a read model, for `projections ls` and `projections show`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProjectionStatus {
    /// The read model.
    pub name: String,
    /// The version of its declaration.
    pub version: i32,
    /// Its build.
    pub build: i32,
    /// `live`, `building`, `replaced`, `gap` or `failed`.
    pub state: String,
    /// How many events are folded: the sum of the positions.
    pub position: i64,
    /// Events not yet folded; none when that is not known.
    pub lag_events: Option<i64>,
    /// Age in seconds of the oldest event not yet folded, at most; none when that is not known.
    pub lag_seconds: Option<f64>,
    /// When the last event folded was recorded.
    pub last_event_at: Option<DateTime<Utc>>,
    /// When events were last folded.
    pub updated_at: Option<DateTime<Utc>>,
    /// Why it stands still, when it does.
    pub last_error: Option<String>,
    /// Its partitions, by topic and number.
    pub partitions: Vec<PartitionStatus>,
}

/// One partition of a build.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The position of the last event folded.
    pub position: i64,
    /// `running`, `gap` or `failed`.
    pub state: String,
    /// Why, when it is not running.
    pub detail: Option<String>,
    /// The position of the last event of the topic-partition; none when that is not known.
    pub head: Option<i64>,
    /// Events not yet folded; none when that is not known.
    pub lag_events: Option<i64>,
    /// When events of it were last folded.
    pub updated_at: Option<DateTime<Utc>>,
}

/// How every build of every read model is, by name and build.
///
/// # Errors
/// When the read database is away, or does not answer within 5 seconds.
pub async fn status(pool: &PgPool) -> Result<Vec<ProjectionStatus>, ProjectionError> {
    let asked = sqlx::query(
        "select f.read_model, f.version, f.build, f.state, f.position, f.lag_events,
           f.lag_seconds, f.last_event_at, f.updated_at,
           (select c.topic || '/' || c.partition || ': ' || c.detail from meta.checkpoints c
            where c.read_model = f.read_model and c.build = f.build and c.state <> 'running'
            order by c.state, c.state_since limit 1) as last_error,
           coalesce((select json_agg(json_build_object('topic', c.topic, 'partition', c.partition,
               'position', c.position, 'state', c.state, 'detail', c.detail, 'head', p.head,
               'lag_events', p.lag_events, 'updated_at', c.updated_at)
               order by c.topic, c.partition)
             from meta.checkpoints c
             left join meta.partitions p on p.read_model = c.read_model and p.build = c.build
               and p.topic = c.topic and p.partition = c.partition
             where c.read_model = f.read_model and c.build = f.build), '[]') as partitions
         from meta.freshness f order by f.read_model, f.build",
    );
    let rows = match tokio::time::timeout(PATIENCE, asked.fetch_all(pool)).await {
        Ok(rows) => rows.map_err(TableError::from)?,
        Err(_) => return Err(TableError::Deadline(PATIENCE).into()),
    };
    let rows: Result<_, sqlx::Error> = rows.iter().map(read).collect();
    Ok(rows.map_err(TableError::from)?)
}

fn read(row: &PgRow) -> Result<ProjectionStatus, sqlx::Error> {
    Ok(ProjectionStatus {
        name: get(row, "read_model")?,
        version: get(row, "version")?,
        build: get(row, "build")?,
        state: get(row, "state")?,
        position: get(row, "position")?,
        lag_events: get(row, "lag_events")?,
        lag_seconds: get(row, "lag_seconds")?,
        last_event_at: get(row, "last_event_at")?,
        updated_at: get(row, "updated_at")?,
        last_error: get(row, "last_error")?,
        partitions: get::<Json<_>>(row, "partitions")?.0,
    })
}

fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, sqlx::Error>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(column)
}
