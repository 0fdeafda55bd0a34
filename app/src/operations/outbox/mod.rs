//! `outbox …`: how far the relays are, whether the topics hold what they should, and sending again
//! what a topic lost.

mod admin;
mod check;

pub(crate) use admin::routes;

use super::client;
use super::show::{print_json, table, text};
use crate::cli::{OutboxAction, OutboxArgs};
use crate::{Exit, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Client, Method, Url};
use serde_json::Value;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// A line comes each second; only a server that is gone is silent for so long.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(action: OutboxAction) -> Result<ExitCode, Failure> {
    match action {
        OutboxAction::Status(args) => status(&args).await,
        OutboxAction::Verify(args) => {
            let last = follow(Method::GET, "/admin/outbox/verify", &args).await?;
            report(&last, &args)
        }
        OutboxAction::Repair { args, yes } => {
            if !yes && !is_confirmed()? {
                let message = "not confirmed: nothing was done; say --yes to have it done";
                return Err(Failure::new(Exit::Refused, message));
            }
            let last = follow(Method::POST, "/admin/outbox/repair", &args).await?;
            report(&last, &args)
        }
    }
}

/// Asks at a terminal; anywhere else nobody can answer.
fn is_confirmed() -> Result<bool, Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Ok(false);
    }
    eprint!("Compare all topics with the event store and send again what they lost? [y/N] ");
    std::io::stderr().flush().map_err(Failure::failed)?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).map_err(Failure::failed)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn path(path: &str, args: &OutboxArgs) -> Result<String, Failure> {
    let mut url = Url::parse("http://admin").map_err(Failure::failed)?;
    url.set_path(path);
    if let Some(topic) = &args.topic {
        url.query_pairs_mut().append_pair("topic", topic);
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{}{query}", url.path()))
}

async fn status(args: &OutboxArgs) -> Result<ExitCode, Failure> {
    let answer = client::get(&args.admin.admin, &path("/admin/outbox", args)?).await?;
    if args.admin.json {
        print_json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let columns = ["topic", "partition", "head", "relayed", "offset", "pending", "epoch"];
    let mut header = columns.to_vec();
    header.extend(["owner", "lease until"]);
    let mut table = table(&header);
    for row in answer["data"].as_array().into_iter().flatten() {
        let expired = row["lease_expired"] == true;
        let until = text(&row["lease_expires_at"]);
        let until = if expired { format!("{until} (over)") } else { until };
        let cells = columns.iter().map(|column| text(&row[*column]));
        table.add_row(cells.chain([text(&row["owner"]), until]));
    }
    println!("{table}");
    for (service, backlog) in answer["backlog"].as_object().into_iter().flatten() {
        let oldest = backlog["oldest_age_seconds"].as_f64().unwrap_or(0.0);
        let (events, state) = (text(&backlog["pending_events"]), text(&backlog["state"]));
        println!("\n{service}: {state}; {events} events wait, the oldest for {oldest:.1} s");
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows how far it is until the last line, which it answers.
async fn follow(method: Method, at: &str, args: &OutboxArgs) -> Result<Value, Failure> {
    let admin = args.admin.admin.trim_end_matches('/');
    let url = format!("{admin}{}", path(at, args)?);
    let client = Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE).build();
    let sent = client.map_err(Failure::failed)?.request(method, url).send().await;
    let mut response = sent.map_err(|error| client::down(admin, error))?;
    if !response.status().is_success() {
        return Err(client::refused(response).await);
    }
    let bar = Bar::new(args.admin.json);
    let (mut rest, mut last) = (Vec::new(), None);
    while let Some(chunk) = response.chunk().await.map_err(|error| client::down(admin, error))? {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line: Value = serde_json::from_slice(&line).map_err(Failure::failed)?;
            if matches!(line["state"].as_str(), Some("verifying" | "sending")) {
                bar.show(&line);
            } else {
                last = Some(line);
            }
        }
    }
    bar.finish();
    last.ok_or_else(|| {
        let message = format!("{admin} ended without an outcome; run it again");
        Failure::new(Exit::DependencyDown, message)
    })
}

/// A bar for people, JSON lines for machines.
struct Bar {
    bar: ProgressBar,
    json: bool,
}
impl Bar {
    fn new(json: bool) -> Self {
        let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg:10} {bar:32} {pos}/{len}  ETA {eta}")
        {
            bar.set_style(style);
        }
        Bar { bar, json }
    }
    fn show(&self, line: &Value) {
        if self.json {
            println!("{line}");
            return;
        }
        self.bar.set_message(text(&line["state"]));
        self.bar.set_length(line["total"].as_u64().unwrap_or(0));
        self.bar.set_position(line["done"].as_u64().unwrap_or(0));
    }
    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Prints the outcome: 0 whole, 1 damaged, 5 no relay sent it, 69 something did not answer.
fn report(last: &Value, args: &OutboxArgs) -> Result<ExitCode, Failure> {
    let state = last["state"].as_str().unwrap_or_default();
    if args.admin.json {
        println!("{last}");
    }
    if state == "failed" {
        let exit = match last["reason"].as_str() {
            Some("down") => Exit::DependencyDown,
            Some("timeout") => Exit::Timeout,
            Some(_) | None => Exit::Failed,
        };
        return Err(Failure::new(exit, text(&last["error"])));
    }
    if !args.admin.json {
        print_report(last);
    }
    Ok(if state == "whole" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_report(last: &Value) {
    let columns = [
        "topic",
        "partition",
        "head",
        "relayed",
        "readable",
        "records",
        "missing",
        "foreign",
        "differing",
        "repeats",
    ];
    let mut rows = table(&columns);
    for row in last["partitions"].as_array().into_iter().flatten() {
        rows.add_row(columns.iter().map(|column| text(&row[*column])));
    }
    println!("{rows}\n");
    for row in last["partitions"].as_array().into_iter().flatten() {
        let at = format!("{}/{}", text(&row["topic"]), row["partition"]);
        if row["exists"] == false {
            println!("{at}: there is no such topic");
        }
        if let Some(from) = row["missing_from"].as_u64() {
            println!("{at}: {} events are missing, from position {from} on", row["missing"]);
        }
        for finding in row["findings"].as_array().into_iter().flatten() {
            println!("{at}: offset {}: {}", finding["offset"], text(&finding["what"]));
        }
    }
    if let Some(mended) = last["mended"].as_u64().filter(|mended| *mended > 0) {
        println!("{mended} events were sent again");
    }
    match (last["state"].as_str(), last["missing"].as_u64()) {
        (Some("whole"), _) => println!("whole: readers get every event, once and in order"),
        (_, Some(missing)) if missing > 0 => {
            println!("damaged: `outbox repair` sends again what is missing");
        }
        (_, _) => println!(
            "damaged: nothing is missing, but there is what does not belong there. Find out who \
             wrote it; a topic that is deleted is filled anew by `outbox repair`"
        ),
    }
}
