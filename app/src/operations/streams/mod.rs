//! Streams, as operators see them: which there are, what happened to one, its state, and what is
//! appended.

mod admin;
mod follow;
mod print;
mod tail;

pub(crate) use admin::routes;

use super::client;
use crate::Failure;
use crate::cli::{StreamName, StreamsAction, StreamsLs, StreamsShow, StreamsState};
use reqwest::Url;
use serde_json::Value;
use std::process::ExitCode;

pub(crate) async fn run(action: StreamsAction) -> Result<ExitCode, Failure> {
    match action {
        StreamsAction::Ls(args) => ls(args).await,
        StreamsAction::Show(args) => show(args).await,
        StreamsAction::State(args) => state(args).await,
        StreamsAction::Tail(args) => follow::command(args).await,
    }
}

async fn ls(args: StreamsLs) -> Result<ExitCode, Failure> {
    let query = [
        ("aggregate", args.aggregate),
        ("prefix", args.prefix),
        ("limit", Some(args.limit.to_string())),
        ("after", args.after.map(|stream| stream.to_string())),
    ];
    let answer = client::get(&args.admin.admin, &path("/admin/streams", query)?).await?;
    if args.admin.json {
        print::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    print::streams(&answer["data"]);
    hint(&answer, "after");
    Ok(ExitCode::SUCCESS)
}

async fn show(args: StreamsShow) -> Result<ExitCode, Failure> {
    let (from, limit) = (args.from.to_string(), args.limit.to_string());
    let path = path(&of(&args.stream), [("from", Some(from)), ("limit", Some(limit))])?;
    let answer = client::get(&args.admin.admin, &path).await?;
    if args.admin.json {
        print::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    print::history(&answer["data"]);
    hint(&answer, "from");
    Ok(ExitCode::SUCCESS)
}

async fn state(args: StreamsState) -> Result<ExitCode, Failure> {
    let version = args.version.map(|version| version.to_string());
    let as_of = args.as_of.map(|instant| instant.to_string());
    let path =
        path(&format!("{}/state", of(&args.stream)), [("version", version), ("as_of", as_of)])?;
    let answer = client::get(&args.admin.admin, &path).await?;
    match args.admin.json {
        true => print::json(&answer),
        false => print::state(&answer),
    }
    Ok(ExitCode::SUCCESS)
}

fn of(stream: &StreamName) -> String {
    format!("/admin/streams/{}/{}", stream.aggregate, stream.id)
}

/// Says on standard error how to see the next page.
fn hint(answer: &Value, option: &str) {
    if let Some(next) = answer["page"]["next"].as_str() {
        eprintln!("more: --{option} {next}");
    }
}

/// A path with those parameters that have a value.
fn path<const N: usize>(path: &str, query: [(&str, Option<String>); N]) -> Result<String, Failure> {
    let mut url = Url::parse("http://admin").map_err(Failure::failed)?;
    url.set_path(path);
    for (name, value) in query {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{}{query}", url.path()))
}
