//! A writer: one task, one connection, one commit after the other. What queues up during a commit
//! is the next batch.

use crate::append::{append, understand};
use crate::batch::{Batch, Rules};
use crate::cache::{Cache, Cached};
use crate::connection::{Class, class, connect, in_time};
use crate::jobs::Job;
use crate::metrics::Metrics;
use crate::reading::{PAGE, Reader, Wanted, evolve, read_wanted};
use crate::settle::settle;
use crate::{ExecuteError, Limits, StoreError, Timings};
use foldstream_core::{AnyState, StreamRef, Uuid};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

/// A batch is made of no more commands.
const MOST_COMMANDS: usize = 1_000;
/// After a failure the next try waits so long, twice as long each time, up to the second one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What a writer shares with the store and the other writers.
pub(crate) struct Shared {
    pub(crate) store_id: Uuid,
    pub(crate) connect: PgConnectOptions,
    pub(crate) timings: Timings,
    pub(crate) limits: Limits,
    pub(crate) reader: Arc<Reader>,
    pub(crate) metrics: Metrics,
    /// Counts appends; the relay of this process waits for it to change.
    pub(crate) appended: watch::Sender<u64>,
}

pub(crate) struct Writer {
    common: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
    /// Taken from the queue, in order; those to be decided again are at the front.
    pending: VecDeque<Job>,
    /// How many of the first pending ones to take at once: parts of a batch that failed.
    parts: Vec<usize>,
    cache: Cache,
    connection: Option<PgConnection>,
    pause: Duration,
}

/// What came of one round.
enum Round {
    /// These come first in the next one.
    Again(Vec<Job>),
    /// These too, but one half after the other.
    Halves(Vec<Job>),
    /// These too, after a pause: the database is not there, or busy.
    Later(Vec<Job>),
}

impl Writer {
    pub(crate) fn new(common: Arc<Shared>, queue: mpsc::Receiver<Job>, writers: usize) -> Self {
        let share = |most: usize| most / writers.max(1);
        let limits = &common.limits;
        let shared = common.clone();
        let weigh = move |stream: &StreamRef, state: &AnyState| {
            let served = &shared.reader.served;
            let place = served.of_topic(&stream.topic);
            place.map_or(0, |place| served.aggregates[place].aggregate.weight(state))
        };
        let (states, bytes) = (share(limits.cached_states), share(limits.cached_bytes));
        let cache = Cache::new(states, bytes, Box::new(weigh));
        let (pending, parts) = (VecDeque::new(), Vec::new());
        Writer { common, queue, pending, parts, cache, connection: None, pause: PAUSE.0 }
    }

    /// Appends until nobody can send commands any more.
    pub(crate) async fn run(mut self) {
        loop {
            if self.pending.is_empty() {
                self.parts.clear();
                match self.queue.recv().await {
                    Some(job) => self.pending.push_back(job),
                    None => return,
                }
            }
            while self.pending.len() < MOST_COMMANDS {
                match self.queue.try_recv() {
                    Ok(job) => self.pending.push_back(job),
                    Err(_) => break,
                }
            }
            let part = self.parts.pop();
            let take = part.unwrap_or(MOST_COMMANDS).min(self.pending.len());
            let jobs = self.pending.drain(..take).collect();
            let round = self.round(jobs).await;
            self.after(round, part.is_some()).await;
        }
    }

    async fn after(&mut self, round: Round, was_part: bool) {
        let (jobs, is_later) = match round {
            Round::Again(jobs) => (jobs, false),
            Round::Later(jobs) => (jobs, true),
            Round::Halves(jobs) => {
                let half = jobs.len().div_ceil(2);
                self.parts.push(jobs.len() - half);
                self.parts.push(half);
                self.put_back(jobs);
                return;
            }
        };
        if was_part && !jobs.is_empty() {
            self.parts.push(jobs.len());
        }
        self.put_back(jobs);
        if is_later {
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE.1);
        } else {
            self.pause = PAUSE.0;
        }
    }
    fn put_back(&mut self, jobs: Vec<Job>) {
        for job in jobs.into_iter().rev() {
            job.take_back();
            self.pending.push_front(job);
        }
    }

    /// Loads, decides, appends, answers.
    async fn round(&mut self, mut jobs: Vec<Job>) -> Round {
        let now = Instant::now();
        // Their callers have given themselves the answer.
        jobs.retain(|job| job.is_wanted(now));
        if jobs.is_empty() {
            return Round::Again(jobs);
        }
        let states = match self.states(&jobs).await {
            Ok(states) => states,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot read streams");
                self.connection = None;
                return Round::Later(jobs);
            }
        };
        let (batch, rest) = self.decide(jobs, &states);
        if batch.commands.is_empty() {
            return Round::Again(rest);
        }
        self.common.metrics.batch.observe(batch.commands.len() as f64);
        match self.append(batch).await {
            Round::Again(mut jobs) => {
                jobs.extend(rest);
                Round::Again(jobs)
            }
            Round::Halves(jobs) => {
                // Not part of what failed: they come after it, with the next ones.
                self.put_back(rest);
                Round::Halves(jobs)
            }
            Round::Later(mut jobs) => {
                jobs.extend(rest);
                Round::Later(jobs)
            }
        }
    }

    fn decide(&self, jobs: Vec<Job>, states: &States) -> (Batch, Vec<Job>) {
        let common = &*self.common;
        let (served, schemas) = (&common.reader.served, &common.reader.schemas);
        let rules = Rules { served, schemas, limits: &common.limits };
        let mut batch = Batch::default();
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            let base = match states.get(&job.stream) {
                Some(Ok(cached)) => cached.clone(),
                Some(Err(broken)) => {
                    job.fail(ExecuteError::Broken(broken.clone()));
                    continue;
                }
                None => continue,
            };
            if !job.send() {
                continue; // its caller waits no longer
            }
            if let Some(job) = batch.offer(job, base, &rules) {
                job.take_back();
                return (batch, std::iter::once(job).chain(jobs).collect());
            }
        }
        (batch, Vec::new())
    }

    async fn append(&mut self, batch: Batch) -> Round {
        let Some(mut connection) = self.connection.take() else {
            return Round::Later(batch.into_jobs());
        };
        let keep = self.common.timings.idempotency;
        let call = append(&mut connection, &batch, keep);
        let rows = match timeout(self.common.timings.call, call).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                let class = class(&error);
                // A broken connection is dropped.
                self.connection = (class != Class::Broken).then_some(connection);
                tracing::warn!(?class, error = %error, "an append failed");
                return failed(batch.into_jobs(), class, &error);
            }
            Err(_) => {
                tracing::warn!("an append took too long; its connection is dropped");
                return unknown(batch.into_jobs(), true);
            }
        };
        self.connection = Some(connection);
        let reply = match understand(&batch, rows) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!(%error, "the answer to an append is not understood");
                for job in batch.into_jobs() {
                    job.answer(Err(ExecuteError::OutcomeUnknown));
                }
                return Round::Again(Vec::new());
            }
        };
        self.common.metrics.conflicts.inc_by(reply.stale.len() as u64);
        if !batch.events.is_empty() {
            self.common.appended.send_modify(|count| *count = count.wrapping_add(1));
        }
        Round::Again(settle(batch, &reply, self.common.store_id, &mut self.cache))
    }
}

/// After an error of the database.
fn failed(mut jobs: Vec<Job>, class: Class, error: &sqlx::Error) -> Round {
    match class {
        Class::Broken => unknown(jobs, false),
        Class::Busy => Round::Later(jobs),
        Class::Slow if jobs.len() == 1 => Round::Later(jobs),
        Class::Slow => Round::Halves(jobs),
        Class::Data if jobs.len() == 1 => {
            for job in jobs.drain(..) {
                tracing::error!(stream = ?job.stream, %error, "the database refuses a command");
                let detail = "the database refuses the events of this command";
                job.fail(ExecuteError::Broken(detail.into()));
            }
            Round::Again(jobs)
        }
        Class::Data => Round::Halves(jobs),
    }
}

/// Nobody knows whether the batch was committed. The same commands with the same ids again settle
/// it: the locks make them wait for a commit under way, and ids that were applied are recognised.
fn unknown(mut jobs: Vec<Job>, in_halves: bool) -> Round {
    for job in &mut jobs {
        job.unsettled = true;
    }
    if in_halves && jobs.len() > 1 { Round::Halves(jobs) } else { Round::Later(jobs) }
}

/// The states that the commands of a round build on; those that cannot be read say why not.
type States = HashMap<Arc<StreamRef>, Result<Cached, String>>;

impl Writer {
    async fn connected(&mut self) -> Result<&mut PgConnection, StoreError> {
        if self.connection.is_none() {
            let options = &self.common.connect;
            self.connection = Some(connect(options, self.common.timings.connect).await?);
        }
        self.connection.as_mut().ok_or(StoreError::Unavailable(None))
    }

    async fn states(&mut self, jobs: &[Job]) -> Result<States, StoreError> {
        // Also when nothing is to be read: what is decided must be sent.
        self.connected().await?;
        let mut states = States::new();
        let mut wanted = Vec::new();
        for job in jobs {
            if states.contains_key(&job.stream) {
                continue;
            }
            let known = self.cache.get(&job.stream).map(|cached| cached.clone());
            let aggregate = &self.common.reader.served.aggregates[job.aggregate].aggregate;
            let cached = known.unwrap_or_else(|| Cached {
                version: 0,
                position: 0,
                state: aggregate.initial(),
                bytes: 0,
                stale: true,
            });
            if cached.stale {
                wanted.push((
                    job.aggregate,
                    Wanted { stream: job.stream.clone(), after: cached.version },
                ));
            }
            states.insert(job.stream.clone(), Ok(cached));
        }
        self.read(wanted, &mut states).await?;
        Ok(states)
    }

    /// Reads on from where each state stands, until all are at their ends.
    async fn read(
        &mut self,
        mut wanted: Vec<(usize, Wanted)>,
        states: &mut States,
    ) -> Result<(), StoreError> {
        while !wanted.is_empty() {
            let (aggregates, streams): (Vec<usize>, Vec<Wanted>) = wanted.into_iter().unzip();
            let within = self.common.timings.call;
            let connection = self.connected().await?;
            let rows = in_time(within, read_wanted(connection, &streams)).await?;
            let mut counts = vec![0; streams.len()];
            for (place, row) in rows {
                let Some(wanted) = streams.get(place) else { continue };
                counts[place] += 1;
                let Some(state) = states.get_mut(&wanted.stream) else { continue };
                let Ok(cached) = state else { continue };
                let (bytes, aggregates) = (row.data.len(), &aggregates);
                let reader = &self.common.reader;
                let aggregate = &reader.served.aggregates[aggregates[place]].aggregate;
                let record = match reader.record(row).await {
                    Err(error @ StoreError::Unavailable(_)) => return Err(error),
                    other => other,
                };
                let evolved = record.and_then(|record| {
                    let next = evolve(aggregate.as_ref(), cached.state.clone(), &record)?;
                    Ok((record, next))
                });
                match evolved {
                    Ok((record, next)) => {
                        cached.state = next;
                        cached.version = record.version;
                        cached.position = record.position;
                        cached.bytes += bytes;
                    }
                    Err(error) => *state = Err(chain(&error)),
                }
            }
            wanted = self.not_at_their_ends(aggregates, streams, &counts, states);
        }
        Ok(())
    }

    /// Those of which a whole page came have more; the others go to the cache.
    fn not_at_their_ends(
        &mut self,
        aggregates: Vec<usize>,
        streams: Vec<Wanted>,
        counts: &[i64],
        states: &mut States,
    ) -> Vec<(usize, Wanted)> {
        let mut more = Vec::new();
        for ((aggregate, Wanted { stream, .. }), count) in
            aggregates.into_iter().zip(streams).zip(counts)
        {
            let Some(Ok(cached)) = states.get_mut(&stream) else { continue };
            if *count >= PAGE {
                more.push((aggregate, Wanted { stream, after: cached.version }));
            } else {
                cached.stale = false;
                self.cache.put(stream, cached.clone());
            }
        }
        more
    }
}

/// The error with its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
