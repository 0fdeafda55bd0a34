//! A `serde` deserializer over a [`Value`] that is stricter than `serde_json`'s and knows where
//! it is.
//!
//! At every level: an array is never taken for a struct, a member that the struct does not name
//! is refused (with or without `deny_unknown_fields`), a fault carries its JSON pointer. Types
//! that make `serde` buffer (`untagged`, `flatten`, `tag = "…"`) escape this inside the buffer;
//! commands do without them.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Number, Value};

use super::parse::{MAX_ERRORS, escape};
use crate::problem::{FieldError, Problem};

/// Decodes a body into its type.
///
/// # Errors
/// 422 `invalid-body` with the JSON pointer of each fault found: members missing, unknown, of
/// another type or with a value that their type refuses.
pub fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    T::deserialize(Node(value))
        .map_err(|faults| Problem::invalid_body(faults.0.into_iter().take(MAX_ERRORS).collect()))
}

/// The faults of a value; pointers are relative to where the error is at the moment.
#[derive(Debug)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn one(code: &'static str, detail: String) -> Self {
        Self(vec![FieldError::new("", code, detail)])
    }

    fn below(mut self, token: &str) -> Self {
        for fault in &mut self.0 {
            fault.pointer.insert_str(0, &format!("/{}", escape(token)));
        }
        self
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.0 {
            writeln!(f, "{}: {}", fault.pointer, fault.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl de::Error for Faults {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::one("invalid-value", message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::one("wrong-type", format!("expected {expected}, found {}", shown(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::one("invalid-value", format!("expected {expected}, found {}", shown(found)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::one("wrong-length", format!("expected {expected}, found {length} items"))
    }

    fn unknown_variant(found: &str, allowed: &'static [&'static str]) -> Self {
        let found = Unexpected::Str(found);
        let allowed = allowed.join(", ");
        Self::one("unknown-value", format!("{} is none of: {allowed}", shown(found)))
    }

    fn unknown_field(found: &str, allowed: &'static [&'static str]) -> Self {
        Self::one("unknown-member", unknown_member(allowed)).below(found)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::one("missing-member", "the member is missing".to_owned()).below(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::one("duplicate-member", "the member is given twice".to_owned()).below(name)
    }
}

fn unknown_member(allowed: &[&str]) -> String {
    format!("the member is not known; known are: {}", allowed.join(", "))
}

/// What was found, without echoing long texts.
fn shown(found: Unexpected<'_>) -> String {
    const LONGEST: usize = 64;
    match found {
        Unexpected::Str(text) if text.chars().count() > LONGEST => {
            format!("the text {:?}…", text.chars().take(LONGEST).collect::<String>())
        }
        Unexpected::Str(text) => format!("the text {text:?}"),
        Unexpected::Map => "an object".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Float(number) => format!("the number {number:?} with a fraction or exponent"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Bool(value) => value.to_string(),
        other => other.to_string(),
    }
}

/// One value of the body.
#[derive(Clone, Copy)]
struct Node<'de>(&'de Value);

impl<'de> Node<'de> {
    fn found(self) -> Unexpected<'de> {
        match self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(number) => number
                .as_i64()
                .map(Unexpected::Signed)
                .or_else(|| number.as_u64().map(Unexpected::Unsigned))
                .unwrap_or_else(|| Unexpected::Float(number.as_f64().unwrap_or(f64::NAN))),
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        }
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Faults> {
    if let Some(value) = number.as_i64() {
        visitor.visit_i64(value)
    } else if number.is_u64() {
        let why = format!("{number} is beyond the largest integer, {}", i64::MAX);
        Err(Faults::one("out-of-range", why))
    } else {
        visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Faults;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Faults> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => visit_number(number, visitor),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => {
                let mut access = Items { items, next: 0 };
                let value = visitor.visit_seq(&mut access)?;
                if access.next == items.len() {
                    return Ok(value);
                }
                Err(Faults::one("wrong-length", format!("{} items are too many", items.len())))
            }
            Value::Object(members) => visitor.visit_map(Members::new(members)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Faults> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Faults> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Faults> {
        let Value::Object(members) = self.0 else {
            return Err(de::Error::invalid_type(self.found(), &"an object"));
        };
        let unknown: Vec<_> = members
            .keys()
            .filter(|name| !fields.contains(&name.as_str()))
            .flat_map(|name| <Faults as de::Error>::unknown_field(name, fields).0)
            .collect();
        if !unknown.is_empty() {
            return Err(Faults(unknown));
        }
        visitor.visit_map(Members::new(members))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Faults> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(Variant { name, content: None }),
            Value::Object(members) => {
                let mut all = members.iter();
                match (all.next(), all.next()) {
                    (Some((name, content)), None) => {
                        visitor.visit_enum(Variant { name, content: Some(Node(content)) })
                    }
                    (_, _) => Err(Faults::one(
                        "wrong-type",
                        "expected an object with exactly one member".to_owned(),
                    )),
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                Err(de::Error::invalid_type(self.found(), &"a text or an object"))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Faults> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

impl<'de> IntoDeserializer<'de, Faults> for Node<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items<'de> {
    items: &'de [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for &mut Items<'de> {
    type Error = Faults;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Faults> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Node(item)).map(Some).map_err(|faults| faults.below(&index.to_string()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Members<'de> {
    members: serde_json::map::Iter<'de>,
    current: Option<(&'de str, &'de Value)>,
}

impl<'de> Members<'de> {
    fn new(members: &'de Map<String, Value>) -> Self {
        Self { members: members.iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Faults;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Faults> {
        let Some((name, value)) = self.members.next() else { return Ok(None) };
        self.current = Some((name, value));
        let key = StrDeserializer::<Faults>::new(name);
        seed.deserialize(key).map(Some).map_err(|faults| faults.below(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Faults> {
        let Some((name, value)) = self.current.take() else {
            return Err(de::Error::custom("a value without its name"));
        };
        seed.deserialize(Node(value)).map_err(|faults| faults.below(name))
    }
}

struct Variant<'de> {
    name: &'de str,
    content: Option<Node<'de>>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Faults;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Faults> {
        let name = StrDeserializer::<Faults>::new(self.name);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> Variant<'de> {
    fn content(&self) -> Result<Node<'de>, Faults> {
        let missing = || Faults::one("wrong-type", format!("{} needs content", self.name));
        self.content.ok_or_else(missing)
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Faults;

    fn unit_variant(self) -> Result<(), Faults> {
        match self.content {
            None => Ok(()),
            Some(node) if node.0.is_null() => Ok(()),
            Some(node) => Err(<Faults as de::Error>::invalid_type(node.found(), &"null"))
                .map_err(|faults| faults.below(self.name)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Faults> {
        seed.deserialize(self.content()?).map_err(|faults| faults.below(self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Faults> {
        self.content()?.deserialize_any(visitor).map_err(|faults| faults.below(self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Faults> {
        let content = self.content()?;
        content.deserialize_struct("", fields, visitor).map_err(|faults| faults.below(self.name))
    }
}
