use crate::{CommandSet, EventSet, Snapshots, Timestamp};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Debug;
use uuid::Uuid;

/// A consistency boundary: `decide` says which events a command leads to, `evolve` is the only
/// thing that changes state. Both are pure.
pub trait Aggregate: Default + Clone + Debug + Serialize + Send + Sync + 'static {
    /// What it can be asked.
    type Command: CommandSet;
    /// What can happen to it.
    type Event: EventSet<Id = <Self::Command as CommandSet>::Id>;
    /// Why it says no.
    type Rejection: Rejection;
    /// How its states are kept now and then; not at all unless it says so. Worth it for streams of
    /// thousands of events: `Some(Snapshots::every(1_000, 1))`.
    const SNAPSHOTS: Option<Snapshots<Self>> = None;

    /// The events that the command leads to in this state.
    ///
    /// # Errors
    /// When a rule refuses the command.
    fn decide(&self, command: Self::Command, at: &At) -> Decision<Self>;
    /// The state after the event.
    fn evolve(self, event: &Self::Event) -> Self;

    /// The text of an id that the server makes, when a creating command brings none. It must
    /// satisfy the rules of the id.
    fn new_id(uuid: Uuid) -> String {
        uuid.to_string()
    }
}

/// What `decide` answers: events, or why not.
pub type Decision<A> = Result<Events<<A as Aggregate>::Event>, <A as Aggregate>::Rejection>;

/// When and by whom a command was given. Time and ids are inputs, so that `decide` stays pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The time of the decision; data only, no order rests on it.
    pub now: Timestamp,
    /// Who gave the command.
    pub actor: String,
    /// The command's own id; the same again when a command is repeated.
    pub command_id: Uuid,
}
impl At {
    /// The n-th id that this decision may need; the same again when it is decided again.
    pub fn id(&self, n: u32) -> Uuid {
        Uuid::new_v5(&self.command_id, &n.to_be_bytes())
    }
}

/// The events of one decision, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Events<E>(pub Vec<E>);

/// The command leads to this event.
pub fn emit<E: EventSet>(event: impl Into<E>) -> Events<E> {
    Events(vec![event.into()])
}
/// The command asks for what is so already.
pub fn nothing<E: EventSet>() -> Events<E> {
    Events(Vec::new())
}
impl<E: EventSet> Events<E> {
    /// And to this one after it.
    #[must_use]
    pub fn and(mut self, event: impl Into<E>) -> Self {
        self.0.push(event.into());
        self
    }
}

/// Why a command was not accepted, in words for a person (`Display`) and for a program.
pub trait Rejection: std::error::Error + Debug + PartialEq + Send + Sync + 'static {
    /// Which way of no it is, with its code.
    fn refusal(&self) -> Refusal;
    /// The member of the command that the rule is about, as a JSON pointer.
    fn pointer(&self) -> Option<String> {
        None
    }
}

/// The two ways of saying no; each carries the code of the problem, such as `order-exists`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not in this state; HTTP 409.
    Conflict(&'static str),
    /// Never; HTTP 422.
    Invalid(&'static str),
}

/// The answer no, without its type: what is stored, answered and told to sagas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// 409 or 422.
    pub status: u16,
    /// The code of the problem, such as `order-exists`.
    pub code: Cow<'static, str>,
    /// The rule in words.
    pub detail: String,
    /// The member of the command that the rule is about, as a JSON pointer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
}
impl Refused {
    /// Of this rejection.
    pub fn from_rejection(rejection: &impl Rejection) -> Self {
        let (status, code) = match rejection.refusal() {
            Refusal::Conflict(code) => (409, code),
            Refusal::Invalid(code) => (422, code),
        };
        let (detail, pointer) = (rejection.to_string(), rejection.pointer());
        Refused { status, code: code.into(), detail, pointer }
    }
}
