use crate::{Date, Invalid, Money, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use std::borrow::Cow;
use uuid::Uuid;

/// What a column of a read model is in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `boolean`
    Bool,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `numeric(28,4)`
    Numeric,
    /// `date`
    Date,
    /// `timestamptz`
    Timestamptz,
    /// `text collate "C"`
    Text,
    /// `uuid`
    Uuid,
    /// `jsonb`
    Jsonb,
}

/// What one cell holds. The order is the one Postgres gives the column, with null first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // each is the column type of the same name
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int4(i32),
    Int8(i64),
    Numeric(Money),
    Date(Date),
    Timestamptz(Timestamp),
    Text(Cow<'a, str>),
    Uuid(Uuid),
    Jsonb(Cow<'a, str>),
}

impl Value<'_> {
    /// The same value with nothing borrowed.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(v) => Value::Bool(v),
            Value::Int4(v) => Value::Int4(v),
            Value::Int8(v) => Value::Int8(v),
            Value::Numeric(v) => Value::Numeric(v),
            Value::Date(v) => Value::Date(v),
            Value::Timestamptz(v) => Value::Timestamptz(v),
            Value::Text(v) => Value::Text(Cow::Owned(v.into_owned())),
            Value::Uuid(v) => Value::Uuid(v),
            Value::Jsonb(v) => Value::Jsonb(Cow::Owned(v.into_owned())),
        }
    }

    /// A text from outside, such as a filter's, as a value of a column type.
    ///
    /// # Errors
    /// When the text is none; `jsonb` has no such texts.
    pub fn parse(column_type: ColumnType, text: &str) -> Result<Value<'static>, Invalid> {
        let wrong = |what: &str| Invalid::new("wrong-type", format!("the value is {what}"));
        Ok(match column_type {
            ColumnType::Bool => {
                Value::Bool(text.parse().map_err(|_| wrong("not `true` or `false`"))?)
            }
            ColumnType::Int4 => {
                Value::Int4(text.parse().map_err(|_| wrong("not a 32-bit integer"))?)
            }
            ColumnType::Int8 => {
                Value::Int8(text.parse().map_err(|_| wrong("not a 64-bit integer"))?)
            }
            ColumnType::Numeric => Value::Numeric(text.parse()?),
            ColumnType::Date => {
                let plain = text.len() == 10 && text.as_bytes()[4] == b'-';
                let date = text.parse().ok().filter(|_| plain);
                Value::Date(date.ok_or_else(|| wrong("not a date such as 2010-12-01"))?)
            }
            ColumnType::Timestamptz => Value::Timestamptz(text.parse()?),
            ColumnType::Text if text.contains('\0') => return Err(wrong("not a text")),
            ColumnType::Text => Value::Text(Cow::Owned(text.to_owned())),
            ColumnType::Uuid => Value::Uuid(text.parse().map_err(|_| wrong("not a UUID"))?),
            ColumnType::Jsonb => return Err(wrong("of a column that has no filters")),
        })
    }
}

/// A cell of another type than its column.
#[derive(Debug, thiserror::Error)]
#[error("a column of type {expected:?} cannot hold {found}")]
pub struct WrongType {
    /// What the column holds.
    pub expected: ColumnType,
    /// What was found in its stead.
    pub found: String,
}

/// A type that can be a column of a read model.
///
/// `#[derive(Column)]` gives it to a newtype (as its inner type) and to an enum without fields (as
/// text).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a column of a read model",
    label = "not a column type",
    note = "a column is a bool, i32, i64, String, Money, Date, Timestamp, Uuid or Json<T>, \
        an Option of one of these, or a type of yours with #[derive(Column)]"
)]
pub trait Column: Sized {
    /// Its type in Postgres.
    const TYPE: ColumnType;
    /// Whether the column may be null.
    const NULLABLE: bool = false;
    /// The texts that the column can hold, when they are known: the variants of an enum.
    const LABELS: &'static [&'static str] = &[];
    /// The cell.
    fn value(&self) -> Value<'_>;
    /// The value of a cell.
    ///
    /// # Errors
    /// When the cell is of another type.
    fn from_value(value: Value<'_>) -> Result<Self, WrongType>;
}

macro_rules! columns {
    ($($rust:ty => $kind:ident, $own:pat => $value:expr, $cell:pat => $back:expr;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl Column for $rust {
            const TYPE: ColumnType = ColumnType::$kind;
            fn value(&self) -> Value<'_> { let $own = self; Value::$kind($value) }
            fn from_value(value: Value<'_>) -> Result<Self, WrongType> {
                match value {
                    Value::$kind($cell) => Ok($back),
                    other => Err(WrongType {
                        expected: ColumnType::$kind,
                        found: format!("{other:?}"),
                    }),
                }
            }
        }
    )*};
}
columns! {
    bool => Bool, v => *v, v => v;
    i32 => Int4, v => *v, v => v;
    i64 => Int8, v => *v, v => v;
    Money => Numeric, v => *v, v => v;
    Date => Date, v => *v, v => v;
    Timestamp => Timestamptz, v => *v, v => v;
    Uuid => Uuid, v => *v, v => v;
    String => Text, v => Cow::Borrowed(v.as_str()), v => v.into_owned();
}

impl<T: Column> Column for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = true;
    const LABELS: &'static [&'static str] = T::LABELS;
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, T::value)
    }
    fn from_value(value: Value<'_>) -> Result<Self, WrongType> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// A column of type `jsonb`, for what has no columns of its own, such as the lines of an order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> Column for Json<T> {
    const TYPE: ColumnType = ColumnType::Jsonb;
    fn value(&self) -> Value<'_> {
        Value::Jsonb(Cow::Owned(serde_json::to_string(&self.0).expect("a JSON column serializes")))
    }
    fn from_value(value: Value<'_>) -> Result<Self, WrongType> {
        let wrong = |found: String| WrongType { expected: ColumnType::Jsonb, found };
        match value {
            Value::Jsonb(text) => {
                serde_json::from_str(&text).map(Json).map_err(|e| wrong(e.to_string()))
            }
            other => Err(wrong(format!("{other:?}"))),
        }
    }
}
