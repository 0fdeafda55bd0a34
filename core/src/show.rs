use crate::{ReadModel, Value};
use serde::{Serialize, Serializer, ser::Error as _, ser::SerializeMap};

/// A row as the API and the exports show it: all columns but the hidden ones.
pub struct Shown<'a, R>(pub &'a R);

impl<R: ReadModel> Serialize for Shown<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (i, column) in R::TABLE.columns.iter().enumerate().filter(|(_, column)| !column.hidden)
        {
            map.serialize_entry(column.name, &self.0.value(i))?;
        }
        map.end()
    }
}
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_none(),
            Value::Bool(v) => v.serialize(serializer),
            Value::Int4(v) => v.serialize(serializer),
            Value::Int8(v) => v.serialize(serializer),
            Value::Numeric(v) => v.serialize(serializer),
            Value::Date(v) => v.serialize(serializer),
            Value::Timestamptz(v) => v.serialize(serializer),
            Value::Text(v) => v.serialize(serializer),
            Value::Uuid(v) => v.serialize(serializer),
            Value::Jsonb(v) => serde_json::from_str::<serde_json::Value>(v)
                .map_err(S::Error::custom)?
                .serialize(serializer),
        }
    }
}
