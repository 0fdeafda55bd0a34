//! `schemas ls|check|register`: the code's schemas beside the files and the registry.

use super::files::{self, Findings};
use super::rules::Fault;
use super::{Published, subject};
use crate::cli::SchemasArgs;
use crate::operations::table;
use crate::settings::RegistrySettings;
use crate::{App, Exit, Failure};
use foldstream_kafka::{Registered, SchemaError, SchemaRegistry};
use serde_json::{Value, json};
use std::process::ExitCode;

/// The registry that is asked: the one named, else the configured one, else none.
fn registry(
    args: &SchemasArgs,
    settings: &RegistrySettings,
) -> Result<Option<SchemaRegistry>, Failure> {
    let url = args.registry.as_ref().or(settings.url.as_ref()).filter(|_| !args.offline);
    let Some(url) = url else { return Ok(None) };
    SchemaRegistry::new(url)
        .map(Some)
        .map_err(|error| Failure::new(Exit::Configuration, format!("`registry.url`: {error}")))
}

fn failed(registry: &SchemaRegistry, error: SchemaError) -> Failure {
    match error {
        SchemaError::Unavailable(reason) => Failure::new(
            Exit::DependencyDown,
            format!("the schema registry at {} does not answer: {reason}", registry.url()),
        ),
        SchemaError::Unknown(_) | SchemaError::Incompatible { .. } | SchemaError::Invalid(_) => {
            Failure::failed(error)
        }
    }
}

/// The code's schemas with their numbers and, where a registry is asked, ids and versions.
pub(crate) async fn ls(
    app: &App,
    args: &SchemasArgs,
    settings: &RegistrySettings,
) -> Result<ExitCode, Failure> {
    let registry = registry(args, settings)?;
    let mut rows = Vec::new();
    for event in Published::all(app) {
        let topic = event.topic(app);
        let subject = subject(&topic, event.schema);
        let found = match &registry {
            Some(registry) => {
                let found = registry.find(&subject, &event.text()).await;
                found.map_err(|error| failed(registry, error))?
            }
            None => None,
        };
        rows.push(json!({
            "topic": topic,
            "event": event.schema.name,
            "subject": subject,
            "number": files::number(&args.dir, event),
            "id": found.as_ref().map(|found| found.id),
            "version": found.as_ref().map(|found| found.version),
            "doc": event.schema.doc,
            "schema": event.schema.json,
        }));
    }
    if args.json {
        println!("{:#}", json!(rows));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table(&["subject", "file", "id", "version", "event"]);
    for row in rows {
        let number = row["number"].as_u64().map(|number| format!("{number}.avsc"));
        let shown = |value: &Value| value.as_u64().map_or("–".to_owned(), |n| n.to_string());
        let text = |member: &str| row[member].as_str().unwrap_or_default().to_owned();
        table.add_row([
            text("subject"),
            number.unwrap_or_else(|| "–".into()),
            shown(&row["id"]),
            shown(&row["version"]),
            text("doc"),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// The files against the code and, where a registry is asked, the code against the registry.
pub(crate) async fn check(
    app: &App,
    args: &SchemasArgs,
    settings: &RegistrySettings,
) -> Result<ExitCode, Failure> {
    let both_ways = settings.compatibility.contains("FULL");
    let mut findings = files::check(app, &args.dir, both_ways);
    let registry = registry(args, settings)?;
    if let Some(registry) = &registry {
        findings.faults.extend(ask(app, registry).await?);
    }
    report(app, &findings, registry.as_ref(), args.json);
    Ok(if findings.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(app: &App, findings: &Findings, registry: Option<&SchemaRegistry>, json: bool) {
    let Findings { faults, notes } = findings;
    let (events, url) = (Published::all(app).len(), registry.map(SchemaRegistry::url));
    if json {
        let answer =
            json!({ "schemas": events, "registry": url, "faults": faults, "notes": notes });
        println!("{answer:#}");
        return;
    }
    for note in notes {
        println!("note: {note}");
    }
    if !notes.is_empty() {
        println!("      let all readers have the new code before it writes\n");
    }
    for fault in faults {
        eprintln!("refused: {fault}");
    }
    if faults.is_empty() {
        let asked = url.map_or(String::new(), |url| format!(" and by the registry at {url}"));
        println!("{events} schemas are as they should be, by the files{asked}");
    }
}

/// What the registry has against the code's schemas.
async fn ask(app: &App, registry: &SchemaRegistry) -> Result<Vec<Fault>, Failure> {
    let mut faults = Vec::new();
    for event in Published::all(app) {
        let subject = subject(&event.topic(app), event.schema);
        let said = registry.objections(&subject, &event.text()).await;
        let said = said.map_err(|error| failed(registry, error))?;
        if !said.is_empty() {
            faults.push(Fault::new(subject, "", "registry", said.join("; ")));
        }
    }
    Ok(faults)
}

/// Registers what is missing, after all of it was found compatible.
pub(crate) async fn register(
    app: &App,
    args: &SchemasArgs,
    settings: &RegistrySettings,
) -> Result<ExitCode, Failure> {
    let Some(registry) = registry(args, settings)? else {
        return Err(Failure::missing("registry.url", "SCHEMA_REGISTRY_URL"));
    };
    let away = |error| failed(&registry, error);
    let level = &settings.compatibility;
    let mut missing = Vec::new();
    for event in Published::all(app) {
        let subject = subject(&event.topic(app), event.schema);
        if registry.compatibility(&subject).await.map_err(away)?.as_ref() != Some(level) {
            registry.set_compatibility(&subject, level).await.map_err(away)?;
        }
        if registry.find(&subject, &event.text()).await.map_err(away)?.is_none() {
            missing.push((subject, event));
        }
    }
    let faults = ask(app, &registry).await?;
    if !faults.is_empty() {
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        return Err(Failure::failed(format!("nothing is registered:\n{}", said.join("\n"))));
    }
    let mut registered = Vec::new();
    for (subject, event) in missing {
        registry.register(&subject, &event.text()).await.map_err(away)?;
        let found = registry.find(&subject, &event.text()).await.map_err(away)?;
        let Some(Registered { id, version }) = found else {
            return Err(Failure::failed(format!("{subject}: registered, and not there")));
        };
        if !args.json {
            println!("registered {subject}: id {id}, version {version}");
        }
        registered.push(json!({ "subject": subject, "id": id, "version": version }));
    }
    if args.json {
        println!("{:#}", json!({ "registered": registered, "compatibility": level }));
    } else if registered.is_empty() {
        println!("all schemas are registered");
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a schema that does not fit the registry's earlier versions; for the start of a role.
pub(crate) async fn refuse_incompatible(
    registry: &SchemaRegistry,
    subject: &str,
    schema: &str,
) -> Result<(), SchemaError> {
    let said = registry.objections(subject, schema).await?;
    if said.is_empty() {
        return Ok(());
    }
    Err(SchemaError::Incompatible { subject: subject.to_owned(), reason: said.join("; ") })
}
