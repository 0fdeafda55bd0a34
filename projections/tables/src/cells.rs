//! Cells as Postgres takes them: as a parameter, in an array, in COPY; and cells of an answer.

use crate::{TableError, numeric};
use foldstream_core::{Cells, ColumnDef, ColumnType, Timestamp, Value};
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueFormat, Postgres};
use sqlx::types::chrono::{DateTime, NaiveDate, Utc};
use sqlx::types::{Uuid, chrono};
use sqlx::{Arguments, Row, Type, ValueRef};
use std::borrow::Cow;

/// One match to write a cell…
fn encode(value: &Value<'_>, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
    match value {
        Value::Null => Ok(IsNull::Yes),
        Value::Bool(v) => Encode::<Postgres>::encode_by_ref(v, buffer),
        Value::Int4(v) => Encode::<Postgres>::encode_by_ref(v, buffer),
        Value::Int8(v) => Encode::<Postgres>::encode_by_ref(v, buffer),
        Value::Numeric(v) => {
            numeric::encode(*v, buffer);
            Ok(IsNull::No)
        }
        Value::Date(v) => Encode::<Postgres>::encode_by_ref(v, buffer),
        Value::Timestamptz(v) => Encode::<Postgres>::encode(v.utc(), buffer),
        Value::Text(v) => Encode::<Postgres>::encode(v.as_ref(), buffer),
        Value::Uuid(v) => Encode::<Postgres>::encode_by_ref(v, buffer),
        Value::Jsonb(v) => {
            // The version of jsonb; sqlx's own `Json` grows a list of patches with every value.
            buffer.push(1);
            buffer.extend_from_slice(v.as_bytes());
            Ok(IsNull::No)
        }
    }
}

/// …one to say what it is, alone and in an array…
fn types(column_type: ColumnType) -> (PgTypeInfo, PgTypeInfo) {
    fn of<T: Type<Postgres>>() -> (PgTypeInfo, PgTypeInfo)
    where
        Vec<T>: Type<Postgres>,
    {
        (T::type_info(), Vec::<T>::type_info())
    }
    match column_type {
        ColumnType::Bool => of::<bool>(),
        ColumnType::Int4 => of::<i32>(),
        ColumnType::Int8 => of::<i64>(),
        ColumnType::Numeric => of::<sqlx::types::Decimal>(),
        ColumnType::Date => of::<NaiveDate>(),
        ColumnType::Timestamptz => of::<DateTime<Utc>>(),
        ColumnType::Text => of::<String>(),
        ColumnType::Uuid => of::<Uuid>(),
        ColumnType::Jsonb => of::<sqlx::types::Json<()>>(),
    }
}

/// …and one to read it back: the cell at this place of an answer to a prepared statement.
///
/// # Errors
/// When the cell is of another type, or an amount past what `Money` holds.
pub fn decode(
    row: &PgRow,
    place: usize,
    column_type: ColumnType,
) -> Result<Value<'_>, sqlx::Error> {
    let cell = match column_type {
        ColumnType::Bool => row.try_get::<Option<_>, _>(place)?.map(Value::Bool),
        ColumnType::Int4 => row.try_get::<Option<_>, _>(place)?.map(Value::Int4),
        ColumnType::Int8 => row.try_get::<Option<_>, _>(place)?.map(Value::Int8),
        ColumnType::Numeric => amount(row, place)?,
        ColumnType::Date => row.try_get::<Option<chrono::NaiveDate>, _>(place)?.map(Value::Date),
        ColumnType::Timestamptz => row
            .try_get::<Option<DateTime<Utc>>, _>(place)?
            .map(|v| Value::Timestamptz(Timestamp::from(v))),
        ColumnType::Text => {
            row.try_get::<Option<&str>, _>(place)?.map(|v| Value::Text(Cow::Borrowed(v)))
        }
        ColumnType::Uuid => row.try_get::<Option<_>, _>(place)?.map(Value::Uuid),
        ColumnType::Jsonb => row
            .try_get::<Option<sqlx::types::Json<&serde_json::value::RawValue>>, _>(place)?
            .map(|v| Value::Jsonb(Cow::Borrowed(v.0.get()))),
    };
    Ok(cell.unwrap_or(Value::Null))
}

fn amount(row: &PgRow, place: usize) -> Result<Option<Value<'static>>, sqlx::Error> {
    let cell = row.try_get_raw(place)?;
    if cell.is_null() {
        return Ok(None);
    }
    let wrong = |what: &str| sqlx::Error::Decode(format!("column {place} {what}").into());
    if cell.format() != PgValueFormat::Binary {
        return Err(wrong("is not of a prepared statement"));
    }
    let bytes = cell.as_bytes().map_err(sqlx::Error::Decode)?;
    let amount = numeric::decode(bytes).ok_or_else(|| wrong("is no amount"))?;
    Ok(Some(Value::Numeric(amount)))
}

/// The cells of a row whose columns these are, the first of them at place `from`.
///
/// # Errors
/// When a cell is of another type.
pub fn decode_row<'r>(
    row: &'r PgRow,
    from: usize,
    columns: impl IntoIterator<Item = &'static ColumnDef>,
) -> Result<Vec<Value<'r>>, sqlx::Error> {
    let columns = columns.into_iter().enumerate();
    columns.map(|(i, column)| decode(row, from + i, column.column_type)).collect()
}

/// Four bytes of length, then the cell: an element of an array or a field of COPY.
pub(crate) fn put(value: &Value<'_>, buffer: &mut PgArgumentBuffer) -> Result<(), BoxDynError> {
    let start = buffer.len();
    buffer.extend_from_slice(&(-1_i32).to_be_bytes());
    if let IsNull::No = encode(value, buffer)? {
        let length = i32::try_from(buffer.len() - start - 4)?;
        buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// One cell as a parameter of a statement: `query.bind(Cell { value, column_type })`.
#[derive(Debug, Clone)]
pub struct Cell<'a> {
    /// What it holds.
    pub value: Value<'a>,
    /// The type of the column it is compared with; also that of a null.
    pub column_type: ColumnType,
}
impl Type<Postgres> for Cell<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown") // never asked: `produces` knows
    }
}
impl Encode<'_, Postgres> for Cell<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(types(self.column_type).0)
    }
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        encode(&self.value, buffer)
    }
}

/// Some cells of one type as an array parameter, such as the values of an `in` filter.
#[derive(Debug, Clone)]
pub struct CellArray<'a> {
    /// What it holds.
    pub values: Vec<Value<'a>>,
    /// The type of them all.
    pub column_type: ColumnType,
}
impl Type<Postgres> for CellArray<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown")
    }
}
impl Encode<'_, Postgres> for CellArray<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(types(self.column_type).1)
    }
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        begin_array(self.column_type, self.values.len(), buffer)?;
        self.values.iter().try_for_each(|value| put(value, buffer))?;
        Ok(IsNull::No)
    }
}

/// One column of some rows as an array parameter.
struct ColumnArray<'a> {
    cells: &'a dyn Cells,
    column: usize,
    column_type: ColumnType,
}
impl Type<Postgres> for ColumnArray<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown")
    }
}
impl Encode<'_, Postgres> for ColumnArray<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(types(self.column_type).1)
    }
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        begin_array(self.column_type, self.cells.rows(), buffer)?;
        for row in 0..self.cells.rows() {
            put(&self.cells.value(row, self.column), buffer)?;
        }
        Ok(IsNull::No)
    }
}
fn begin_array(
    column_type: ColumnType,
    length: usize,
    buffer: &mut PgArgumentBuffer,
) -> Result<(), BoxDynError> {
    let element = types(column_type).0.oid().ok_or("a built-in type has an oid")?;
    buffer.extend_from_slice(&1_i32.to_be_bytes()); // dimensions
    buffer.extend_from_slice(&1_i32.to_be_bytes()); // there may be nulls
    buffer.extend_from_slice(&element.0.to_be_bytes());
    buffer.extend_from_slice(&i32::try_from(length)?.to_be_bytes());
    buffer.extend_from_slice(&1_i32.to_be_bytes()); // first index
    Ok(())
}

/// One array per column: the parameters of the statements that take many rows.
///
/// # Errors
/// When a cell cannot be written.
pub(crate) fn arrays(
    cells: &dyn Cells,
    columns: impl Iterator<Item = &'static ColumnDef>,
) -> Result<PgArguments, TableError> {
    let mut arguments = PgArguments::default();
    for (column, definition) in columns.enumerate() {
        let array = ColumnArray { cells, column, column_type: definition.column_type };
        arguments.add(array).map_err(TableError::Encode)?;
    }
    Ok(arguments)
}
