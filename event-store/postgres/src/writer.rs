//! A writer: one task, one connection, one commit after the other. What queues up during a commit
//! is the next batch.

use crate::append::{append, understand};
use crate::batch::{Batch, Rules};
use crate::cache::{Cache, Cached};
use crate::connection::{Class, class};
use crate::jobs::{Answer, Asked, Job};
use crate::metrics::Metrics;
use crate::planted::{Fault, answer_before_commit, look_up, planted};
use crate::reading::Reader;
use crate::settle::settle;
use crate::snapshots::Keeper;
use crate::{ExecuteError, Limits, Timings};
use foldstream_core::{AnyState, StreamRef, Uuid};
use loading::{States, chain};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

mod loading;

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
    /// Takes states to be kept as snapshots.
    pub(crate) keeper: Keeper,
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
    /// When the connection answered last.
    answered: Instant,
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
        Writer {
            common,
            queue,
            pending,
            parts,
            cache,
            connection: None,
            answered: Instant::now(),
            pause: PAUSE.0,
        }
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
            let base = match base(states, &job.stream) {
                Ok(base) => base,
                Err(broken) => {
                    job.fail(broken, None);
                    continue;
                }
            };
            if !job.send() {
                continue; // its caller waits no longer
            }
            let come_back = if job.others.is_empty() {
                batch.offer(job, base, &rules)
            } else {
                offer_all(&mut batch, job, states, &rules)
            };
            if let Some(job) = come_back {
                job.take_back();
                return (batch, std::iter::once(job).chain(jobs).collect());
            }
        }
        (batch, Vec::new())
    }

    async fn append(&mut self, mut batch: Batch) -> Round {
        let Some(mut connection) = self.connection.take() else {
            return Round::Later(batch.into_jobs());
        };
        if planted(Fault::AnswerBeforeCommit) {
            answer_before_commit(&mut batch);
        }
        let keep = self.common.timings.idempotency;
        let call = append(&mut connection, &batch, keep);
        let rows = match timeout(self.common.timings.call, call).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                let class = class(&error);
                // A broken connection is dropped.
                self.connection = (class != Class::Broken).then_some(connection);
                tracing::warn!(?class, error = %error, "an append failed");
                if class == Class::Broken && planted(Fault::LookUp) {
                    return Round::Again(look_up(&self.common, batch.into_jobs()).await);
                }
                return failed(batch.into_jobs(), class, &error);
            }
            Err(_) => {
                tracing::warn!("an append took too long; its connection is dropped");
                return unknown(batch.into_jobs(), true);
            }
        };
        self.connection = Some(connection);
        self.answered = Instant::now();
        let reply = match understand(&batch, rows) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!(%error, "the answer to an append is not understood");
                for job in batch.into_jobs() {
                    job.answer(Answer::error(ExecuteError::OutcomeUnknown, None));
                }
                return Round::Again(Vec::new());
            }
        };
        self.common.metrics.conflicts.inc_by(reply.stale.len() as u64);
        if !batch.events.is_empty() {
            self.common.appended.send_modify(|count| *count = count.wrapping_add(1));
        }
        Round::Again(settle(batch, &reply, &self.common, &mut self.cache))
    }
}

/// What a stream's decisions build on.
fn base(states: &States, stream: &Arc<StreamRef>) -> Result<Cached, ExecuteError> {
    match states.get(stream) {
        Some(Ok(cached)) => Ok(cached.clone()),
        Some(Err(broken)) => Err(ExecuteError::Broken(broken.clone())),
        None => Err(ExecuteError::Broken("a stream that was not read".into())),
    }
}

/// As [`Batch::offer`], for a command over several streams.
fn offer_all(batch: &mut Batch, job: Job, states: &States, rules: &Rules<'_>) -> Option<Job> {
    let read = |(part, asked): (usize, Asked<'_>)| {
        base(states, asked.stream).map_err(|broken| (part, broken))
    };
    let bases: Result<Vec<Cached>, _> = job.streams().enumerate().map(read).collect();
    match bases {
        Ok(bases) => batch.offer_all(job, bases, rules),
        Err((part, broken)) => {
            job.take_back();
            job.fail(broken, Some(part));
            None
        }
    }
}

/// After an error of the database.
fn failed(mut jobs: Vec<Job>, class: Class, error: &sqlx::Error) -> Round {
    match class {
        Class::Broken => unknown(jobs, false),
        Class::Busy => Round::Later(jobs),
        Class::Slow if jobs.len() == 1 => Round::Later(jobs),
        Class::Slow => Round::Halves(jobs),
        Class::Repeated if !jobs.iter().all(|job| job.repeats) => {
            for job in &mut jobs {
                job.repeats = true;
            }
            Round::Again(jobs)
        }
        Class::Data | Class::Repeated if jobs.len() == 1 => {
            for job in jobs.drain(..) {
                tracing::error!(stream = ?job.stream, %error, "the database refuses a command");
                let detail = "the database refuses the events of this command";
                job.fail(ExecuteError::Broken(detail.into()), None);
            }
            Round::Again(jobs)
        }
        Class::Data | Class::Repeated => Round::Halves(jobs),
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
