//! What a service consists of: its name and its aggregates.

use std::marker::PhantomData;
use std::sync::Arc;

use foldstream_core::{
    Aggregate, AnyAggregate, AnyCommand, CommandSchema, CommandSet, Decoder, Invalid, StreamId,
    Uuid, aggregate,
};
use foldstream_service::{Problem, json};
use schemars::SchemaGenerator;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A bounded context: its aggregates share one database.
///
/// ```ignore
/// Service::new("invoicing").aggregate::<Invoice>().aggregate::<CreditNote>()
/// ```
#[derive(Clone)]
pub struct Service {
    name: &'static str,
    registered: Vec<Registered>,
}

impl Service {
    /// A service of this name, without aggregates yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, registered: Vec::new() }
    }

    /// And this aggregate type.
    ///
    /// # Panics
    /// When its declaration contradicts itself: its commands and events bear different names, it
    /// has two creating commands, `new_id` breaks the rules of its ids, or it is there already.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        let registered = Registered::new::<A>();
        let name = registered.name();
        assert!(
            self.registered.iter().all(|other| other.name() != name),
            "the aggregate `{name}` is registered twice"
        );
        self.registered.push(registered);
        self
    }

    /// The name, such as `invoicing`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its aggregates, in the order of registration: what its event store holds.
    #[must_use]
    pub fn aggregates(&self) -> Vec<Arc<dyn AnyAggregate>> {
        self.registered.iter().map(|registered| Arc::clone(&registered.aggregate)).collect()
    }

    pub(crate) fn registered(&self) -> &[Registered] {
        &self.registered
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let aggregates: Vec<_> = self.registered.iter().map(Registered::name).collect();
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("aggregates", &aggregates)
            .finish()
    }
}

/// A command as its declaration marks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandInfo {
    pub(crate) name: String,
    pub(crate) creates: bool,
    pub(crate) needs_version: bool,
}

/// One aggregate type with the way into its commands.
#[derive(Clone)]
pub(crate) struct Registered {
    pub(crate) aggregate: Arc<dyn AnyAggregate>,
    pub(crate) commands: Arc<dyn AnyCommands>,
    /// In the order of declaration.
    pub(crate) infos: Arc<[CommandInfo]>,
}

impl Registered {
    fn new<A: Aggregate>() -> Self {
        let commands = CommandsOf::<A>(PhantomData);
        let infos: Arc<[CommandInfo]> = commands
            .schemas(&mut SchemaGenerator::default())
            .into_iter()
            .map(|CommandSchema { name, creates, needs_version, .. }| CommandInfo {
                name,
                creates,
                needs_version,
            })
            .collect();
        let aggregate = aggregate::<A>();
        let name = aggregate.name();
        let creating = infos.iter().filter(|info| info.creates).count();
        assert!(creating <= 1, "`{name}` has {creating} creating commands; one route has one");
        if let Err(invalid) = commands.check_id(&commands.new_id(Uuid::nil())) {
            panic!("`new_id` of `{name}` makes ids that break their own rule: {invalid}");
        }
        Self { aggregate, commands: Arc::new(commands), infos }
    }

    /// The aggregate type in kebab-case plural.
    pub(crate) fn name(&self) -> &'static str {
        self.aggregate.name()
    }

    /// The command that creates an aggregate.
    pub(crate) fn creating(&self) -> Option<&CommandInfo> {
        self.infos.iter().find(|info| info.creates)
    }

    /// The command of this name.
    pub(crate) fn command(&self, name: &str) -> Option<&CommandInfo> {
        self.infos.iter().find(|info| info.name == name)
    }
}

/// The commands of one aggregate type whose types are no longer visible.
pub(crate) trait AnyCommands: Send + Sync {
    /// The member of a body that holds the aggregate's id.
    fn id_field(&self) -> &'static str;
    /// What is known of each command, in the order of declaration.
    fn schemas(&self, generator: &mut SchemaGenerator) -> Vec<CommandSchema>;
    /// The command of this name with this body; `None` when there is none of that name.
    fn parse(&self, name: &str, body: &Value) -> Option<Result<AnyCommand, Problem>>;
    /// Whether a text is an id of this aggregate.
    fn check_id(&self, text: &str) -> Result<(), Invalid>;
    /// The id that the server makes of this.
    fn new_id(&self, uuid: Uuid) -> String;
}

struct CommandsOf<A>(PhantomData<fn() -> A>);

impl<A: Aggregate> AnyCommands for CommandsOf<A> {
    fn id_field(&self) -> &'static str {
        A::Command::ID_FIELD
    }
    fn schemas(&self, generator: &mut SchemaGenerator) -> Vec<CommandSchema> {
        A::Command::schemas(generator)
    }
    fn parse(&self, name: &str, body: &Value) -> Option<Result<AnyCommand, Problem>> {
        let command = A::Command::parse(name, Strictly(body))?;
        Some(command.map(|command| Arc::new(command) as AnyCommand))
    }
    fn check_id(&self, text: &str) -> Result<(), Invalid> {
        <A::Command as CommandSet>::Id::parse(text).map(|_| ())
    }
    fn new_id(&self, uuid: Uuid) -> String {
        A::new_id(uuid)
    }
}

/// A body, decoded as bodies from outside are.
struct Strictly<'a>(&'a Value);

impl Decoder for Strictly<'_> {
    type Error = Problem;
    fn decode<T: DeserializeOwned>(self) -> Result<T, Problem> {
        json::decode(self.0)
    }
}
