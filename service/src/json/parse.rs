//! Strict JSON: what `serde_json` lets through and JSON for commands must not.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::problem::{FieldError, Problem, ProblemKind};

/// How deep arrays and objects may be nested.
pub(super) const MAX_DEPTH: usize = 32;
/// How many faults one answer lists.
pub(super) const MAX_ERRORS: usize = 20;

/// Parses one JSON value strictly.
///
/// # Errors
/// 400 where it is not strict JSON, 422 where strings hold control characters.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(malformed("it begins with a byte order mark"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(malformed("it is empty"));
    }
    let found = RefCell::new(Found::default());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let root = Node { found: &found, place: Place::Root, depth: 0 };
    let parsed = root.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    let found = found.into_inner();
    match (parsed, found.fatal) {
        (_, Some(fault)) => Err(malformed(&fault.detail).error(fault)),
        (Err(error), None) => Err(malformed(&error.to_string())),
        (Ok(_), None) if !found.faults.is_empty() => Err(Problem::invalid_body(found.faults)),
        (Ok(value), None) => Ok(value),
    }
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ProblemKind::MalformedJson).detail(format!("the body: {detail}"))
}

#[derive(Default)]
struct Found {
    /// What makes the whole text unacceptable.
    fatal: Option<FieldError>,
    /// What makes single strings unacceptable.
    faults: Vec<FieldError>,
}

/// Where the reader is; a chain on the stack, written out only for a fault.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Member(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        match self {
            Place::Root => String::new(),
            Place::Member(parent, name) => format!("{}/{}", parent.pointer(), escape(name)),
            Place::Item(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

/// A member name as a token of a JSON pointer, without control characters.
pub(super) fn escape(name: &str) -> String {
    let name = name.replace('~', "~0").replace('/', "~1");
    if name.chars().any(char::is_control) { name.escape_default().to_string() } else { name }
}

struct Node<'a> {
    found: &'a RefCell<Found>,
    place: Place<'a>,
    depth: usize,
}

impl Node<'_> {
    fn fatal<E: serde::de::Error>(&self, pointer: String, code: &'static str, why: String) -> E {
        self.found.borrow_mut().fatal = Some(FieldError::new(pointer, code, why));
        E::custom("refused")
    }

    fn check_text(&self, text: &str) {
        // A byte below 0x20 is a control character wherever it stands in UTF-8.
        let Some(control) = text.bytes().find(|byte| *byte < 0x20) else { return };
        let mut found = self.found.borrow_mut();
        if found.faults.len() < MAX_ERRORS {
            let why = format!("the control character U+{control:04X} is not allowed in text");
            found.faults.push(FieldError::new(self.place.pointer(), "control-character", why));
        }
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth < MAX_DEPTH {
            return Ok(());
        }
        let why = format!("arrays and objects are nested more than {MAX_DEPTH} deep");
        Err(self.fatal(self.place.pointer(), "too-deep", why))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        self.check_text(value);
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        self.check_text(&value);
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut values = Vec::new();
        loop {
            let place = Place::Item(&self.place, values.len());
            let node = Node { found: self.found, place, depth: self.depth + 1 };
            match items.next_element_seed(node)? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let place = Place::Member(&self.place, &name);
            let node = Node { found: self.found, place, depth: self.depth + 1 };
            node.check_text(&name);
            if object.contains_key(&name) {
                let why = format!("the member {:?} is given twice", name);
                return Err(self.fatal(place.pointer(), "duplicate-member", why));
            }
            let value = members.next_value_seed(node)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}
