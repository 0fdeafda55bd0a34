use crate::{EventSchema, StreamId, Undecodable, WriterSchema, Written};
use apache_avro::AvroSchema;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// One fact. `#[derive(Event)]` takes the name and the documentation from the struct; the Avro
/// schema comes from `#[derive(AvroSchema)]` with `#[avro(namespace = "…")]` beside it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    note = "add #[derive(Event, AvroSchema, Serialize, Deserialize)] and a doc comment"
)]
pub trait Event:
    AvroSchema + Serialize + DeserializeOwned + Clone + Debug + PartialEq + Send + Sync + 'static
{
    /// The name of the struct, also of the Avro record.
    const NAME: &'static str;
    /// The doc comment of the struct.
    const DOC: &'static str;

    /// Brings an event that another version of the code wrote to the fields of this one, where
    /// Avro's own rules (defaults, aliases, promotions) cannot say it: a field that was split, or
    /// that means something else now. `#[event(upcast = a_function)]` names the function; without
    /// it nothing is done. It runs before those rules, for every reader: states, folds, exports.
    /// It sees whatever was ever written, so it looks at what [`Written::has`].
    ///
    /// # Errors
    /// When that event cannot be brought to today's form: it then stands in the way of its readers.
    fn upcast(written: &mut Written<'_>) -> Result<(), Undecodable> {
        let _ = written;
        Ok(())
    }
}

/// All facts of one aggregate type: one topic. Written with [`events!`](crate::events).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of events",
    note = "declare it with events! {{ pub enum … on \"topic\" of … {{ … }} }}"
)]
pub trait EventSet: Sized + Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The id of the aggregate.
    type Id: StreamId;
    /// The aggregate type in kebab-case plural, such as `credit-notes`; the topic without the
    /// application's name.
    const TOPIC: &'static str;
    /// One schema per event, in the order of declaration.
    fn schemas() -> &'static [EventSchema];
    /// The place of this event's schema in [`schemas`](Self::schemas).
    fn index(&self) -> usize;
    /// The Avro datum of the event.
    ///
    /// # Errors
    /// When the value does not fit its own schema, which is a bug in a hand-written `Serialize`.
    fn encode(&self) -> Result<Vec<u8>, Undecodable>;
    /// The event of this datum, read from the schema it was written with.
    ///
    /// # Errors
    /// When the record is of no known event, or the bytes are not such a record, whole.
    fn decode(writer: &WriterSchema, datum: &[u8]) -> Result<Self, Undecodable>;
    /// The event as JSON, for people.
    fn json(&self) -> serde_json::Value;
}

/// Declares a closed set of events:
/// `events! { /// …  pub enum OrderEvent on "orders" of OrderId { OrderPlaced, OrderPaid } }`.
#[macro_export]
macro_rules! events {
    ($(#[$meta:meta])* $vis:vis enum $set:ident on $topic:literal of $id:ty
        { $($event:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis enum $set {
            $(#[doc = concat!("[`", stringify!($event), "`]")] $event($event)),+
        }

        $(impl From<$event> for $set {
            fn from(event: $event) -> Self { $set::$event(event) }
        })+

        impl $crate::EventSet for $set {
            type Id = $id;
            const TOPIC: &'static str = $topic;
            fn schemas() -> &'static [$crate::EventSchema] {
                static SCHEMAS: ::std::sync::LazyLock<Vec<$crate::EventSchema>> =
                    ::std::sync::LazyLock::new(|| {
                        vec![$($crate::macros::event_schema::<$event>()),+]
                    });
                &SCHEMAS
            }
            fn index(&self) -> usize {
                let names = [$(stringify!($event)),+];
                let name = match self { $($set::$event(_) => stringify!($event)),+ };
                names.iter().position(|n| *n == name).unwrap_or(0)
            }
            fn encode(&self) -> Result<Vec<u8>, $crate::Undecodable> {
                let schema = &Self::schemas()[self.index()];
                match self { $($set::$event(event) => {
                    $crate::macros::encode_event(event, schema)
                }),+ }
            }
            fn decode(
                writer: &$crate::WriterSchema,
                datum: &[u8],
            ) -> Result<Self, $crate::Undecodable> {
                for schema in Self::schemas() {
                    if schema.full_name != writer.full_name() {
                        continue;
                    }
                    $(if schema.name == <$event as $crate::Event>::NAME {
                        return $crate::macros::decode_event::<$event>(writer, schema, datum)
                            .map($set::$event);
                    })+
                }
                Err($crate::Undecodable::unknown(writer.full_name(), $topic))
            }
            fn json(&self) -> $crate::macros::serde_json::Value {
                match self { $($set::$event(event) => {
                    $crate::macros::serde_json::to_value(event).unwrap_or_default()
                }),+ }
            }
        }
    };
}
