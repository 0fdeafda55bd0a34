//! The one face behind which aggregates of different types stand in one list.

use crate::{Aggregate, At, CommandSet, EventSchema, EventSet, RawRecord, Refused, Undecodable};
use crate::{SnapshotPolicy, Unkept};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// The state of an aggregate whose type is no longer visible; cheap to clone.
pub type AnyState = Arc<dyn Any + Send + Sync>;
/// A command whose type is no longer visible; cheap to clone.
pub type AnyCommand = Arc<dyn Any + Send + Sync>;

/// An event to append: which one, and its Avro datum.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Its schema's place in [`AnyAggregate::events`].
    pub schema: usize,
    /// The event's name.
    pub name: &'static str,
    /// The Avro datum.
    pub datum: Vec<u8>,
}

/// What a command led to: events, and the state after them.
#[derive(Clone)]
pub struct Decided {
    /// In order; none when the command asked for what is so already.
    pub events: Vec<NewEvent>,
    /// The state after the events.
    pub state: AnyState,
}

/// Why a command led to nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Undecided {
    /// A rule refused it.
    #[error("{}", .0.detail)]
    Refused(Refused),
    /// An event could not be encoded: a bug in its type.
    #[error(transparent)]
    Broken(#[from] Undecodable),
    /// The command or the state is of another aggregate: a bug in the caller.
    #[error("a command or a state of another aggregate than `{0}`")]
    Foreign(&'static str),
}

/// An aggregate type whose state type is no longer visible.
pub trait AnyAggregate: Send + Sync {
    /// The aggregate type in kebab-case plural, such as `invoices`.
    fn name(&self) -> &'static str;
    /// The schemas of its events.
    fn events(&self) -> &'static [EventSchema];
    /// The state of a stream without events.
    fn initial(&self) -> AnyState;
    /// The state after one more stored event.
    ///
    /// # Errors
    /// When the record is not an event of this aggregate.
    fn evolve(&self, state: AnyState, record: &RawRecord) -> Result<AnyState, Undecodable>;
    /// Decides a command.
    ///
    /// # Errors
    /// When a rule refuses it, or something is not what it should be.
    fn decide(&self, state: &AnyState, command: &AnyCommand, at: &At)
    -> Result<Decided, Undecided>;
    /// About how many bytes the state takes in memory; it is written out once to be counted.
    fn weight(&self, state: &AnyState) -> usize;
    /// How its states are kept; `None` when they are not.
    fn snapshots(&self) -> Option<SnapshotPolicy>;
    /// The state as it is kept in a snapshot.
    ///
    /// # Errors
    /// When it cannot be kept, or would not be read as it is.
    fn write_snapshot(&self, state: &AnyState) -> Result<Vec<u8>, Unkept>;
    /// The state of a snapshot.
    ///
    /// # Errors
    /// When these are not the bytes of one.
    fn read_snapshot(&self, bytes: &[u8]) -> Result<AnyState, Unkept>;
    /// The state as JSON, for people; null for one of another type.
    fn state_json(&self, state: &AnyState) -> serde_json::Value;
    /// A stored event as JSON, for people.
    ///
    /// # Errors
    /// When the record is not an event of this aggregate.
    fn event_json(&self, record: &RawRecord) -> Result<serde_json::Value, Undecodable>;
}

/// Puts an aggregate type behind that face.
///
/// # Panics
/// When its commands and its events bear different names.
pub fn aggregate<A: Aggregate>() -> Arc<dyn AnyAggregate> {
    assert_eq!(
        A::Command::AGGREGATE,
        A::Event::TOPIC,
        "the commands and the events of an aggregate bear its name"
    );
    Arc::new(OneAggregate::<A>(PhantomData))
}

struct OneAggregate<A>(PhantomData<fn() -> A>);

/// Counts what is written.
struct Counted(usize);
impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<A: Aggregate> AnyAggregate for OneAggregate<A> {
    fn name(&self) -> &'static str {
        A::Event::TOPIC
    }
    fn events(&self) -> &'static [EventSchema] {
        A::Event::schemas()
    }
    fn initial(&self) -> AnyState {
        Arc::new(A::default())
    }
    fn evolve(&self, state: AnyState, record: &RawRecord) -> Result<AnyState, Undecodable> {
        let event = A::Event::decode(&record.writer, &record.datum)?;
        let foreign = |_| Undecodable::new(A::Event::TOPIC, "a state of another aggregate");
        let state = state.downcast::<A>().map_err(foreign)?;
        Ok(Arc::new(Arc::unwrap_or_clone(state).evolve(&event)))
    }
    fn decide(
        &self,
        state: &AnyState,
        command: &AnyCommand,
        at: &At,
    ) -> Result<Decided, Undecided> {
        let (Some(own), Some(command)) =
            (state.downcast_ref::<A>(), command.downcast_ref::<A::Command>())
        else {
            return Err(Undecided::Foreign(A::Event::TOPIC));
        };
        let decision = own.decide(command.clone(), at);
        let events = decision.map_err(|e| Undecided::Refused(Refused::from_rejection(&e)))?;
        if events.0.is_empty() {
            return Ok(Decided { events: Vec::new(), state: state.clone() });
        }
        let mut after = own.clone();
        let mut encoded = Vec::with_capacity(events.0.len());
        for event in events.0 {
            let (schema, datum) = (event.index(), event.encode()?);
            encoded.push(NewEvent { schema, name: A::Event::schemas()[schema].name, datum });
            after = after.evolve(&event);
        }
        Ok(Decided { events: encoded, state: Arc::new(after) })
    }
    fn weight(&self, state: &AnyState) -> usize {
        let mut counted = Counted(0);
        if let Some(own) = state.downcast_ref::<A>() {
            // Whatever a failing `Serialize` wrote until then is counted.
            let _ = serde_json::to_writer(&mut counted, own);
        }
        // Names and quotes in the text, pointers and allocations in memory: about twice as much.
        size_of::<A>() + 2 * counted.0
    }
    fn snapshots(&self) -> Option<SnapshotPolicy> {
        A::SNAPSHOTS.map(|snapshots| snapshots.policy())
    }
    fn write_snapshot(&self, state: &AnyState) -> Result<Vec<u8>, Unkept> {
        let (Some(snapshots), Some(own)) = (A::SNAPSHOTS, state.downcast_ref::<A>()) else {
            return Err(Unkept::Foreign);
        };
        snapshots.encode(own)
    }
    fn read_snapshot(&self, bytes: &[u8]) -> Result<AnyState, Unkept> {
        let snapshots = A::SNAPSHOTS.ok_or(Unkept::Foreign)?;
        Ok(Arc::new(snapshots.decode(bytes)?))
    }
    fn state_json(&self, state: &AnyState) -> serde_json::Value {
        let own = state.downcast_ref::<A>();
        own.and_then(|state| serde_json::to_value(state).ok()).unwrap_or_default()
    }
    fn event_json(&self, record: &RawRecord) -> Result<serde_json::Value, Undecodable> {
        A::Event::decode(&record.writer, &record.datum).map(|event| event.json())
    }
}
