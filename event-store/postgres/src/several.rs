//! One append over several streams of the service: all of it, or nothing.

use crate::jobs::{Answer, JobPart};
use crate::{
    EventRef, EventStore, Execute, ExecuteError, Executed, Expected, Idempotency, Metadata, Verdict,
};
use foldstream_core::{AnyCommand, At, ConsistencyToken, Refused, StreamRef, Uuid};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::Duration;

/// More streams than this are not one decision.
const MOST_PARTS: usize = 100;
/// Keys of commands that bring none: their verdicts name streams that no event tells of.
const OWN_SCOPE: &str = "command-id";

/// Commands for several streams that take effect together or not at all.
#[derive(Clone)]
pub struct ExecuteAll {
    /// In the order in which they are decided; each for a stream of its own, at most 100.
    pub parts: Vec<Part>,
    /// Time, actor and command id, as in [`Execute::at`]. Parts after the first are decided with
    /// ids made from this one, so that no two of them make the same ids.
    pub at: At,
    /// The caller's key for all of it; without one the command id serves as key.
    pub idempotency: Option<Idempotency>,
    /// Stored with each event.
    pub metadata: Metadata,
    /// How long the caller waits.
    pub deadline: Duration,
}

/// One of these commands.
#[derive(Clone)]
pub struct Part {
    /// The aggregate type, such as `invoices`.
    pub aggregate: &'static str,
    /// The id of the aggregate, checked.
    pub stream_id: String,
    /// The typed command.
    pub command: AnyCommand,
    /// What must be so before it is decided.
    pub expected: Expected,
}

/// What came of them. Whatever it rests on is committed.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutedAll {
    /// The verdict of the decisions.
    pub verdict: VerdictOfAll,
    /// What the verdict made, or what it rests on, over all streams.
    pub token: ConsistencyToken,
    /// Whether it is the stored answer to an earlier request.
    pub replayed: bool,
}

/// Yes to all, or no to one and thereby to all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerdictOfAll {
    /// Yes to each, in the order of the parts.
    Accepted(Vec<AcceptedPart>),
    /// No to one of them. Those before it were accepted, those after it not decided; nothing of
    /// any was written.
    Refused {
        /// The 0-based place of the part.
        part: usize,
        /// Why.
        refused: Refused,
    },
}

/// What one part led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedPart {
    /// Its stream.
    #[serde(flatten)]
    pub stream: StreamRef,
    /// The stream's version after it.
    pub version: u64,
    /// What it led to; empty when it asked for what was so already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventRef>,
}

/// Why they were not decided, or nobody knows. Unless the outcome is unknown, nothing of any was
/// written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ExecuteAllError {
    /// The 0-based place of the part that it is about; `None` when it is about all of them.
    pub part: Option<usize>,
    /// What is the matter.
    #[source]
    pub error: ExecuteError,
}

/// A verdict as a key keeps it: that of the first stream, and what belongs to the others. Of a
/// refusal, the others say which versions it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptVerdict {
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    /// Which request it was given to first; to any other it is a replay.
    pub(crate) request: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) others: Vec<AcceptedPart>,
}

impl EventStore {
    /// Decides several commands, each for a stream of its own, and appends what they lead to in one
    /// transaction: all of it, or nothing. The streams may be of different aggregates of the
    /// service. A single stream is better served by [`execute`](EventStore::execute).
    ///
    /// # Errors
    /// See [`ExecuteAllError`]; a rejection by an aggregate is no error but a verdict.
    pub async fn execute_all(&self, all: ExecuteAll) -> Result<ExecutedAll, ExecuteAllError> {
        let broken = |part, detail: &str| ExecuteAllError {
            part,
            error: ExecuteError::Broken(detail.into()),
        };
        if all.parts.len() > MOST_PARTS {
            return Err(broken(None, "a command over more than 100 streams"));
        }
        let mut parts = Vec::with_capacity(all.parts.len());
        let mut seen = HashSet::new();
        for (place, part) in all.parts.into_iter().enumerate() {
            let found = self.place(part.aggregate, &part.stream_id);
            let (aggregate, stream, partition) =
                found.map_err(|error| ExecuteAllError { part: Some(place), error })?;
            if !seen.insert(stream.clone()) {
                return Err(broken(Some(place), "two parts for the same stream"));
            }
            let at = At { command_id: part_id(all.at.command_id, place), ..all.at.clone() };
            let Part { command, expected, .. } = &part;
            let (command, expected) = (command.clone(), *expected);
            parts.push((part, JobPart { aggregate, stream, partition, command, expected, at }));
        }
        let mut parts = parts.into_iter();
        let Some((part, first)) = parts.next() else {
            return Err(broken(None, "a command without parts"));
        };
        let others: Vec<JobPart> = parts.map(|(_, other)| other).collect();
        let own_key = || Idempotency {
            scope: OWN_SCOPE.into(),
            key: all.at.command_id.to_string(),
            request_hash: [0; 32],
        };
        let idempotency = match all.idempotency {
            None if !others.is_empty() => Some(own_key()),
            other => other,
        };
        let execute = Execute {
            aggregate: part.aggregate,
            stream_id: part.stream_id,
            command: part.command,
            expected: part.expected,
            creates: false,
            at: all.at,
            idempotency,
            metadata: all.metadata,
            deadline: all.deadline,
        };
        let stream = first.stream.as_ref().clone();
        let answer = self.run(execute, first.aggregate, first.stream, first.partition, others);
        match answer.await {
            Ok(Answer { result: Ok(executed), part, others }) => {
                Ok(ExecutedAll::of(executed, stream, part, others))
            }
            Ok(Answer { result: Err(error), part, .. }) => Err(ExecuteAllError { part, error }),
            Err(error) => Err(ExecuteAllError { part: None, error }),
        }
    }
}

impl ExecutedAll {
    fn of(
        executed: Executed,
        stream: StreamRef,
        part: Option<usize>,
        others: Vec<AcceptedPart>,
    ) -> Self {
        let Executed { verdict, token, replayed } = executed;
        let verdict = match verdict {
            Verdict::Accepted { version, events } => {
                let first = AcceptedPart { stream, version, events };
                VerdictOfAll::Accepted(std::iter::once(first).chain(others).collect())
            }
            Verdict::Refused(refused) => {
                VerdictOfAll::Refused { part: part.unwrap_or_default(), refused }
            }
        };
        ExecutedAll { verdict, token, replayed }
    }
}

/// The first part keeps the command's own id.
fn part_id(command_id: Uuid, place: usize) -> Uuid {
    if place == 0 {
        return command_id;
    }
    let mut name = *b"part\0\0\0\0\0\0\0\0";
    name[4..].copy_from_slice(&(place as u64).to_be_bytes());
    Uuid::new_v5(&command_id, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_keeps_of_one_stream_is_its_verdict_and_to_whom_it_was_given() {
        let verdict = Verdict::Accepted { version: 3, events: Vec::new() };
        let mut json = serde_json::to_value(&verdict).unwrap();
        json["request"] = serde_json::to_value(Uuid::max()).unwrap();
        let kept =
            KeptVerdict { verdict, request: Some(Uuid::max()), part: None, others: Vec::new() };
        assert_eq!(serde_json::to_value(&kept).unwrap(), json);
        assert_eq!(serde_json::from_value::<KeptVerdict>(json).unwrap(), kept);
    }

    #[test]
    fn what_a_key_keeps_of_several_names_their_streams() {
        let refused =
            Refused { status: 409, code: "no".into(), detail: "no".into(), pointer: None };
        let stream = StreamRef::new("shop.orders", "1");
        let others = vec![AcceptedPart { stream, version: u64::MAX, events: Vec::new() }];
        let (verdict, request) = (Verdict::Refused(refused), Some(Uuid::max()));
        let kept = KeptVerdict { verdict, request, part: Some(1), others };
        let json = serde_json::to_value(&kept).unwrap();
        assert_eq!(json["others"][0]["topic"], "shop.orders");
        assert_eq!(json["others"][0]["stream_id"], "1");
        assert_eq!(serde_json::from_value::<KeptVerdict>(json).unwrap(), kept);
    }
}
