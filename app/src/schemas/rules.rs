//! What may follow what: the rules for a newer schema of an event, each with its name.

use super::Published;
use foldstream_core::wire_form;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

pub(super) const FILE: &str = "file";
pub(super) const UP_TO_DATE: &str = "up-to-date";
pub(super) const RECURSIVE: &str = "recursive-type";
pub(super) const RECORD_MOVED: &str = "record-moved";
pub(super) const EVENT_GONE: &str = "event-gone";
const NO_DEFAULT: &str = "field-without-default";
const SYMBOL_REMOVED: &str = "symbol-removed";
const NAME_REUSED: &str = "name-reused";
const UNREADABLE: &str = "new-reads-old";
const FORWARD: &str = "old-reads-new";

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// The file or the folder, or the subject in a registry.
    pub(crate) file: String,
    /// The field, with those it lies in; empty where it is about the whole.
    pub(crate) field: String,
    /// The rule's name.
    pub(crate) rule: &'static str,
    /// The rule in words.
    pub(crate) message: String,
}
impl Fault {
    pub(super) fn new(
        file: impl Into<String>,
        field: impl Into<String>,
        rule: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Fault { file: file.into(), field: field.into(), rule, message: message.into() }
    }
}
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { file, field, rule, message } = self;
        match field.as_str() {
            "" => write!(f, "{file}: {message} [{rule}]"),
            field => write!(f, "{file}: field `{field}`: {message} [{rule}]"),
        }
    }
}

/// An older schema of an event.
pub(super) struct Older {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) schema: Value,
}

/// What stands against the code's schema following these, oldest first.
pub(super) fn new_reads_old(older: &[Older], new: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    for old in older {
        let mut walk = Walk { file: &old.file, faults: Vec::new() };
        walk.pair(&At::root(&old.schema), &At::root(new), "");
        // What the rules do not know by name, the registry's own comparison finds.
        if walk.faults.is_empty() {
            match foldstream_registry::cannot_read(&new.to_string(), &old.text) {
                Ok(None) => {}
                Ok(Some(reason)) | Err(reason) => {
                    walk.faults.push(Fault::new(&old.file, "", UNREADABLE, reason));
                }
            }
        }
        faults.extend(walk.faults);
    }
    faults.extend(reused(older, new));
    faults
}

/// What code with an older schema could not read of what the new one writes.
pub(super) fn old_reads_new(older: &[Older], new: &Value) -> Vec<Fault> {
    let note = |old: &Older| {
        let reason = foldstream_registry::cannot_read(&old.text, &new.to_string());
        let reason = reason.unwrap_or_else(Some)?.replace("the new schema", "older code");
        let reason = reason.replace("the old one", "this one");
        Some(Fault::new(&old.file, "", FORWARD, reason))
    };
    older.iter().filter_map(note).collect()
}

/// Types of one name that are two: they would mean one thing here and another there.
pub(super) fn shared_names(events: &[Published]) -> Vec<Fault> {
    let mut known: BTreeMap<String, (Value, &str)> = BTreeMap::new();
    let mut faults = Vec::new();
    for event in events {
        for (name, definition) in definitions(&event.schema.json) {
            match known.get(&name) {
                None => drop(known.insert(name, (definition, event.schema.name))),
                Some((other, _)) if *other == definition => {}
                Some((_, first)) => {
                    let why = format!(
                        "`{name}` is another type in `{first}`: one of them needs \
                                       another name"
                    );
                    let file = format!("{}/{}", event.aggregate, event.schema.name);
                    faults.push(Fault::new(file, "", NAME_REUSED, why));
                }
            }
        }
    }
    faults
}

/// Fields that were gone in between and are back as something else.
fn reused(older: &[Older], new: &Value) -> Vec<Fault> {
    let fields: Vec<BTreeMap<String, Value>> =
        older.iter().map(|old| all_fields(&old.schema)).collect();
    let mut faults = Vec::new();
    for (path, now) in all_fields(new) {
        let gone = fields.iter().rposition(|fields| !fields.contains_key(&path));
        let Some(gone) = gone else { continue };
        let before = fields[..gone].iter().rposition(|fields| fields.contains_key(&path));
        let Some(before) = before else { continue };
        if wire_form(&fields[before][&path]) != wire_form(&now) {
            let why = format!(
                "the name is used again for another type; it was gone in {}, and stored events \
                 still mean the first one: give the new field another name",
                older[gone].file
            );
            faults.push(Fault::new(&older[before].file, path, NAME_REUSED, why));
        }
    }
    faults
}

/// A place in a schema: what is there, with what it takes to look names up.
#[derive(Clone)]
struct At<'a> {
    schema: &'a Value,
    root: &'a Value,
    namespace: String,
}

impl<'a> At<'a> {
    fn root(root: &'a Value) -> Self {
        At { schema: root, root, namespace: String::new() }
    }
    fn inner(&self, schema: &'a Value, namespace: &str) -> Self {
        At { schema, root: self.root, namespace: namespace.to_owned() }
    }
    /// The definition, where only a name stands.
    fn resolved(&self) -> Self {
        let Value::String(name) = self.schema else { return self.clone() };
        let full = full(name, &self.namespace);
        find(self.root, "", &full).map_or_else(
            || self.clone(),
            |definition| {
                let space = full.rsplit_once('.').map_or("", |(space, _)| space);
                At { schema: definition, root: self.root, namespace: space.to_owned() }
            },
        )
    }
    /// The kind of type: `record`, `long`, `union`.
    fn kind(&self) -> &'a str {
        match self.schema {
            Value::Array(_) => "union",
            Value::String(name) => name,
            Value::Object(members) => match members.get("type") {
                Some(Value::String(kind)) => kind,
                Some(_) | None => "",
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => "",
        }
    }
    fn name(&self) -> String {
        name_of(self.schema, &self.namespace).unwrap_or_default()
    }
    fn branches(&self) -> Vec<At<'a>> {
        match self.schema {
            Value::Array(branches) => {
                branches.iter().map(|b| self.inner(b, &self.namespace).resolved()).collect()
            }
            _ => vec![self.clone()],
        }
    }
}

struct Walk<'a> {
    file: &'a str,
    faults: Vec<Fault>,
}

impl Walk<'_> {
    fn pair(&mut self, old: &At<'_>, new: &At<'_>, path: &str) {
        let (old, new) = (old.resolved(), new.resolved());
        match (old.kind(), new.kind()) {
            ("record", "record") => self.records(&old, &new, path),
            ("enum", "enum") => self.enums(&old, &new, path),
            ("array", "array") => self.part("items", &old, &new, path),
            ("map", "map") => self.part("values", &old, &new, path),
            ("union", _) | (_, "union") => {
                for branch in old.branches() {
                    let alike = |other: &&At<'_>| {
                        other.kind() == branch.kind() && other.name() == branch.name()
                    };
                    if let Some(partner) = new.branches().iter().find(alike) {
                        self.pair(&branch, partner, path);
                    }
                }
            }
            _ => {}
        }
    }
    fn part(&mut self, member: &str, old: &At<'_>, new: &At<'_>, path: &str) {
        if let (Some(o), Some(n)) = (old.schema.get(member), new.schema.get(member)) {
            self.pair(&old.inner(o, &old.namespace), &new.inner(n, &new.namespace), path);
        }
    }
    fn records(&mut self, old: &At<'_>, new: &At<'_>, path: &str) {
        let (was, is) = (old.name(), new.name());
        if was != is {
            let why = format!(
                "the record was `{was}` and is `{is}` now; a record's name stays: rename fields, \
                 or make a new event"
            );
            self.fault(path, RECORD_MOVED, why);
            return;
        }
        let space = is.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
        let before = fields(old.schema);
        for field in fields(new.schema) {
            let name = text(field, "name");
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let names = aliases(field);
            let partner = before
                .iter()
                .find(|old| text(old, "name") == name)
                .or_else(|| before.iter().find(|old| names.contains(&text(old, "name"))));
            match partner {
                Some(partner) => {
                    let (Some(o), Some(n)) = (partner.get("type"), field.get("type")) else {
                        continue;
                    };
                    self.pair(&old.inner(o, &space), &new.inner(n, &space), &path);
                }
                None if field.get("default").is_some() => {}
                None => {
                    let why = "new, and older events have no value for it: give it a default \
                               (`#[avro(default = \"…\")]`, or `Option`), or an alias if it was \
                               renamed (`#[serde(alias = \"…\")]`)";
                    self.fault(&path, NO_DEFAULT, why.to_owned());
                }
            }
        }
    }
    fn enums(&mut self, old: &At<'_>, new: &At<'_>, path: &str) {
        let symbols = |at: &At<'_>| -> Vec<String> {
            let symbols = at.schema.get("symbols").and_then(Value::as_array);
            symbols.into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect()
        };
        let now = symbols(new);
        let gone: Vec<String> = symbols(old).into_iter().filter(|s| !now.contains(s)).collect();
        if !gone.is_empty() && new.schema.get("default").is_none() {
            let why = format!(
                "`{}` lost {}, and stored events have it: keep it, or give the enum a default \
                 (`#[default]` at a variant)",
                new.name(),
                gone.iter().map(|symbol| format!("`{symbol}`")).collect::<Vec<_>>().join(", ")
            );
            self.fault(path, SYMBOL_REMOVED, why);
        }
    }
    fn fault(&mut self, path: &str, rule: &'static str, why: String) {
        self.faults.push(Fault::new(self.file, path, rule, why));
    }
}

fn fields(record: &Value) -> Vec<&Value> {
    record.get("fields").and_then(Value::as_array).into_iter().flatten().collect()
}
fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}
fn aliases(field: &Value) -> Vec<&str> {
    let aliases = field.get("aliases").and_then(Value::as_array);
    aliases.into_iter().flatten().filter_map(Value::as_str).collect()
}
fn full(name: &str, namespace: &str) -> String {
    match namespace {
        _ if name.contains('.') => name.to_owned(),
        "" => name.to_owned(),
        space => format!("{space}.{name}"),
    }
}
/// The full name of a definition.
fn name_of(schema: &Value, namespace: &str) -> Option<String> {
    let name = schema.get("name")?.as_str()?;
    Some(full(name, schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace)))
}

/// Every named type that a schema defines, with what it says about bytes.
fn definitions(schema: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    visit(schema, "", &mut |name, definition| found.push((name.to_owned(), wire_form(definition))));
    found
}
fn find<'a>(schema: &'a Value, namespace: &str, wanted: &str) -> Option<&'a Value> {
    let mut found = None;
    visit(schema, namespace, &mut |name, definition| {
        if name == wanted && found.is_none() {
            found = Some(definition);
        }
    });
    found
}
fn visit<'a>(schema: &'a Value, namespace: &str, seen: &mut dyn FnMut(&str, &'a Value)) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|b| visit(b, namespace, seen)),
        Value::Object(members) => {
            let named = matches!(text(schema, "type"), "record" | "enum" | "fixed");
            let name = name_of(schema, namespace).filter(|_| named);
            let space = match &name {
                Some(name) => {
                    seen(name, schema);
                    name.rsplit_once('.').map_or("", |(space, _)| space).to_owned()
                }
                None => namespace.to_owned(),
            };
            for field in fields(schema) {
                field.get("type").into_iter().for_each(|inner| visit(inner, &space, seen));
            }
            for member in ["type", "items", "values"] {
                members.get(member).into_iter().for_each(|inner| visit(inner, &space, seen));
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Every field of a schema by its path, with its type.
fn all_fields(schema: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut names = Vec::new();
    visit(schema, "", &mut |name, definition| names.push((name.to_owned(), definition)));
    let root = name_of(schema, "").unwrap_or_default();
    for (name, definition) in names {
        for field in fields(definition) {
            let own = text(field, "name");
            let short = name.rsplit('.').next().unwrap_or_default();
            let path = if name == root { own.to_owned() } else { format!("{short}.{own}") };
            found.insert(path, field.get("type").cloned().unwrap_or_default());
        }
    }
    found
}

#[cfg(test)]
mod tests;
