//! Without a library: a transaction per event into the event table, through a tuned pool.

use crate::infra::Infra;
use crate::load::Client;
use crate::notes::{self, ACTOR, EVENT_TYPE, NoteTaken, PARTITIONS, PadEvent, TOPIC};
use crate::plain::{self, Command, Plain};
use crate::work::{Figures, Place, Retries, Run, Scene, Way, check_stored, drive};
use anyhow::Result;
use foldstream_core::EventSet;

struct Writer {
    plain: Plain,
    place: Place,
    text: String,
}

impl Client for Writer {
    async fn once(&mut self) -> Result<u64> {
        let number = self.place.version + 1;
        let note: PadEvent = NoteTaken { number, text: self.text.clone() }.into();
        let command = Command {
            topic: TOPIC,
            partitions: PARTITIONS,
            stream: &self.place.stream,
            event_type: EVENT_TYPE,
            data: vec![note.encode()?],
            metadata: serde_json::json!({ "actor": ACTOR }),
        };
        self.plain.append(&command, self.place.version).await?;
        self.place.advance(0);
        Ok(1)
    }
}

pub(crate) async fn measure(infra: &Infra, run: &Run) -> Result<Figures> {
    let url = infra.event_database().await?;
    // Makes the head rows.
    notes::open(&url, None).await?.close().await;
    let pool = plain::pool(&url, run.writers, Some(run.setting)).await?;
    let way = match run.way {
        Way::Append => plain::Way::Insert,
        Way::Command => plain::Way::Transaction,
    };
    let scene = Scene { infra, url: Some(&url), server: None, retries: Retries::default() };
    let writer = |_| Writer {
        plain: Plain { pool: pool.clone(), way, shared: false },
        place: Place::new(),
        text: notes::text(),
    };
    let (figures, acknowledged) = drive(&scene, run, writer).await?;
    pool.close().await;
    check_stored(&url, "events", acknowledged).await?;
    infra.drop_database(&url).await?;
    Ok(figures)
}
