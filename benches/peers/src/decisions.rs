//! disintegrate with disintegrate-postgres: a stream is what a query finds, here all events with
//! the id of a pad. Append is `EventStore::append`, command is `DecisionMaker::make`.
//!
//! It appends in SERIALIZABLE transactions; those that Postgres cannot order are tried again, as
//! its users have to.

use crate::cqrs::pool;
use crate::infra::Infra;
use crate::load::Client;
use crate::notes;
use crate::work::{Figures, Place, Retries, Run, Scene, Way, check_stored, drive};
use anyhow::{Context, Result, bail};
use disintegrate::serde::json::Json;
use disintegrate::{
    Decision, Event, EventStore, NoSnapshot, PersistedEvent, StateMutate, StateQuery, query,
};
use disintegrate_postgres::{Error, PgDecisionMaker, PgEventId, PgEventStore, decision_maker};
use serde::{Deserialize, Serialize};
use sqlx_08::PgPool;

/// The first Postgres that reads the hexadecimal number in the crate's `event_store_begin_epoch`.
const READS_HEXADECIMAL: i32 = 160_000;
/// What that function does, with the number in decimal. The rest of the initialisation, which comes
/// after it, follows.
const MENDED: &str = "
    create or replace function event_store_begin_epoch() returns void language plpgsql as $$
    declare
        id bigint;
        db_id int;
    begin
        select last_value into id from seq_event_event_id;
        select oid into db_id from pg_database where datname = current_database();
        perform pg_try_advisory_xact_lock_shared(db_id, 0);
        perform pg_try_advisory_xact_lock_shared(1, (id & 4294967295)::bit(32)::integer);
        perform pg_try_advisory_xact_lock_shared(2, (id >> 32)::bit(32)::integer);
    end $$;
    alter table event add column if not exists pad_id text;
    create index if not exists idx_event_pad_id on event (pad_id) where pad_id is not null";

/// One append is not tried more often.
const MOST_TRIES: u32 = 1_000;

#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
enum PadEvent {
    NoteTaken {
        #[id]
        pad_id: String,
        number: i64,
        text: String,
    },
}

#[derive(Debug, Clone, Default, StateQuery, Serialize, Deserialize)]
#[state_query(PadEvent)]
struct Pad {
    #[id]
    pad_id: String,
    notes: i64,
}

impl StateMutate for Pad {
    fn mutate(&mut self, event: Self::Event) {
        let PadEvent::NoteTaken { number, .. } = event;
        self.notes = number;
    }
}

/// Takes a note.
struct TakeNote {
    pad_id: String,
    text: String,
}

/// A pad never says no.
#[derive(Debug, thiserror::Error)]
enum Never {}

impl Decision for TakeNote {
    type Event = PadEvent;
    type StateQuery = Pad;
    type Error = Never;

    fn state_query(&self) -> Pad {
        Pad { pad_id: self.pad_id.clone(), notes: 0 }
    }
    fn process(&self, pad: &Pad) -> Result<Vec<PadEvent>, Never> {
        let (pad_id, text) = (self.pad_id.clone(), self.text.clone());
        Ok(vec![PadEvent::NoteTaken { pad_id, number: pad.notes + 1, text }])
    }
}

type Store = PgEventStore<PadEvent, Json<PadEvent>>;
type Stored = Vec<PersistedEvent<PgEventId, PadEvent>>;

struct Writer {
    store: Store,
    decisions: PgDecisionMaker<PadEvent, Json<PadEvent>, NoSnapshot>,
    way: Way,
    place: Place,
    text: String,
    retries: Retries,
}

impl Writer {
    /// Nothing if Postgres could not order it.
    async fn append(&self) -> Result<Option<Stored>> {
        let Place { stream, version, position } = &self.place;
        let (number, text) = (version + 1, self.text.clone());
        let event = PadEvent::NoteTaken { pad_id: stream.clone(), number, text };
        let pad = query!(PadEvent; pad_id == stream);
        match self.store.append(vec![event], pad, *position).await {
            Ok(stored) => Ok(Some(stored)),
            Err(error) if is_conflict(&error) => Ok(None),
            Err(error) => bail!(error),
        }
    }
    async fn decide(&self) -> Result<Option<Stored>> {
        let take = TakeNote { pad_id: self.place.stream.clone(), text: self.text.clone() };
        match self.decisions.make(take).await {
            Ok(stored) => Ok(Some(stored)),
            Err(disintegrate::DecisionError::StateStore(error))
                if error.downcast_ref::<Error>().is_some_and(is_conflict) =>
            {
                Ok(None)
            }
            Err(error) => bail!(error),
        }
    }
}

impl Client for Writer {
    async fn once(&mut self) -> Result<u64> {
        for _ in 0..MOST_TRIES {
            let stored = match self.way {
                Way::Append => self.append().await?,
                Way::Command => self.decide().await?,
            };
            if let Some(stored) = stored {
                let last = stored.last().context("an event was appended")?;
                self.place.advance(last.id());
                return Ok(1);
            }
            self.retries.add();
        }
        bail!("no success after {MOST_TRIES} tries");
    }
}

/// Whether to try again: a failure of serialization is told as a conflict only at COMMIT.
fn is_conflict(error: &Error) -> bool {
    let code = match error {
        Error::Concurrency => return true,
        Error::Database(error) => error.as_database_error().and_then(|error| error.code()),
        Error::Migration(_)
        | Error::Deserialization(_)
        | Error::AppendPermit(_)
        | Error::QueryEventMapping(_) => None,
    };
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

async fn open(pool: &PgPool) -> Result<Store> {
    let version = "select current_setting('server_version_num')::int";
    let version: i32 = sqlx_08::query_scalar(version).fetch_one(pool).await?;
    let opened = Store::try_new(pool.clone(), Json::default()).await;
    if version >= READS_HEXADECIMAL {
        return Ok(opened?);
    }
    // It failed at that function; what comes before it is there.
    sqlx_08::raw_sql(MENDED).execute(pool).await?;
    Ok(Store::new_uninitialized(pool.clone(), Json::default()))
}

pub(crate) async fn measure(infra: &Infra, run: &Run) -> Result<Figures> {
    let url = infra.empty_database().await?;
    let pool = pool(&url, run.setting).await?;
    let store = open(&pool).await?;
    let retries = Retries::default();
    let scene = Scene { infra, url: Some(&url), server: None, retries: retries.clone() };
    let writer = |_| Writer {
        store: store.clone(),
        decisions: decision_maker(store.clone(), NoSnapshot),
        way: run.way,
        place: Place::new(),
        text: notes::text(),
        retries: retries.clone(),
    };
    let (figures, acknowledged) = drive(&scene, run, writer).await?;
    pool.close().await;
    check_stored(&url, "event", acknowledged).await?;
    infra.drop_database(&url).await?;
    Ok(figures)
}
