//! `streams tail`: prints what a process says is appended.

use super::tail::{SILENCE, TAIL_FROM};
use super::{path, print};
use crate::cli::StreamsTail;
use crate::operations::client;
use crate::{Exit, Failure};
use reqwest::Client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

/// Nobody reads any more: the shell's number for SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Prints what comes until it ends, or until Ctrl-C.
pub(super) async fn command(args: StreamsTail) -> Result<ExitCode, Failure> {
    // Printing may block, so it has a task of its own.
    let printing = tokio::spawn(print_all(args));
    tokio::select! {
        printed = printing => printed.map_err(Failure::failed)?,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(Exit::Interrupted as u8)),
    }
}

async fn print_all(args: StreamsTail) -> Result<ExitCode, Failure> {
    let from = (!args.from.is_empty()).then(|| args.from.join(","));
    let query = [
        ("stream", args.stream.as_ref().map(ToString::to_string)),
        ("aggregate", args.aggregate.clone()),
        ("last", from.is_none().then(|| args.last.to_string())),
        ("from", from),
        ("follow", args.follow.then(|| "true".to_owned())),
    ];
    let admin = args.admin.admin.trim_end_matches('/');
    let url = format!("{admin}{}", path("/admin/streams/tail", query)?);
    let asking = Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE * 3).build();
    let response = asking.map_err(Failure::failed)?.get(url).send().await;
    let mut response = response.map_err(|error| client::down(admin, error))?;
    if !response.status().is_success() {
        return Err(client::refused(response).await);
    }
    let begins = response.headers().get(TAIL_FROM).and_then(|value| value.to_str().ok());
    let mut places = Places::read(begins.unwrap_or_default());
    let mut rest = Vec::new();
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) if !args.follow => return Ok(ExitCode::SUCCESS),
            Ok(None) | Err(_) => {
                let message = format!("{admin} ended it; go on with --from {places}");
                return Err(Failure::new(Exit::DependencyDown, message));
            }
        };
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if line.len() == 1 {
                continue;
            }
            let event: Value = serde_json::from_slice(&line).map_err(Failure::failed)?;
            if !print_line(&event, &line, args.admin.json) {
                return Ok(ExitCode::from(BROKEN_PIPE));
            }
            places.pass(&event, args.stream.is_some());
        }
    }
}

/// False when nobody reads any more.
fn print_line(event: &Value, line: &[u8], json: bool) -> bool {
    let mut out = std::io::stdout().lock();
    let written = match json {
        true => out.write_all(line),
        false => writeln!(out, "{}", print::line(event)),
    };
    written.and_then(|()| out.flush()).is_ok()
}

/// Where to go on: what the answer began with, moved on by what was printed.
struct Places(BTreeMap<String, u64>);

impl Places {
    fn read(begins: &str) -> Self {
        let place = |part: &str| {
            let (at, next) = part.rsplit_once(':').unwrap_or(("", part));
            Some((at.to_owned(), next.parse().ok()?))
        };
        Places(begins.split(',').filter_map(place).collect())
    }
    fn pass(&mut self, event: &Value, is_stream: bool) {
        let (at, last) = match is_stream {
            true => (String::new(), event["version"].as_u64()),
            false => {
                let aggregate = event["stream"].as_str().and_then(|s| s.split('/').next());
                let at = format!("{}:{}", aggregate.unwrap_or_default(), event["partition"]);
                (at, event["position"].as_u64())
            }
        };
        self.0.insert(at, last.unwrap_or(0) + 1);
    }
}

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (at, next)) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let colon = if at.is_empty() { "" } else { ":" };
            write!(f, "{comma}{at}{colon}{next}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_on_with_what_was_printed() {
        let mut places = Places::read("invoices:0:5,invoices:1:1");
        let event = serde_json::json!({"stream": "invoices/1", "partition": 0, "position": 7});
        places.pass(&event, false);
        assert_eq!(places.to_string(), "invoices:0:8,invoices:1:1");
        let mut places = Places::read("3");
        places.pass(&serde_json::json!({"version": 3}), true);
        assert_eq!(places.to_string(), "4");
    }
}
