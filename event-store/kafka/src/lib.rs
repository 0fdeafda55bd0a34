//! Topics, Avro wire and schema registry, relay and consumer on Kafka.
//!
//! [`Cluster`] creates and describes topics; [`SchemaRegistry`] knows the schemas; [`Relay`] moves
//! events from an event store to their topics; [`GroupConsumer`] hands them to projections;
//! [`PartitionReader`] reads them again. No guarantee rests on Kafka's transactions or on the
//! offsets it keeps for groups: positions belong to the event store, places to the read side.

pub mod consumer;
mod error;
mod metrics;
mod planted;
pub mod reader;
pub mod registry;
pub mod relay;
mod settings;
pub mod topics;
pub mod wire;

pub use consumer::{
    Batch, ConsumerControl, ConsumerEvent, ConsumerOptions, ConsumerState, GroupConsumer,
};
pub use error::KafkaError;
pub use metrics::RelayMetrics;
pub use reader::{Chunk, PartitionReader};
pub use registry::{Registered, SchemaError, SchemaRegistry};
pub use relay::{
    Finding, PartitionReport, PartitionState, PartitionStatus, Relay, RelayOptions, RelayStatus,
    RelayWatch, Verification, Verified, VerifyError,
};
pub use topics::{Broker, Cluster, Ensured, PartitionDescription, TopicDescription, TopicSpec};
pub use wire::{Delivered, MAX_DATUM_BYTES, Malformation, Malformed, Received};
