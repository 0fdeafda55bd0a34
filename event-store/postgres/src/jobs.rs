//! A command on its way through a writer.

use crate::several::AcceptedPart;
use crate::{Execute, ExecuteError, Executed, Expected};
use foldstream_core::{AnyCommand, At, StreamRef, Uuid};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Where a command is, as its caller and its writer see it.
#[derive(Default)]
pub(crate) struct Phase(AtomicU8);

const WAITING: u8 = 0;
const SENT: u8 = 1;
const ABANDONED: u8 = 2;

impl Phase {
    fn step(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
    /// The caller waits no longer. False when the command may be with the database already.
    pub(crate) fn abandon(&self) -> bool {
        self.step(WAITING, ABANDONED)
    }
    /// The writer is about to send it. False when the caller waits no longer.
    fn send(&self) -> bool {
        self.step(WAITING, SENT) || self.0.load(Ordering::Acquire) == SENT
    }
    /// It is certain that the database did nothing.
    fn take_back(&self) {
        self.step(SENT, WAITING);
    }
}

/// A command that waits for its verdict.
pub(crate) struct Job {
    /// The place of the aggregate.
    pub(crate) aggregate: usize,
    pub(crate) stream: Arc<StreamRef>,
    pub(crate) partition: i32,
    pub(crate) execute: Execute,
    /// Tells it from a repeat under the same idempotency key.
    pub(crate) request: Uuid,
    pub(crate) deadline: Instant,
    pub(crate) phase: Arc<Phase>,
    /// How often another writer was faster.
    pub(crate) conflicts: u8,
    /// Whether it was sent and nobody knows what became of it.
    pub(crate) unsettled: bool,
    /// Whether its id may have been used before: the append has to look.
    pub(crate) repeats: bool,
    /// The parts of a command over several streams after its first; none as a rule.
    pub(crate) others: Vec<JobPart>,
    pub(crate) reply: oneshot::Sender<Answer>,
    /// Until it is answered its key is in progress.
    pub(crate) key: Option<KeyInUse>,
}

/// One more stream of a command.
pub(crate) struct JobPart {
    /// The place of the aggregate.
    pub(crate) aggregate: usize,
    pub(crate) stream: Arc<StreamRef>,
    pub(crate) partition: i32,
    pub(crate) command: AnyCommand,
    pub(crate) expected: Expected,
    pub(crate) at: At,
}

impl JobPart {
    fn asked(&self) -> Asked<'_> {
        let JobPart { aggregate, stream, partition, command, expected, at } = self;
        let (aggregate, partition, expected) = (*aggregate, *partition, *expected);
        Asked { aggregate, stream, partition, command, expected, at }
    }
}

/// What a job asks of one stream.
pub(crate) struct Asked<'a> {
    pub(crate) aggregate: usize,
    pub(crate) stream: &'a Arc<StreamRef>,
    pub(crate) partition: i32,
    pub(crate) command: &'a AnyCommand,
    pub(crate) expected: Expected,
    pub(crate) at: &'a At,
}

/// What a job is answered.
pub(crate) struct Answer {
    pub(crate) result: Result<Executed, ExecuteError>,
    /// The part that a refusal or an error is about, when it is about one.
    pub(crate) part: Option<usize>,
    /// What became of the streams after the first.
    pub(crate) others: Vec<AcceptedPart>,
}

impl Job {
    /// Whether its stream may be taken for empty without a look: the append has not said otherwise.
    pub(crate) fn probably_begins(&self) -> bool {
        self.execute.creates && self.conflicts == 0 && !self.unsettled
    }
    /// What it asks of its first stream, as a rule the only one.
    pub(crate) fn first(&self) -> Asked<'_> {
        let Execute { command, expected, at, .. } = &self.execute;
        let (stream, expected) = (&self.stream, *expected);
        let (aggregate, partition) = (self.aggregate, self.partition);
        Asked { aggregate, stream, partition, command, expected, at }
    }
    /// What it asks of each of its streams, in order.
    pub(crate) fn streams(&self) -> impl Iterator<Item = Asked<'_>> {
        std::iter::once(self.first()).chain(self.others.iter().map(JobPart::asked))
    }
    pub(crate) fn answer(self, answer: Answer) {
        drop(self.key);
        // A caller that hung up does not hear it; what was done is done.
        let _ = self.reply.send(answer);
    }
    /// It cannot be decided, because of this part of it when there is one to blame; what an earlier
    /// try of unknown outcome did, nobody knows.
    pub(crate) fn fail(self, error: ExecuteError, part: Option<usize>) {
        let error = if self.unsettled { ExecuteError::OutcomeUnknown } else { error };
        self.answer(Answer::error(error, part));
    }
    /// Whether somebody can still use its answer.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        now < self.deadline
    }
    pub(crate) fn send(&self) -> bool {
        self.phase.send()
    }
    /// Back to waiting, unless its outcome is unknown.
    pub(crate) fn take_back(&self) {
        if !self.unsettled {
            self.phase.take_back();
        }
    }
}

impl Answer {
    /// No verdict; because of this part when there is one to blame.
    pub(crate) fn error(error: ExecuteError, part: Option<usize>) -> Self {
        Answer { result: Err(error), part, others: Vec::new() }
    }
}

/// The keys of the commands that run in this process.
pub(crate) type KeysInUse = Arc<Mutex<HashSet<(String, String)>>>;

/// One of them; free again when dropped.
pub(crate) struct KeyInUse {
    keys: KeysInUse,
    key: (String, String),
}

impl KeyInUse {
    /// `None` when it is in use already.
    pub(crate) fn take(keys: &KeysInUse, scope: &str, key: &str) -> Option<Self> {
        let key = (scope.to_owned(), key.to_owned());
        let is_new = keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        is_new.then(|| KeyInUse { keys: keys.clone(), key })
    }
}
impl Drop for KeyInUse {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
