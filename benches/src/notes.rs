//! A small aggregate: a pad of notes, each an event of about 300 bytes.

use anyhow::{Result, ensure};
use apache_avro::AvroSchema;
use foldstream_core::{
    Aggregate, At, Decision, Event, Events, Refusal, Rejection, Timestamp, Uuid, aggregate,
    commands, events, stream_id,
};
use foldstream_postgres::{EventStore, Execute, Expected, Metadata, StoreOptions, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The application of the benchmarks; its one topic is `bench.notes`.
pub(crate) const APP: &str = "bench";
pub(crate) const TOPIC: &str = "bench.notes";
pub(crate) const EVENT_TYPE: &str = "bench.notes.NoteTaken";
pub(crate) const PARTITIONS: i32 = 8;
/// What is stored with each event.
pub(crate) const ACTOR: &str = "bench";

stream_id! {
    /// A pad of notes.
    pub(crate) struct PadId, check = |_| Ok(());
}

/// A note was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "bench.notes")]
pub(crate) struct NoteTaken {
    /// The how manieth of its pad.
    pub(crate) number: i64,
    /// What it says.
    pub(crate) text: String,
}

events! {
    /// What happened to a pad.
    pub(crate) enum PadEvent on "notes" of PadId { NoteTaken }
}

/// Takes so many notes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TakeNotes {
    /// How many events.
    pub(crate) count: i64,
    /// What each of them says.
    pub(crate) text: String,
}

commands! {
    /// What a pad can be asked.
    pub(crate) enum PadCommand for "notes" of PadId as "pad_id" { TakeNotes }
}

/// A pad knows how many notes it has.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Pad {
    notes: i64,
}

/// A pad never says no.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PadRejection {}

impl Rejection for PadRejection {
    fn refusal(&self) -> Refusal {
        match *self {}
    }
}

impl Aggregate for Pad {
    type Command = PadCommand;
    type Event = PadEvent;
    type Rejection = PadRejection;

    fn decide(&self, command: PadCommand, _: &At) -> Decision<Self> {
        let PadCommand::TakeNotes(TakeNotes { count, text }) = command;
        let note = |n| NoteTaken { number: self.notes + n, text: text.clone() }.into();
        Ok(Events((1..=count).map(note).collect()))
    }
    fn evolve(self, event: &PadEvent) -> Self {
        match event {
            PadEvent::NoteTaken(taken) => Pad { notes: taken.number },
        }
    }
}

/// A text that makes an event of about 300 bytes.
pub(crate) fn text() -> String {
    let words = "goods left the warehouse in the morning and came back by noon, count again; ";
    words.chars().cycle().take(290).collect()
}

/// A store of pads. No relay drains it, so its backlog is not bounded.
pub(crate) async fn open(url: &str, writers: Option<usize>) -> Result<EventStore> {
    let mut options = StoreOptions::new(url, APP, "notes");
    options.partitions = PARTITIONS;
    options.writers = writers.unwrap_or(options.writers);
    options.limits.backlog_events = u64::MAX;
    let metrics = prometheus::Registry::new();
    let store = EventStore::open(options, vec![aggregate::<Pad>()], &metrics).await?;
    learn(&store).await?;
    Ok(store)
}

/// Gives schemas ids as a registry would: its cost is none of an append's.
pub(crate) async fn learn(store: &EventStore) -> Result<()> {
    let missing = store.missing_schemas();
    let ids: Vec<_> = (1..)
        .zip(&missing)
        .map(|(id, one)| (one.schema.full_name.clone(), id, one.schema.json.to_string()))
        .collect();
    Ok(store.learn_schemas(&ids).await?)
}

/// Asks a pad to take notes; an error unless it does.
pub(crate) async fn take(store: &EventStore, pad: &str, count: i64, text: &str) -> Result<()> {
    let command: PadCommand = TakeNotes { count, text: text.to_owned() }.into();
    let executed = store.execute(Execute {
        aggregate: "notes",
        stream_id: pad.to_owned(),
        command: Arc::new(command),
        expected: Expected::Any,
        creates: false,
        at: At { now: Timestamp::EPOCH, actor: ACTOR.into(), command_id: Uuid::new_v4() },
        idempotency: None,
        metadata: Metadata { actor: Some(ACTOR.into()), ..Metadata::default() },
        deadline: Duration::from_secs(30),
    });
    let verdict = executed.await?.verdict;
    ensure!(matches!(verdict, Verdict::Accepted { .. }), "a pad said no: {verdict:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldstream_core::EventSet;

    #[test]
    fn an_event_has_about_300_bytes() {
        let note: PadEvent = NoteTaken { number: 1, text: text() }.into();
        assert!((280..=320).contains(&note.encode().unwrap().len()));
        assert_eq!(PadEvent::schemas()[0].full_name, EVENT_TYPE);
    }
}
