//! cqrs-es with postgres-es: tables of its `db/init.sql`, no snapshots (streams are short), no
//! queries. Append is `EventStore::commit`, command is `CqrsFramework::execute_with_metadata`.

use crate::infra::Infra;
use crate::load::Client;
use crate::notes::{self, ACTOR};
use crate::work::{Figures, Note, Place, Retries, Run, Scene, Way, check_stored, drive};
use anyhow::Result;
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{EventStoreAggregateContext, PersistedEventStore};
use cqrs_es::{Aggregate, AggregateError, DomainEvent, EventStore};
use postgres_es::{PostgresCqrs, PostgresEventRepository, postgres_cqrs};
use serde::{Deserialize, Serialize};
use sqlx_08::PgPool;
use std::collections::HashMap;
use std::sync::Arc;

/// From `db/init.sql` of the crate.
const EVENTS: &str = "
    create table events (
        aggregate_type text not null,
        aggregate_id text not null,
        sequence bigint check (sequence >= 0) not null,
        event_type text not null,
        event_version text not null,
        payload json not null,
        metadata json not null,
        primary key (aggregate_type, aggregate_id, sequence))";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum PadEvent {
    NoteTaken(Note),
}

impl DomainEvent for PadEvent {
    fn event_type(&self) -> String {
        "NoteTaken".to_owned()
    }
    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Pad {
    notes: i64,
}

/// A pad never says no.
#[derive(Debug, thiserror::Error)]
enum Never {}

impl Aggregate for Pad {
    const TYPE: &'static str = "pad";
    /// The text of the note to take.
    type Command = String;
    type Event = PadEvent;
    type Error = Never;
    type Services = ();

    async fn handle(&mut self, text: String, _: &(), sink: &EventSink<Self>) -> Result<(), Never> {
        let note = Note { number: self.notes + 1, text };
        sink.write(PadEvent::NoteTaken(note), self).await;
        Ok(())
    }
    fn apply(&mut self, event: PadEvent) {
        let PadEvent::NoteTaken(note) = event;
        self.notes = note.number;
    }
}

struct Writer {
    store: Arc<PersistedEventStore<PostgresEventRepository, Pad>>,
    framework: Arc<PostgresCqrs<Pad>>,
    way: Way,
    place: Place,
    text: String,
}

impl Writer {
    async fn append(&self, metadata: HashMap<String, String>) -> Result<(), AggregateError<Never>> {
        let version = self.place.version;
        let context = EventStoreAggregateContext {
            aggregate_id: self.place.stream.clone(),
            aggregate: Pad { notes: version },
            current_sequence: version.unsigned_abs() as usize,
            current_snapshot: None,
        };
        let note = Note { number: version + 1, text: self.text.clone() };
        self.store.commit(vec![PadEvent::NoteTaken(note)], context, metadata).await.map(|_| ())
    }
}

impl Client for Writer {
    async fn once(&mut self) -> Result<u64> {
        let metadata = HashMap::from([("actor".to_owned(), ACTOR.to_owned())]);
        match self.way {
            Way::Append => self.append(metadata).await?,
            Way::Command => {
                let text = self.text.clone();
                let stream = &self.place.stream;
                self.framework.execute_with_metadata(stream, text, metadata).await?;
            }
        }
        self.place.advance(0);
        Ok(1)
    }
}

/// A pool of that version of sqlx which the peers use, without its ping before each use.
pub(crate) async fn pool(url: &str, connections: u32) -> Result<PgPool> {
    let options = sqlx_08::postgres::PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(std::time::Duration::from_secs(120))
        .test_before_acquire(false);
    Ok(options.connect(url).await?)
}

pub(crate) async fn measure(infra: &Infra, run: &Run) -> Result<Figures> {
    let url = infra.empty_database().await?;
    let pool = pool(&url, run.setting).await?;
    sqlx_08::query(EVENTS).execute(&pool).await?;
    let repository = PostgresEventRepository::new(pool.clone());
    let store = Arc::new(PersistedEventStore::new_event_store(repository));
    let framework = Arc::new(postgres_cqrs(pool.clone(), Vec::new(), ()));
    let scene = Scene { infra, url: Some(&url), server: None, retries: Retries::default() };
    let writer = |_| Writer {
        store: store.clone(),
        framework: framework.clone(),
        way: run.way,
        place: Place::new(),
        text: notes::text(),
    };
    let (figures, acknowledged) = drive(&scene, run, writer).await?;
    pool.close().await;
    check_stored(&url, "events", acknowledged).await?;
    infra.drop_database(&url).await?;
    Ok(figures)
}
