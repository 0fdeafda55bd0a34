//! Answering the commands of a batch once the database has spoken.

use crate::append::{Applied, Place, Reply, Stored};
use crate::batch::{Batch, Command, Event, Outcome, Stream, short_name};
use crate::cache::{Cache, Cached};
use crate::jobs::Job;
use crate::{EventRef, ExecuteError, Executed, Verdict};
use foldstream_core::{ConsistencyToken, StreamRef, TopicPartition, Uuid};
use std::collections::HashMap;

/// A command is decided again so often before it gives up.
const TRIES: u8 = 3;

/// Answers what can be answered, brings the cache up to date, and returns the commands to decide
/// again, in the order they came.
pub(crate) fn settle(batch: Batch, reply: &Reply, store: Uuid, cache: &mut Cache) -> Vec<Job> {
    let positions = positions(&batch, reply);
    remember(&batch, reply, &positions, cache);
    let mut last: HashMap<usize, u64> = HashMap::new();
    for (event, position) in batch.events.iter().zip(&positions) {
        last.insert(event.command, *position);
    }
    let mut reached: Vec<u64> = batch.streams.iter().map(|s| s.base.position).collect();
    let mut again = Vec::new();
    for (place, command) in batch.commands.into_iter().enumerate() {
        if let Some(position) = last.get(&place) {
            reached[command.stream] = *position;
        }
        let stream = &batch.streams[command.stream];
        if let Some(stored) = reply.stored.get(&place) {
            answer_stored(command.job, stored, store);
        } else if let Some(events) = reply.applied.get(&place) {
            answer_applied(command.job, events, store);
        } else if reply.failed.contains(&command.stream) {
            again.extend(try_again(command, reply));
        } else {
            let token = token(store, &stream.key, stream.partition, reached[command.stream]);
            answer(command, token);
        }
    }
    again
}

/// The positions of the batch's events: handed out in their order, none to streams that failed.
fn positions(batch: &Batch, reply: &Reply) -> Vec<u64> {
    let mut next = reply.heads.clone();
    let mut position = |event: &Event| {
        let place = batch.commands[event.command].stream;
        let stream = &batch.streams[place];
        if reply.failed.contains(&place) {
            return 0;
        }
        let at = TopicPartition::new(stream.key.topic.clone(), stream.partition);
        let last = next.entry(at).or_default();
        *last += 1;
        *last
    };
    batch.events.iter().map(&mut position).collect()
}

fn remember(batch: &Batch, reply: &Reply, positions: &[u64], cache: &mut Cache) {
    let mut reached: Vec<u64> = batch.streams.iter().map(|s| s.base.position).collect();
    for (event, position) in batch.events.iter().zip(positions) {
        reached[batch.commands[event.command].stream] = *position;
    }
    for (place, stream) in batch.streams.iter().enumerate() {
        if !reply.failed.contains(&place) {
            cache.put(stream.key.clone(), after(stream, reached[place]));
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
    }
}

fn token(store: Uuid, stream: &StreamRef, partition: i32, position: u64) -> ConsistencyToken {
    if position == 0 {
        return ConsistencyToken::default();
    }
    let at = TopicPartition::new(stream.topic.clone(), partition);
    ConsistencyToken::at(store, at, position, stream.clone())
}
fn token_of(store: Uuid, place: &Place) -> ConsistencyToken {
    token(store, &place.stream, place.partition, place.position)
}

fn answer(command: Command, token: ConsistencyToken) {
    let answer = match command.outcome {
        Outcome::Verdict(verdict) => Ok(Executed { verdict, token, replayed: false }),
        Outcome::Unmet(error) => Err(error),
    };
    command.job.answer(answer);
}

fn answer_stored(job: Job, stored: &Stored, store: Uuid) {
    if !stored.same {
        job.answer(Err(ExecuteError::KeyReused));
        return;
    }
    let token = stored.place.as_ref().map(|place| token_of(store, place)).unwrap_or_default();
    // The verdict of a try of ours, of which nobody knew whether it had reached the database, is
    // no replay.
    let replayed = !job.unsettled;
    job.answer(Ok(Executed { verdict: stored.verdict.clone(), token, replayed }));
}

fn answer_applied(job: Job, events: &[Applied], store: Uuid) {
    let (Some(last), true) = (events.last(), events.iter().all(|e| e.place.stream == *job.stream))
    else {
        let detail = "the command id was used with another stream";
        job.answer(Err(ExecuteError::Broken(detail.into())));
        return;
    };
    let refs = events.iter().map(|event| EventRef {
        id: event.id,
        name: short_name(&event.event_type).to_owned(),
        version: event.version,
    });
    let verdict = Verdict::Accepted { version: last.version, events: refs.collect() };
    let (token, replayed) = (token_of(store, &last.place), !job.unsettled);
    job.answer(Ok(Executed { verdict, token, replayed }));
}

fn try_again(command: Command, reply: &Reply) -> Option<Job> {
    let mut job = command.job;
    if reply.stale.contains_key(&command.stream) {
        job.conflicts += 1;
    }
    if job.conflicts > TRIES {
        job.answer(Err(ExecuteError::Contended));
        return None;
    }
    Some(job)
}
