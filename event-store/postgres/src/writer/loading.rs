//! Reading the states that a round builds on: from the cache, else from the database.

use super::Writer;
use crate::StoreError;
use crate::cache::Cached;
use crate::connection::{TRUSTED, connect, in_time};
use crate::jobs::Job;
use crate::reading::{Until, Wanted, read_pages};
use foldstream_core::StreamRef;
use sqlx::PgConnection;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// The states that the commands of a round build on; those that cannot be read say why not.
pub(super) type States = HashMap<Arc<StreamRef>, Result<Cached, String>>;

impl Writer {
    pub(super) async fn connected(&mut self) -> Result<&mut PgConnection, StoreError> {
        if self.connection.is_none() {
            let options = &self.common.connect;
            self.connection = Some(connect(options, self.common.timings.connect).await?);
        }
        self.connection.as_mut().ok_or(StoreError::Unavailable(None))
    }

    pub(super) async fn states(&mut self, jobs: &[Job]) -> Result<States, StoreError> {
        // Also when nothing is to be read: what is decided must be sent.
        self.connected().await?;
        let mut states = States::new();
        let mut wanted = Vec::new();
        for (job, asked) in jobs.iter().flat_map(|job| job.streams().map(move |of| (job, of))) {
            if states.contains_key(asked.stream) {
                continue;
            }
            let known = self.cache.get(asked.stream).map(|cached| cached.clone());
            let served = &self.common.reader.served.aggregates[asked.aggregate];
            let cached = known.unwrap_or_else(|| Cached {
                stale: !job.probably_begins(),
                ..Cached::nothing(served.aggregate.initial())
            });
            if cached.stale {
                wanted.push(Wanted::after(asked.aggregate, asked.stream.clone(), &cached, served));
            }
            states.insert(asked.stream.clone(), Ok(cached));
        }
        if wanted.is_empty() {
            self.probe().await?;
        }
        self.read(wanted, &mut states).await?;
        Ok(states)
    }

    /// A connection that was idle may be dead. An append that finds that out leaves an unknown
    /// outcome behind, a question does not.
    async fn probe(&mut self) -> Result<(), StoreError> {
        if self.answered.elapsed() >= TRUSTED {
            let within = self.common.timings.call;
            let connection = self.connected().await?;
            in_time(within, sqlx::query("select 1").execute(connection)).await?;
            self.answered = Instant::now();
        }
        Ok(())
    }

    /// Reads on from where each state stands, until all are at their ends.
    async fn read(
        &mut self,
        mut wanted: Vec<Wanted>,
        states: &mut States,
    ) -> Result<(), StoreError> {
        while !wanted.is_empty() {
            let within = self.common.timings.call;
            let connection = self.connected().await?;
            let call = read_pages(connection, &wanted, Until::Latest);
            let pages = in_time(within, call).await?;
            let mut more = Vec::new();
            for (wanted, page) in wanted.into_iter().zip(pages) {
                let Some(state) = states.get_mut(&wanted.stream) else { continue };
                let Ok(cached) = state else { continue };
                match self.common.reader.fold(wanted.aggregate, cached, page).await {
                    // The others go to the cache.
                    Ok(true) => more.push(wanted.on(cached)),
                    Ok(false) => {
                        cached.stale = false;
                        self.cache.put(wanted.stream, cached.clone());
                    }
                    Err(error @ StoreError::Unavailable(_)) => return Err(error),
                    Err(error) => *state = Err(chain(&error)),
                }
            }
            wanted = more;
        }
        Ok(())
    }
}

/// The error with its causes, for the log.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
