//! Whether bytes are one whole datum of a schema: checked before anything is decoded, because the
//! Avro library takes missing bytes for nulls, reserves what a length field asks for and does not
//! look at what follows the datum.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, ResolvedSchema, UuidSchema};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One event holds no more values, of all kinds together: what it takes in memory is bounded.
pub const MAX_VALUES: usize = 1_000_000;
/// Types inside types go no deeper.
const MAX_DEPTH: usize = 20;
/// Values that a datum of no bytes may have; every byte allows some more.
const FREE_VALUES: usize = 4_096;
const VALUES_PER_BYTE: usize = 8;
/// A decimal has no more bytes: far more than any amount needs.
const MAX_DECIMAL_BYTES: usize = 256;

/// What a schema says about bytes. Named types are shared, so it is as small as the schema's text.
#[derive(Debug)]
pub(crate) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    /// So many bytes, whatever they are.
    Fixed(usize),
    Bytes,
    Decimal,
    Text,
    /// So many symbols.
    Enum(usize),
    Array(Arc<Shape>),
    Map(Arc<Shape>),
    Union(Vec<Arc<Shape>>),
    Record(Vec<Arc<Shape>>),
}

impl Shape {
    /// The shape of a schema.
    ///
    /// # Errors
    /// When the schema is recursive, too deep, or has values without bounds.
    pub(crate) fn of(schema: &Schema) -> Result<Arc<Self>, String> {
        let names = ResolvedSchema::try_from(schema).map_err(|error| error.to_string())?;
        let definitions = names.get_names();
        let find = |name: &str| {
            let found = definitions.iter().find(|(known, _)| known.fullname(None) == name);
            found.map(|(_, schema)| *schema)
        };
        Compiler { find: &find, done: BTreeMap::new(), open: Vec::new() }.shape(schema, "", 0)
    }

    /// Whether these bytes are one datum of this shape and nothing else.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn check(&self, datum: &[u8]) -> Result<(), String> {
        let by_size = datum.len().saturating_mul(VALUES_PER_BYTE).saturating_add(FREE_VALUES);
        let mut walk = Walk { rest: datum, values: by_size.min(MAX_VALUES) };
        let done = walk.one(self);
        let at = datum.len() - walk.rest.len();
        match done {
            Err(fault) => Err(format!("{} at byte {at}", fault.text())),
            Ok(()) if !walk.rest.is_empty() => {
                Err(format!("{} bytes after the end of the record", walk.rest.len()))
            }
            Ok(()) => Ok(()),
        }
    }
}

struct Compiler<'a> {
    find: &'a dyn Fn(&str) -> Option<&'a Schema>,
    done: BTreeMap<String, Arc<Shape>>,
    /// The named types that are being looked at.
    open: Vec<String>,
}

impl Compiler<'_> {
    fn shape(
        &mut self,
        schema: &Schema,
        namespace: &str,
        depth: usize,
    ) -> Result<Arc<Shape>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("types are nested more than {MAX_DEPTH} deep"));
        }
        let space = Some(namespace).filter(|space| !space.is_empty());
        let shape = match schema {
            Schema::Null => Shape::Null,
            Schema::Boolean => Shape::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Shape::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Shape::Long,
            Schema::Float => Shape::Fixed(4),
            Schema::Double => Shape::Fixed(8),
            Schema::Bytes => Shape::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Shape::Text,
            Schema::Uuid(UuidSchema::Bytes) => Shape::Bytes,
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed)) => Shape::Fixed(fixed.size),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Shape::Decimal,
                InnerDecimalSchema::Fixed(fixed) if fixed.size == 0 => {
                    return Err("a decimal of no bytes".into());
                }
                InnerDecimalSchema::Fixed(fixed) => Shape::Fixed(fixed.size),
            },
            // Its exponent is any number of 64 bits: written out it has no bound.
            Schema::BigDecimal => return Err("`big-decimal` is refused; use `decimal`".into()),
            Schema::Enum(symbols) => Shape::Enum(symbols.symbols.len()),
            Schema::Array(array) => Shape::Array(self.shape(&array.items, namespace, depth + 1)?),
            Schema::Map(map) => Shape::Map(self.shape(&map.types, namespace, depth + 1)?),
            Schema::Union(union) => {
                let variants = union.variants().iter();
                let shapes = variants.map(|variant| self.shape(variant, namespace, depth + 1));
                Shape::Union(shapes.collect::<Result<_, _>>()?)
            }
            Schema::Ref { name } => return self.named(&name.fullname(space), depth),
            Schema::Record(record) => {
                let name = record.name.fullname(space);
                let inner = name.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
                self.open.push(name.clone());
                let fields = record.fields.iter();
                let shapes = fields.map(|field| self.shape(&field.schema, &inner, depth + 1));
                let shape = Arc::new(Shape::Record(shapes.collect::<Result<_, _>>()?));
                self.open.pop();
                self.done.insert(name, shape.clone());
                return Ok(shape);
            }
        };
        Ok(Arc::new(shape))
    }

    fn named(&mut self, name: &str, depth: usize) -> Result<Arc<Shape>, String> {
        if self.open.iter().any(|open| open == name) {
            return Err(format!("`{name}` holds itself; recursive types are refused"));
        }
        if let Some(shape) = self.done.get(name) {
            return Ok(shape.clone());
        }
        let schema = (self.find)(name).ok_or_else(|| format!("`{name}` is not defined"))?;
        let namespace = name.rsplit_once('.').map_or("", |(space, _)| space);
        self.shape(schema, namespace, depth + 1)
    }
}

/// What can be wrong; made into text only when it is.
#[derive(Debug, Clone, Copy)]
enum Fault {
    End,
    LongNumber,
    OutOfRange,
    Boolean,
    Length,
    Text,
    Symbol,
    Branch,
    Block,
    TooMany,
}
impl Fault {
    fn text(self) -> &'static str {
        match self {
            Fault::End => "the bytes end before the record does",
            Fault::LongNumber => "an over-long number",
            Fault::OutOfRange => "a number that does not fit its type",
            Fault::Boolean => "a boolean that is neither 0 nor 1",
            Fault::Length => "a length that is negative or past the end",
            Fault::Text => "text that is not UTF-8",
            Fault::Symbol => "no symbol of the enum",
            Fault::Branch => "no branch of the union",
            Fault::Block => "a block that is not as long as it says",
            Fault::TooMany => "more values than an event may hold",
        }
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    /// How many values may still come.
    values: usize,
}

impl<'a> Walk<'a> {
    fn one(&mut self, shape: &Shape) -> Result<(), Fault> {
        self.values = self.values.checked_sub(1).ok_or(Fault::TooMany)?;
        match shape {
            Shape::Null => Ok(()),
            Shape::Boolean => match self.take(1)? {
                [0 | 1] => Ok(()),
                _ => Err(Fault::Boolean),
            },
            Shape::Int => i32::try_from(self.long()?).map(drop).map_err(|_| Fault::OutOfRange),
            Shape::Long => self.long().map(drop),
            Shape::Fixed(size) => self.take(*size).map(drop),
            Shape::Bytes => self.bytes().map(drop),
            Shape::Decimal => match self.bytes()?.len() {
                1..=MAX_DECIMAL_BYTES => Ok(()),
                _ => Err(Fault::Length),
            },
            Shape::Text => self.text(),
            Shape::Enum(symbols) => match usize::try_from(self.long()?) {
                Ok(index) if index < *symbols => Ok(()),
                Ok(_) | Err(_) => Err(Fault::Symbol),
            },
            Shape::Array(items) => self.blocks(|walk| walk.one(items)),
            Shape::Map(values) => self.blocks(|walk| {
                walk.text()?;
                walk.one(values)
            }),
            Shape::Union(branches) => {
                let index = usize::try_from(self.long()?).map_err(|_| Fault::Branch)?;
                self.one(branches.get(index).ok_or(Fault::Branch)?)
            }
            Shape::Record(fields) => fields.iter().try_for_each(|field| self.one(field)),
        }
    }

    /// The blocks of an array or a map, up to the empty one.
    fn blocks(&mut self, item: impl Fn(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let size = if count < 0 { Some(self.length()?) } else { None };
            let count = usize::try_from(count.unsigned_abs()).map_err(|_| Fault::TooMany)?;
            if count > self.values {
                return Err(Fault::TooMany);
            }
            let before = self.rest.len();
            for _ in 0..count {
                item(self)?;
            }
            if size.is_some_and(|size| before - self.rest.len() != size) {
                return Err(Fault::Block);
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Fault::End)?;
        self.rest = rest;
        Ok(taken)
    }
    fn length(&mut self) -> Result<usize, Fault> {
        let length = usize::try_from(self.long()?).map_err(|_| Fault::Length)?;
        if length <= self.rest.len() { Ok(length) } else { Err(Fault::Length) }
    }
    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.length()?;
        self.take(length)
    }
    fn text(&mut self) -> Result<(), Fault> {
        std::str::from_utf8(self.bytes()?).map(drop).map_err(|_| Fault::Text)
    }
    /// A number in Avro's variable-length, zig-zag form, as short as it can be.
    fn long(&mut self) -> Result<i64, Fault> {
        let mut number = 0_u64;
        for place in 0..10 {
            let [byte] = *self.take(1)? else { return Err(Fault::End) };
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if place == 9 && bits > 1 {
                return Err(Fault::LongNumber);
            }
            number |= bits << (7 * place);
            if byte & 0x80 == 0 {
                if byte == 0 && place > 0 {
                    return Err(Fault::LongNumber);
                }
                return Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()));
            }
        }
        Err(Fault::LongNumber)
    }
}
