//! Answering the commands of a batch once the database has spoken.

use crate::append::{Applied, Place, Reply, Stored};
use crate::batch::{Batch, Command, Event, Others, Outcome, Stream, short_name};
use crate::cache::{Cache, Cached};
use crate::jobs::{Answer, Job};
use crate::planted::{Fault, is_refusal, planted};
use crate::several::{AcceptedPart, KeptVerdict};
use crate::writer::Shared;
use crate::{EventRef, ExecuteError, Executed, Verdict};
use foldstream_core::{ConsistencyToken, StreamRef, TopicPartition, Uuid};

/// A command is decided again so often before it gives up.
const TRIES: u8 = 3;

/// Answers what can be answered, brings the cache up to date, and returns the commands to decide
/// again, in the order they came.
pub(crate) fn settle(batch: Batch, reply: &Reply, common: &Shared, cache: &mut Cache) -> Vec<Job> {
    let (positions, store) = (positions(&batch, reply), common.store_id);
    remember(&batch, reply, &positions, common, cache);
    let mut events = batch.events.iter().zip(&positions).peekable();
    let mut reached: Vec<u64> = batch.streams.iter().map(|s| s.base.position).collect();
    let mut again = Vec::new();
    for (place, command) in batch.commands.into_iter().enumerate() {
        while let Some((event, position)) = events.next_if(|(event, _)| event.command == place) {
            reached[event.stream] = *position;
        }
        if let Some(stored) = reply.stored.get(&place) {
            answer_stored(command.job, stored, reply.stored_others.get(&place), store);
        } else if let Some(events) = reply.applied.get(&place) {
            answer_applied(command, events, store);
        } else if reply.failed.contains(&command.stream)
            && !(planted(Fault::StaleRejection) && is_refusal(&command.outcome))
        {
            again.extend(try_again(command, reply));
        } else {
            let of = |place: usize| {
                let stream = &batch.streams[place];
                token_at(store, &stream.key, stream.partition, reached[place])
            };
            let mut token = of(command.stream);
            for other in &command.others.streams {
                token.merge(&of(*other));
            }
            answer(command, token);
        }
    }
    again
}

/// The positions of the batch's events: handed out in their order, none to streams that failed.
fn positions(batch: &Batch, reply: &Reply) -> Vec<u64> {
    let mut next = reply.heads.clone();
    let mut position = |event: &Event| {
        let stream = &batch.streams[event.stream];
        if reply.failed.contains(&event.stream) {
            return 0;
        }
        let at = TopicPartition::new(stream.key.topic.clone(), stream.partition);
        let last = next.entry(at).or_default();
        *last += 1;
        *last
    };
    batch.events.iter().map(&mut position).collect()
}

fn remember(batch: &Batch, reply: &Reply, positions: &[u64], common: &Shared, cache: &mut Cache) {
    let mut reached: Vec<u64> = batch.streams.iter().map(|s| s.base.position).collect();
    for (event, position) in batch.events.iter().zip(positions) {
        reached[event.stream] = *position;
    }
    for (place, stream) in batch.streams.iter().enumerate() {
        if !reply.failed.contains(&place) {
            let mut cached = after(stream, reached[place]);
            common.keeper.offer(&common.reader.served, &stream.key, &mut cached);
            cache.put(stream.key.clone(), cached);
            continue;
        }
        // A version below ours is none that we have seen committed: start from nothing.
        if reply.stale.get(&place).is_some_and(|current| *current < stream.base.version) {
            cache.forget(&stream.key);
        } else if let Some(cached) = cache.get(&stream.key) {
            cached.stale = true;
        }
    }
}

fn after(stream: &Stream, position: u64) -> Cached {
    Cached {
        version: stream.version,
        position,
        state: stream.state.clone(),
        bytes: stream.bytes,
        stale: false,
        snapshot: stream.base.snapshot,
    }
}

fn token_at(store: Uuid, stream: &StreamRef, partition: i32, position: u64) -> ConsistencyToken {
    if position == 0 {
        return ConsistencyToken::default();
    }
    let at = TopicPartition::new(stream.topic.clone(), partition);
    ConsistencyToken::at(store, at, position, stream.clone())
}
fn token_of<'a>(store: Uuid, places: impl Iterator<Item = &'a Place>) -> ConsistencyToken {
    let mut token = ConsistencyToken::default();
    for place in places {
        token.merge(&token_at(store, &place.stream, place.partition, place.position));
    }
    token
}

fn answer(command: Command, token: ConsistencyToken) {
    let result = match command.outcome {
        Outcome::Verdict(verdict) => Ok(Executed { verdict, token, replayed: false }),
        Outcome::Unmet(error) => Err(error),
    };
    let Others { part, accepted, .. } = command.others;
    command.job.answer(Answer { result, part, others: accepted });
}

fn answer_stored(job: Job, stored: &Stored, others: Option<&Vec<Place>>, store: Uuid) {
    if !stored.same {
        job.answer(Answer::error(ExecuteError::KeyReused, None));
        return;
    }
    let token = token_of(store, stored.place.iter().chain(others.into_iter().flatten()));
    let KeptVerdict { verdict, request, part, others } = stored.kept.clone();
    // The verdict of a try of its own, of which nobody knew whether it had reached the database, is
    // no replay.
    let replayed = request != Some(job.request);
    job.answer(Answer { result: Ok(Executed { verdict, token, replayed }), part, others });
}

/// The key of the command ran out, or it had none: its events tell what became of it.
fn answer_applied(command: Command, events: &[Applied], store: Uuid) {
    let Command { job, version, others, .. } = command;
    if !events.iter().all(|e| job.streams().any(|asked| **asked.stream == e.place.stream)) {
        let detail = "the command id was used with another stream";
        job.answer(Answer::error(ExecuteError::Broken(detail.into()), None));
        return;
    }
    // A part without events led to nothing then; its version is at least as it is now.
    let of = |stream: &StreamRef, unchanged: u64| {
        let own = events.iter().filter(|event| event.place.stream == *stream);
        let refs: Vec<EventRef> = own
            .map(|event| EventRef {
                id: event.id,
                name: short_name(&event.event_type).to_owned(),
                version: event.version,
            })
            .collect();
        (refs.last().map_or(unchanged, |last| last.version), refs)
    };
    let (version, refs) = of(&job.stream, version);
    let verdict = Verdict::Accepted { version, events: refs };
    let other = |AcceptedPart { stream, version, .. }: AcceptedPart| {
        let (version, events) = of(&stream, version);
        AcceptedPart { stream, version, events }
    };
    let others = others.accepted.into_iter().map(other).collect();
    let token = token_of(store, events.iter().map(|event| &event.place));
    let result = Ok(Executed { verdict, token, replayed: !job.unsettled });
    job.answer(Answer { result, part: None, others });
}

fn try_again(command: Command, reply: &Reply) -> Option<Job> {
    let (mut job, Others { streams, .. }) = (command.job, command.others);
    let mut streams = std::iter::once(command.stream).chain(streams);
    let stale = streams.position(|stream| reply.stale.contains_key(&stream));
    if stale.is_some() {
        job.conflicts += 1;
    }
    if job.conflicts > TRIES {
        job.answer(Answer::error(ExecuteError::Contended, stale));
        return None;
    }
    Some(job)
}
