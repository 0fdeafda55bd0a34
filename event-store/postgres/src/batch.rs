//! Deciding the commands of a batch, each on the state the one before leaves. Pure: no IO.

use crate::cache::Cached;
use crate::jobs::{Asked, Job};
use crate::schemas::Schemas;
use crate::served::Served;
use crate::{EventRef, ExecuteError, Expected, Limits, Verdict};
use foldstream_core::{AnyState, NewEvent, StreamRef, Undecided, Uuid};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub(crate) use several::Others;

mod several;

/// A batch holds no more events.
const MOST_EVENTS: usize = 1_000;
/// A batch holds no more data.
const MOST_BYTES: usize = 1 << 20;

/// What is decided, until the database confirms it.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) events: Vec<Event>,
    places: HashMap<Arc<StreamRef>, usize>,
    bytes: usize,
}

/// A stream as the commands of the batch leave it.
pub(crate) struct Stream {
    pub(crate) key: Arc<StreamRef>,
    pub(crate) partition: i32,
    /// What the first decision rests on.
    pub(crate) base: Cached,
    pub(crate) version: u64,
    pub(crate) state: AnyState,
    pub(crate) bytes: usize,
}

/// A command with what it led to.
pub(crate) struct Command {
    pub(crate) job: Job,
    pub(crate) stream: usize,
    pub(crate) outcome: Outcome,
    pub(crate) has_events: bool,
    /// The version it rests on, or made.
    pub(crate) version: u64,
    /// Its other streams; none as a rule.
    pub(crate) others: Others,
}

/// What is answered once the batch confirms the version it rests on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Decided; kept under the command's key.
    Verdict(Verdict),
    /// Not decided, as the version is not the one it wanted.
    Unmet(ExecuteError),
}

/// An event to insert.
pub(crate) struct Event {
    /// The place of its command in the batch.
    pub(crate) command: usize,
    /// The place of its stream in the batch.
    pub(crate) stream: usize,
    pub(crate) ordinal: i32,
    pub(crate) version: u64,
    pub(crate) id: Uuid,
    pub(crate) event_type: &'static str,
    pub(crate) schema_id: u32,
    pub(crate) datum: Vec<u8>,
}

/// What decisions need to know.
pub(crate) struct Rules<'a> {
    pub(crate) served: &'a Served,
    pub(crate) schemas: &'a Schemas,
    pub(crate) limits: &'a Limits,
}

impl Batch {
    /// Decides a command and takes it in, or answers it when it cannot be decided; `base` is its
    /// stream as the database has it. A command that does not fit in any more comes back: it
    /// opens the next batch.
    pub(crate) fn offer(&mut self, job: Job, base: Cached, rules: &Rules<'_>) -> Option<Job> {
        let stream = self.stream(&job.stream, job.partition, base);
        let version = self.streams[stream].version;
        let outcome = match unmet(job.execute.expected, version) {
            Some(unmet) => Ok((Outcome::Unmet(unmet), None)),
            None => decide(&job.first(), &self.streams[stream], rules),
        };
        let (outcome, decided) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                job.take_back();
                job.fail(error, None);
                return None;
            }
        };
        let Some(decided) = decided else {
            let (has_events, others) = (false, Others::default());
            self.commands.push(Command { job, stream, outcome, has_events, version, others });
            return None;
        };
        if !self.fits(decided.events.len(), decided.bytes) {
            return Some(job);
        }
        self.take(job, stream, outcome, decided);
        None
    }
    fn stream(&mut self, key: &Arc<StreamRef>, partition: i32, base: Cached) -> usize {
        if let Some(place) = self.places.get(key) {
            return *place;
        }
        let place = self.streams.len();
        self.places.insert(key.clone(), place);
        self.streams.push(Stream {
            key: key.clone(),
            partition,
            version: base.version,
            state: base.state.clone(),
            bytes: base.bytes,
            base,
        });
        place
    }
    /// Anything fits into an empty batch: a large command goes alone.
    fn fits(&self, events: usize, bytes: usize) -> bool {
        self.events.is_empty()
            || (self.events.len() + events <= MOST_EVENTS && self.bytes + bytes <= MOST_BYTES)
    }
    fn take(&mut self, job: Job, stream: usize, outcome: Outcome, decided: Decision) {
        let command = self.commands.len();
        let version = self.evolved(stream, &decided);
        let of_batch = |event| Event { command, stream, ..event };
        self.events.extend(decided.events.into_iter().map(of_batch));
        let (has_events, others) = (true, Others::default());
        self.commands.push(Command { job, stream, outcome, has_events, version, others });
    }
    /// Brings a stream to where a decision takes it; answers its version there.
    fn evolved(&mut self, stream: usize, decided: &Decision) -> u64 {
        let of = &mut self.streams[stream];
        of.version += decided.events.len() as u64;
        of.state = decided.state.clone();
        of.bytes += decided.bytes;
        self.bytes += decided.bytes;
        of.version
    }
    /// The commands in the order they came.
    pub(crate) fn into_jobs(self) -> Vec<Job> {
        self.commands.into_iter().map(|command| command.job).collect()
    }
}

fn unmet(expected: Expected, current: u64) -> Option<ExecuteError> {
    match expected {
        Expected::Any => None,
        Expected::NoStream if current == 0 => None,
        Expected::NoStream => Some(ExecuteError::Exists { current }),
        Expected::Exact(version) if version == current => None,
        Expected::Exact(_) => Some(ExecuteError::VersionMismatch { current }),
    }
}

struct Decision {
    events: Vec<Event>,
    state: AnyState,
    bytes: usize,
}

fn decide(
    asked: &Asked<'_>,
    stream: &Stream,
    rules: &Rules<'_>,
) -> Result<(Outcome, Option<Decision>), ExecuteError> {
    let aggregate = rules.served.aggregates[asked.aggregate].aggregate.as_ref();
    let (command, at) = (asked.command, asked.at);
    let decided = catch_unwind(AssertUnwindSafe(|| aggregate.decide(&stream.state, command, at)));
    let decided = match decided {
        Ok(Ok(decided)) => decided,
        Ok(Err(Undecided::Refused(refused))) => {
            return Ok((Outcome::Verdict(Verdict::Refused(refused)), None));
        }
        Ok(Err(broken @ (Undecided::Broken(_) | Undecided::Foreign(_)))) => {
            return Err(ExecuteError::Broken(broken.to_string()));
        }
        Err(_) => {
            let name = aggregate.name();
            return Err(ExecuteError::Broken(format!("decide of {name} panicked")));
        }
    };
    let bytes = size(&decided.events, rules.limits)?;
    let mut events = Vec::with_capacity(decided.events.len());
    for (n, new) in decided.events.into_iter().enumerate() {
        let schema = &aggregate.events()[new.schema];
        let schema_id = rules.schemas.own(asked.aggregate, new.schema);
        events.push(Event {
            command: 0,
            stream: 0,
            ordinal: n as i32,
            version: stream.version + 1 + n as u64,
            id: event_id(at.command_id, n),
            event_type: &schema.full_name,
            schema_id: schema_id.ok_or_else(|| ExecuteError::NoSchema(schema.full_name.clone()))?,
            datum: new.datum,
        });
    }
    let refs = events.iter().map(|event| EventRef {
        id: event.id,
        name: short_name(event.event_type).to_owned(),
        version: event.version,
    });
    let version = stream.version + events.len() as u64;
    let verdict = Verdict::Accepted { version, events: refs.collect() };
    let decision = (!events.is_empty()).then_some(Decision { events, state: decided.state, bytes });
    Ok((Outcome::Verdict(verdict), decision))
}

fn size(events: &[NewEvent], limits: &Limits) -> Result<usize, ExecuteError> {
    let bytes = events.iter().map(|event| event.datum.len()).sum();
    let too_large = events.iter().any(|event| event.datum.len() > limits.event_bytes);
    if too_large || bytes > limits.command_bytes {
        return Err(ExecuteError::TooLarge);
    }
    Ok(bytes)
}

/// The same command again leads to the same ids.
fn event_id(command_id: Uuid, n: usize) -> Uuid {
    let mut name = *b"event\0\0\0\0\0\0\0\0";
    name[5..].copy_from_slice(&(n as u64).to_be_bytes());
    Uuid::new_v5(&command_id, &name)
}

/// The event's name without its namespace.
pub(crate) fn short_name(event_type: &str) -> &str {
    event_type.rsplit('.').next().unwrap_or(event_type)
}
