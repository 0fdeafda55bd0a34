//! The pure vocabulary of Foldstream: aggregates, commands, events, streams, positions, read
//! models. Nothing here does IO, reads a clock or makes random numbers: time and ids are inputs.

mod aggregate;
mod avro;
mod column;
mod command;
mod decide;
mod event;
mod invalid;
mod merge;
mod money;
mod outbox;
mod position;
mod read_model;
mod record;
mod rows;
mod show;
mod snapshot;
pub mod spec;
mod text;
mod time;
mod token;

pub use aggregate::{Aggregate, At, Decision, Events, Refusal, Refused, Rejection, emit, nothing};
pub use avro::{EventSchema, MAX_VALUES, Undecodable, WriterSchema, Written, wire_form};
pub use column::{Column, ColumnType, Json, Value, WrongType};
pub use command::{Command, CommandSchema, CommandSet, Decoder};
pub use decide::{AnyAggregate, AnyCommand, AnyState, Decided, NewEvent, Undecided, aggregate};
pub use event::{Event, EventSet};
pub use foldstream_derive::{Column, Event, ReadModel};
pub use invalid::Invalid;
pub use merge::{Ordered, Sum, by_is_greater, merge_latest, merge_max, merge_min, merge_sum};
pub use money::Money;
pub use outbox::{Claim, Claims, Head, Lease, Outbox, OutboxEvent, Progress};
pub use position::{StreamRef, TopicPartition, partition_of};
pub use read_model::{Additive, ColumnDef, Contribute, Fold, Merge, ReadModel, Reads, Table};
pub use record::{BadRecord, Decoded, RawRecord, Recorded, Topic};
pub use rows::{AnyReadModel, AnyRows, Cells, Changes, Held, Source, read_model};
pub use show::Shown;
pub use snapshot::{SnapshotPolicy, Snapshots, Unkept};
pub use text::{StreamId, check_printable, check_stream_id, check_text};
pub use time::{Date, Timestamp};
pub use token::{ConsistencyToken, InvalidToken};
pub use uuid::Uuid;

/// What the macros of this crate name; not for direct use.
#[doc(hidden)]
pub mod macros {
    pub use apache_avro;
    pub use schemars;
    pub use serde;
    pub use serde_json;

    pub use crate::avro::{decode_event, encode_event, event_schema};
    pub use crate::command::kebab_case;
    pub use crate::text::text_schema;
}
