//! Tables for people, JSON for machines.

use super::doctor::{Line, Mark};
use super::{client, local_checks};
use crate::cli::AdminArgs;
use crate::{Exit, Failure};
use comfy_table::{ContentArrangement, Table};
use foldstream_service::config::Entry;
use serde_json::{Value, json};
use std::process::ExitCode;

/// A plain table that fits the terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    table
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// Rows of a list with these members as columns.
fn rows(list: &Value, members: &[&str]) -> Table {
    let mut table = table(members);
    for row in list.as_array().into_iter().flatten() {
        table.add_row(members.iter().map(|member| text(&row[*member])));
    }
    table
}

pub(super) fn print_json(value: &Value) {
    println!("{value:#}");
}

const PROJECTION: [&str; 7] =
    ["name", "version", "build", "state", "position", "lag_events", "lag_seconds"];

pub(crate) async fn projections_ls(args: &AdminArgs) -> Result<ExitCode, Failure> {
    let answer = client::get(&args.admin, "/admin/projections").await?;
    match args.json {
        true => print_json(&answer["data"]),
        false => println!("{}", rows(&answer["data"], &PROJECTION)),
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn projections_show(name: &str, args: &AdminArgs) -> Result<ExitCode, Failure> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !plain {
        return Err(Failure::new(Exit::NotFound, format!("there is no read model {name:?}")));
    }
    let answer = client::get(&args.admin, &format!("/admin/projections/{name}")).await?;
    if args.json {
        print_json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", rows(&json!([answer]), &PROJECTION));
    if let Some(error) = answer["last_error"].as_str() {
        println!("\nlast error: {error}");
    }
    let partitions = ["topic", "partition", "position", "head", "lag_events", "updated_at"];
    println!("\n{}", rows(&answer["partitions"], &partitions));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn topics_ls(args: &AdminArgs) -> Result<ExitCode, Failure> {
    let answer = client::get(&args.admin, "/admin/topics").await?;
    if args.json {
        print_json(&answer["data"]);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table(&["topic", "partitions", "records", "settings"]);
    for topic in answer["data"].as_array().into_iter().flatten() {
        let partitions = topic["partitions"].as_array().map_or(&[][..], Vec::as_slice);
        let count = |p: &Value| p["high"].as_i64().unwrap_or(0) - p["low"].as_i64().unwrap_or(0);
        let records: i64 = partitions.iter().map(count).sum();
        let warnings = text(&topic["warnings"]);
        let settings = if warnings.is_empty() { "as they should be".to_owned() } else { warnings };
        table.add_row([
            text(&topic["name"]),
            partitions.len().to_string(),
            records.to_string(),
            settings,
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn status(args: &AdminArgs) -> Result<ExitCode, Failure> {
    let answer = client::get(&args.admin, "/admin/status").await?;
    let ready = answer["readiness"]["status"] == "ok";
    if args.json {
        print_json(&answer);
    } else {
        println!(
            "{} {}: {}\n",
            text(&answer["app"]),
            text(&answer["version"]),
            text(&answer["readiness"]["status"])
        );
        let mut checks = table(&["check", "status", "detail"]);
        for (name, check) in answer["readiness"]["checks"].as_object().into_iter().flatten() {
            checks.add_row([name.clone(), text(&check["status"]), text(&check["detail"])]);
        }
        println!("{checks}\n");
        let mut outbox = table(&["outbox of", "pending events", "oldest, s"]);
        for (service, backlog) in answer["outbox"].as_object().into_iter().flatten() {
            let oldest = text(&backlog["oldest_age_seconds"]);
            outbox.add_row([service.clone(), text(&backlog["pending_events"]), oldest]);
        }
        println!("{outbox}\n");
        println!("{}", rows(&answer["projections"], &PROJECTION));
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) async fn doctor(args: &AdminArgs) -> Result<ExitCode, Failure> {
    let mut lines = local_checks::lines();
    match client::get(&args.admin, "/admin/doctor").await {
        Ok(answer) => {
            let seen: Vec<Line> = serde_json::from_value(answer["data"].clone())
                .map_err(|error| Failure::failed(format!("{}: {error}", args.admin)))?;
            lines.extend(seen);
        }
        Err(failure) => {
            let remedy = "start `dev` or a role, or name its admin address with --admin";
            lines.push(Line::fail("running process", failure.message, remedy));
        }
    }
    let failed = lines.iter().any(|line| line.mark == Mark::Fail);
    if args.json {
        print_json(&json!(lines));
    } else {
        let mut table = table(&["", "check", "found", "remedy"]);
        for line in lines {
            let mark = match line.mark {
                Mark::Ok => "ok",
                Mark::Warn => "warn",
                Mark::Fail => "FAIL",
            };
            table.add_row([mark.to_owned(), line.check, line.found, line.remedy]);
        }
        println!("{table}");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(crate) fn config_show(entries: &[Entry], json: bool) -> Result<ExitCode, Failure> {
    if json {
        let all: Vec<Value> = entries
            .iter()
            .map(|entry| {
                json!({
                    "key": entry.key, "value": entry.value, "source": entry.source.to_string(),
                    "doc": entry.doc,
                })
            })
            .collect();
        print_json(&json!(all));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table(&["key", "value", "source", "meaning"]);
    for entry in entries {
        let value = entry.value.clone().unwrap_or_else(|| "–".to_owned());
        table.add_row([entry.key.clone(), value, entry.source.to_string(), entry.doc.to_owned()]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}
