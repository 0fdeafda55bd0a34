//! What a command brings to the store and what it gets.

use foldstream_core::{AnyCommand, At, ConsistencyToken, Refused, Uuid};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A command for one stream.
#[derive(Clone)]
pub struct Execute {
    /// The aggregate type, such as `invoices`.
    pub aggregate: &'static str,
    /// The id of the aggregate, checked.
    pub stream_id: String,
    /// The typed command.
    pub command: AnyCommand,
    /// What must be so before it is decided.
    pub expected: Expected,
    /// Whether it creates the aggregate. Its stream is then taken for empty at first and not read:
    /// the append finds out whether it is, and only if not it is read and the command decided
    /// again. Changes no verdict, only what it costs.
    pub creates: bool,
    /// Time, actor and command id. The id must be another for every other request: a command whose
    /// id was applied before is not applied again, its first verdict is answered. For a request
    /// with an idempotency key, make it from scope, key and request hash.
    pub at: At,
    /// The caller's key, when there is one.
    pub idempotency: Option<Idempotency>,
    /// Stored with each event.
    pub metadata: Metadata,
    /// How long the caller waits.
    pub deadline: Duration,
}

/// What version a command builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Any,
    /// The stream has no events.
    NoStream,
    /// Exactly this version; 0 is a stream without events.
    Exact(u64),
}

/// A key under which the same request has one effect and one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Caller and route; keys of different scopes are different keys.
    pub scope: String,
    /// The key itself.
    pub key: String,
    /// SHA-256 of method, path and canonical body.
    pub request_hash: [u8; 32],
}

/// Who and why; stored with each event and sent as headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Who gave the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// What the command belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// What led to the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// What a command led to. Whatever it rests on is committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// The verdict of decide.
    pub verdict: Verdict,
    /// What the verdict made, or what it rests on; empty for a stream without events.
    pub token: ConsistencyToken,
    /// Whether it is the stored answer to an earlier request.
    pub replayed: bool,
}

/// The verdict of decide; also what an idempotency key keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Accepted {
        /// The stream's version after it.
        version: u64,
        /// What it led to; empty when it asked for what was so already.
        events: Vec<EventRef>,
    },
    /// No.
    Refused(Refused),
}

/// An event by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRef {
    /// The event's own id.
    pub id: Uuid,
    /// The event's name, such as `InvoiceIssued`.
    #[serde(rename = "type")]
    pub name: String,
    /// The 1-based place in its stream.
    pub version: u64,
}
