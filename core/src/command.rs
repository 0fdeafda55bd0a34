use crate::StreamId;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// One request to an aggregate: a struct listed in [`commands!`](crate::commands).
pub trait Command:
    Serialize + DeserializeOwned + JsonSchema + Clone + Debug + PartialEq + Send + Sync + 'static
{
    /// The id of the aggregate.
    type Id: StreamId;
    /// The aggregate type that answers it.
    const AGGREGATE: &'static str;
    /// The name of the struct; in URLs in kebab case.
    const NAME: &'static str;
}

/// How the body of a request becomes a typed command; the runtime brings its strict way.
pub trait Decoder {
    /// What a body that does not fit leads to.
    type Error;
    /// The typed command.
    ///
    /// # Errors
    /// When the body is not of this type.
    fn decode<T: DeserializeOwned>(self) -> Result<T, Self::Error>;
}

/// What is known of a command beside its type.
#[derive(Debug, Clone)]
pub struct CommandSchema {
    /// The name in URLs: that of the struct in kebab case.
    pub name: String,
    /// Whether it creates the aggregate: `POST /v1/{aggregates}`.
    pub creates: bool,
    /// Whether a request must state the version it builds on (`If-Match`), else 428.
    pub needs_version: bool,
    /// The JSON schema of the body.
    pub schema: Schema,
}

/// All requests to one aggregate type. Written with [`commands!`](crate::commands), next to its
/// events, because sagas of other services and clients send them.
pub trait CommandSet: Sized + Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The id of the aggregate.
    type Id: StreamId;
    /// The aggregate type in kebab-case plural.
    const AGGREGATE: &'static str;
    /// The member of a creating command's body that holds the id.
    const ID_FIELD: &'static str;
    /// What is known of each command, in the order of declaration.
    fn schemas(generator: &mut SchemaGenerator) -> Vec<CommandSchema>;
    /// The command of this URL name with this body; `None` when there is none of that name.
    fn parse<D: Decoder>(name: &str, body: D) -> Option<Result<Self, D::Error>>;
    /// The URL name of the command.
    fn name(&self) -> String;
}

/// `IssueInvoice` → `issue-invoice`.
#[doc(hidden)]
pub fn kebab_case(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// Declares a closed set of commands:
/// `commands! { /// …  pub enum OrderCommand for "orders" of OrderId as "order_id" {
/// PlaceOrder creates, CancelOrder needs version } }`.
#[macro_export]
macro_rules! commands {
    ($(#[$meta:meta])* $vis:vis enum $set:ident for $aggregate:literal of $id:ty as $field:literal
        { $($command:ident $($mark:ident)*),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis enum $set {
            $(#[doc = concat!("[`", stringify!($command), "`]")] $command($command)),+
        }
        $(
            impl From<$command> for $set {
                fn from(command: $command) -> Self { $set::$command(command) }
            }
            impl $crate::Command for $command {
                type Id = $id;
                const AGGREGATE: &'static str = $aggregate;
                const NAME: &'static str = stringify!($command);
            }
        )+
        impl $crate::CommandSet for $set {
            type Id = $id;
            const AGGREGATE: &'static str = $aggregate;
            const ID_FIELD: &'static str = $field;
            fn schemas(
                generator: &mut $crate::macros::schemars::SchemaGenerator,
            ) -> Vec<$crate::CommandSchema> {
                vec![$($crate::CommandSchema {
                    name: $crate::macros::kebab_case(stringify!($command)),
                    creates: [$(stringify!($mark)),*].contains(&"creates"),
                    needs_version: [$(stringify!($mark)),*].contains(&"version"),
                    schema: generator.subschema_for::<$command>(),
                }),+]
            }
            fn parse<D: $crate::Decoder>(name: &str, body: D) -> Option<Result<Self, D::Error>> {
                $(if name == $crate::macros::kebab_case(stringify!($command)) {
                    return Some(body.decode::<$command>().map($set::$command));
                })+
                None
            }
            fn name(&self) -> String {
                match self { $($set::$command(_) => {
                    $crate::macros::kebab_case(stringify!($command))
                }),+ }
            }
        }
    };
}
