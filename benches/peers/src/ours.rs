//! Foldstream's own event store, with group commit: each command is decided on the state in the
//! store's cache and appended if its stream is at the version that the writer expects.

use crate::infra::Infra;
use crate::load::Client;
use crate::notes::{self, ACTOR, PadCommand, TakeNotes};
use crate::work::{Figures, Place, Retries, Run, Scene, check_stored, drive};
use anyhow::{Result, ensure};
use foldstream_core::{At, Timestamp, Uuid};
use foldstream_postgres::{EventStore, Execute, Expected, Metadata, Verdict};
use std::sync::Arc;
use std::time::Duration;

struct Writer {
    store: EventStore,
    place: Place,
    text: String,
}

impl Client for Writer {
    async fn once(&mut self) -> Result<u64> {
        let command: PadCommand = TakeNotes { count: 1, text: self.text.clone() }.into();
        let executed = self.store.execute(Execute {
            aggregate: "notes",
            stream_id: self.place.stream.clone(),
            command: Arc::new(command),
            expected: Expected::Exact(self.place.version.unsigned_abs()),
            creates: self.place.version == 0,
            at: At { now: Timestamp::EPOCH, actor: ACTOR.into(), command_id: Uuid::new_v4() },
            idempotency: None,
            metadata: Metadata { actor: Some(ACTOR.into()), ..Metadata::default() },
            deadline: Duration::from_secs(30),
        });
        let verdict = executed.await?.verdict;
        ensure!(matches!(verdict, Verdict::Accepted { .. }), "a pad said no: {verdict:?}");
        self.place.advance(0);
        Ok(1)
    }
}

pub(crate) async fn measure(infra: &Infra, run: &Run, writers: Option<usize>) -> Result<Figures> {
    let url = infra.event_database().await?;
    let store = notes::open(&url, writers).await?;
    let scene = Scene { infra, url: Some(&url), server: None, retries: Retries::default() };
    let writer = |_| Writer { store: store.clone(), place: Place::new(), text: notes::text() };
    let (figures, acknowledged) = drive(&scene, run, writer).await?;
    store.close().await;
    check_stored(&url, "events", acknowledged).await?;
    infra.drop_database(&url).await?;
    Ok(figures)
}
