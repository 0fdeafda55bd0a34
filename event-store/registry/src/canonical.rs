//! The canonical text of an Avro schema, and the bounds a schema must keep.
//!
//! Two texts that differ only in white space, in the order of members, or in writing a type as
//! `"string"` or as `{"type":"string"}` are one schema and get one id. Everything else a schema
//! says is kept: documentation, defaults, aliases and attributes of its own, which Avro's
//! "parsing canonical form" would drop.
//!
//! The walk also measures a schema as if every reference in it were written out, because that is
//! the work a check of compatibility has to do, and a text of a few hundred bytes can describe
//! billions of nodes.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Nodes (types, fields, symbols) of a schema with all its references written out.
pub(crate) const MAX_NODES: u64 = 20_000;
/// Types inside types, with all references written out.
pub(crate) const MAX_DEPTH: u32 = 64;

const RECORD: &[&str] = &["type", "name", "namespace", "doc", "aliases", "fields"];
const ENUM: &[&str] = &["type", "name", "namespace", "doc", "aliases", "symbols", "default"];
const FIXED: &[&str] = &["type", "name", "namespace", "doc", "aliases", "size"];
const ARRAY: &[&str] = &["type", "items", "default"];
const MAP: &[&str] = &["type", "values", "default"];
const FIELD: &[&str] = &["name", "type", "doc", "default", "order", "aliases"];
const PRIMITIVES: &[&str] =
    &["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

#[derive(Clone, Copy)]
struct Size {
    nodes: u64,
    depth: u32,
}

impl Size {
    const LEAF: Self = Self { nodes: 1, depth: 1 };

    fn add(&mut self, inner: Self) {
        self.nodes = self.nodes.saturating_add(inner.nodes);
        self.depth = self.depth.max(inner.depth.saturating_add(1));
    }
}

/// The canonical text of a schema.
///
/// Whether the JSON is a valid schema at all is left to the Avro parser: what this walk does not
/// understand it copies.
///
/// # Errors
/// A sentence for the client when the schema is larger or deeper than the bounds allow.
pub(crate) fn canonical_text(schema: &Value) -> Result<String, String> {
    let mut walk = Walk { text: String::new(), types: HashMap::new() };
    let size = walk.schema(schema, "")?;
    if size.nodes > MAX_NODES {
        return Err(format!(
            "with all references written out it has more than {MAX_NODES} types, fields and \
             symbols"
        ));
    }
    Ok(walk.text)
}

struct Walk {
    text: String,
    /// Sizes of the named types seen so far; `None` while one is being read.
    types: HashMap<String, Option<Size>>,
}

impl Walk {
    fn schema(&mut self, schema: &Value, namespace: &str) -> Result<Size, String> {
        let size = match schema {
            Value::Object(members) => self.complex(members, namespace)?,
            Value::Array(variants) => self.list(variants, namespace, Self::schema)?,
            Value::String(name) => {
                self.plain(schema);
                self.reference(name, namespace)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                self.plain(schema);
                Size::LEAF
            }
        };
        if size.depth > MAX_DEPTH {
            return Err(format!("types are nested more than {MAX_DEPTH} deep"));
        }
        Ok(size)
    }

    fn complex(&mut self, members: &Map<String, Value>, space: &str) -> Result<Size, String> {
        let Some(Value::String(kind)) = members.get("type") else {
            return match members.get("type") {
                Some(inner) if members.len() == 1 => self.schema(inner, space),
                Some(_) | None => self.object(members, &["type"], space, &["type"]),
            };
        };
        match kind.as_str() {
            "record" | "error" => self.named(members, space, RECORD),
            "enum" => self.named(members, space, ENUM),
            "fixed" => self.named(members, space, FIXED),
            "array" => self.object(members, ARRAY, space, &["items"]),
            "map" => self.object(members, MAP, space, &["values"]),
            _ if members.len() == 1 => self.schema(&members["type"], space),
            _ => self.object(members, &["type"], space, &["type"]),
        }
    }

    fn named(
        &mut self,
        members: &Map<String, Value>,
        space: &str,
        order: &[&str],
    ) -> Result<Size, String> {
        let name = members.get("name").and_then(Value::as_str).unwrap_or_default();
        let own_space = members.get("namespace").and_then(Value::as_str).unwrap_or(space);
        let full_name = full_name(name, own_space);
        let inner_space = full_name.rsplit_once('.').map_or("", |(space, _)| space);
        self.types.insert(full_name.clone(), None);
        let size = self.object(members, order, inner_space, &["fields", "symbols"])?;
        self.types.insert(full_name.clone(), Some(size));
        Ok(size)
    }

    /// Writes an object: the members of `order` first, then the others by name. Members in
    /// `nested` hold schemas, fields or symbols.
    fn object(
        &mut self,
        members: &Map<String, Value>,
        order: &[&str],
        space: &str,
        nested: &[&str],
    ) -> Result<Size, String> {
        let mut size = Size::LEAF;
        let mut rest: Vec<&str> =
            members.keys().map(String::as_str).filter(|key| !order.contains(key)).collect();
        rest.sort_unstable();
        self.text.push('{');
        let known = order.iter().copied().filter(|key| members.contains_key(*key));
        for (place, key) in known.chain(rest).enumerate() {
            if place > 0 {
                self.text.push(',');
            }
            self.text.push_str(&Value::from(key).to_string());
            self.text.push(':');
            let inner = &members[key];
            match (nested.contains(&key), key, inner) {
                (true, "fields", Value::Array(fields)) => {
                    size.add(self.list(fields, space, Self::field)?);
                }
                (true, "symbols", Value::Array(symbols)) => {
                    size.nodes = size.nodes.saturating_add(symbols.len() as u64);
                    self.plain(inner);
                }
                (true, _, _) => size.add(self.schema(inner, space)?),
                (false, _, _) => self.plain(inner),
            }
        }
        self.text.push('}');
        Ok(size)
    }

    fn field(&mut self, field: &Value, space: &str) -> Result<Size, String> {
        if let Value::Object(members) = field {
            return self.object(members, FIELD, space, &["type"]);
        }
        self.plain(field);
        Ok(Size::LEAF)
    }

    fn list(
        &mut self,
        items: &[Value],
        space: &str,
        write: fn(&mut Self, &Value, &str) -> Result<Size, String>,
    ) -> Result<Size, String> {
        let mut size = Size::LEAF;
        self.text.push('[');
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.text.push(',');
            }
            let inner = write(self, item, space)?;
            // A list is no level of its own: only the types in it are.
            size.nodes = size.nodes.saturating_add(inner.nodes);
            size.depth = size.depth.max(inner.depth);
        }
        self.text.push(']');
        Ok(size)
    }

    fn reference(&self, name: &str, space: &str) -> Size {
        if PRIMITIVES.contains(&name) {
            return Size::LEAF;
        }
        let named = self.types.get(&full_name(name, space)).or_else(|| self.types.get(name));
        // A type inside itself is not written out again, an unknown one is the parser's business.
        named.copied().flatten().unwrap_or(Size::LEAF)
    }

    /// Copies JSON that is no schema (defaults, documentation, attributes), members sorted.
    fn plain(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_unstable_by_key(|(key, _)| key.as_str());
                self.text.push('{');
                for (place, (key, inner)) in sorted.into_iter().enumerate() {
                    if place > 0 {
                        self.text.push(',');
                    }
                    self.text.push_str(&Value::from(key.as_str()).to_string());
                    self.text.push(':');
                    self.plain(inner);
                }
                self.text.push('}');
            }
            Value::Array(items) => {
                self.text.push('[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        self.text.push(',');
                    }
                    self.plain(item);
                }
                self.text.push(']');
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.text.push_str(&value.to_string());
            }
        }
    }
}

fn full_name(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() { name.to_owned() } else { format!("{space}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Result<String, String> {
        canonical_text(&serde_json::from_str(text).expect("the test's own JSON"))
    }

    #[test]
    fn layout_order_and_spelling_of_primitives_do_not_count() {
        let plain =
            r#"{"type":"record","name":"A","doc":"d","fields":[{"name":"x","type":"int"}]}"#;
        for other in [
            r#"{ "fields" : [ { "type" : "int", "name" : "x" } ], "doc":"d", "name":"A",
                 "type" : "record" }"#,
            r#"{"type":"record","name":"A","doc":"d",
                "fields":[{"name":"x","type":{"type":"int"}}]}"#,
        ] {
            assert_eq!(canonical(other).as_deref(), Ok(plain));
        }
        assert_eq!(canonical(plain).as_deref(), Ok(plain));
    }

    #[test]
    fn what_a_schema_says_is_kept() {
        for text in [
            concat!(
                r#"{"type":"record","name":"A","aliases":["B"],"fields":[{"name":"x","#,
                r#""type":{"type":"bytes","logicalType":"decimal","precision":28,"#,
                r#""scale":4},"doc":"net","default":"\u0000","aliases":["y"],"#,
                r#""unit":"GBP"}],"since":2}"#,
            ),
            r#"{"type":"enum","name":"E","symbols":["B","A"],"default":"A"}"#,
            r#"["null",{"type":"map","values":{"type":"array","items":"string"}}]"#,
            r#"{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}"#,
            r#""string""#,
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn defaults_are_no_schemas() {
        let text = concat!(
            r#"{"type":"record","name":"A","fields":[{"name":"x","#,
            r#""type":{"type":"map","values":"string"},"default":{"type":"int"}}]}"#,
        );
        assert_eq!(canonical(text).as_deref(), Ok(text));
    }

    #[test]
    fn a_text_that_describes_too_much_is_refused() {
        let mut doubling = r#"[{"type":"record","name":"T0","fields":[]}"#.to_owned();
        for n in 1..40 {
            let inner = n - 1;
            doubling += &format!(
                r#",{{"type":"record","name":"T{n}","fields":[{{"name":"l","type":"T{inner}"}},
                    {{"name":"r","type":"T{inner}"}}]}}"#
            );
        }
        assert!(canonical(&(doubling + "]")).is_err());
        let mut chain = r#"[{"type":"record","name":"n.T0","fields":[]}"#.to_owned();
        for n in 1..5_000 {
            let inner = n - 1;
            chain += &format!(
                r#",{{"type":"record","name":"n.T{n}",
                    "fields":[{{"name":"l","type":"T{inner}"}}]}}"#
            );
        }
        assert!(canonical(&(chain + "]")).is_err());
    }
}
