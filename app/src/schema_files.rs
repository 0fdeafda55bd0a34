//! The schemas of the events as files: `<dir>/<topic>/<Event>/<n>.avsc`, numbered, committed.
//! Older numbers never change; the newest is what the code has, and reads all older ones.

use crate::{App, Failure};
use foldstream_core::EventSchema;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes what is missing, or says what is wrong.
pub(crate) fn generate(app: &App, dir: &Path, check: bool) -> Result<ExitCode, Failure> {
    let mut faults = Vec::new();
    let mut written = 0;
    for aggregate in app.services.iter().flat_map(crate::Service::aggregates) {
        for schema in aggregate.events() {
            let folder = dir.join(aggregate.name()).join(schema.name);
            match one(&folder, schema, check) {
                Ok(Some(file)) if check => faults.push(format!(
                    "{} is missing or not as the code has it: run `cargo x schemas`",
                    file.display()
                )),
                Ok(Some(file)) => {
                    println!("wrote {}", file.display());
                    written += 1;
                }
                Ok(None) => {}
                Err(fault) => faults.push(fault),
            }
        }
    }
    if faults.is_empty() {
        if !check && written == 0 {
            println!("all schemas are up to date");
        }
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::failed(faults.join("\n")))
}

/// The file that is, or would be, written; none when all is as it must be.
fn one(folder: &Path, schema: &EventSchema, check: bool) -> Result<Option<PathBuf>, String> {
    if let Some(name) = recursive(&schema.json, &mut Vec::new()) {
        return Err(format!("{}: `{name}` holds itself; recursive types are refused", schema.name));
    }
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let older = numbered(folder).map_err(|error| failed(folder, error))?;
    let text = format!("{:#}\n", sorted(&schema.json));
    for (_, path) in &older {
        let before = fs::read_to_string(path).map_err(|error| failed(path, error))?;
        let fault = |reason: &str| format!("{}: {reason}", path.display());
        match foldstream_registry::cannot_read(&text, &before) {
            Ok(None) => {}
            Ok(Some(reason)) | Err(reason) => return Err(fault(&reason)),
        }
        if older.last().is_some_and(|(_, last)| last == path) && before == text {
            return Ok(None);
        }
    }
    let number = older.last().map_or(1, |(number, _)| number + 1);
    let path = folder.join(format!("{number}.avsc"));
    if !check {
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    Ok(Some(path))
}

/// Members in the order of their names, whatever order the JSON library keeps in this build.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let ordered: BTreeMap<&String, &Value> = members.iter().collect();
            ordered.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// The numbered files of a folder, in order.
fn numbered(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), Some("avsc")) = (number, path.extension().and_then(|e| e.to_str())) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The name of a record that holds itself, directly or not.
fn recursive(schema: &Value, open: &mut Vec<String>) -> Option<String> {
    match schema {
        Value::String(name) => open.contains(name).then(|| name.clone()),
        Value::Array(branches) => branches.iter().find_map(|b| recursive(b, open)),
        Value::Object(object) => {
            let name = object.get("name").and_then(|name| name.as_str()).map(|name| {
                let namespace = object.get("namespace").and_then(|n| n.as_str());
                namespace.map_or(name.to_owned(), |namespace| format!("{namespace}.{name}"))
            });
            let is_record = object.get("type").is_some_and(|t| t == "record");
            if let Some(name) = name.filter(|_| is_record) {
                open.push(name);
                let fields = object.get("fields").and_then(|f| f.as_array());
                let found = fields
                    .into_iter()
                    .flatten()
                    .find_map(|field| recursive(field.get("type")?, open));
                open.pop();
                return found;
            }
            ["type", "items", "values"]
                .iter()
                .filter_map(|member| object.get(*member))
                .find_map(|inner| recursive(inner, open))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// A table of what the code has.
pub(crate) fn list(app: &App, json: bool) -> Result<ExitCode, Failure> {
    let mut rows = Vec::new();
    for aggregate in app.services.iter().flat_map(crate::Service::aggregates) {
        let topic = format!("{}.{}", app.name, aggregate.name());
        for schema in aggregate.events() {
            rows.push((topic.clone(), subject(&topic, schema), schema));
        }
    }
    if json {
        for (topic, subject, schema) in rows {
            println!("{}", json!({ "topic": topic, "subject": subject, "schema": schema.json }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = crate::operations::table(&["topic", "subject", "event"]);
    for (topic, subject, schema) in rows {
        table.add_row([topic, subject, schema.doc.to_owned()]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// The registry's subject of an event: topic and record name.
pub(crate) fn subject(topic: &str, schema: &EventSchema) -> String {
    format!("{topic}-{}", schema.full_name)
}
