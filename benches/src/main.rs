//! Benchmarks: ratios in one run on one machine.
//!
//! `cargo x bench [NAME] [--json]`. Each benchmark starts a Kafka and a Postgres of its own and
//! removes them. What each one measures, and against what, is in `docs/performance.md`.

mod append;
mod arguments;
mod command_http;
mod copy;
mod end_to_end;
mod fold;
mod http_load;
mod infra;
mod load;
mod notes;
mod plain;
mod registry;
mod relay;
mod report;
mod served;

use arguments::{Arguments, Asked};
use report::Report;
use std::process::ExitCode;

/// A benchmark: its name, what it measures, and how.
type Bench = (&'static str, &'static str, fn(&Arguments, &mut Report) -> anyhow::Result<()>);

/// In the order in which they run when none is named.
const BENCHES: &[Bench] = &[
    ("append", "commands into the event store, against a transaction per event", append::run),
    (
        "command-http",
        "commands over HTTP, against the same server without append",
        command_http::run,
    ),
    ("relay", "a backlog to Kafka, against a bare producer of the same bytes", relay::run),
    ("fold", "a topic into two read models, against a bare consumer", fold::run),
    ("end-to-end", "from a command to the read model, 500 commands a second", end_to_end::run),
];

fn main() -> ExitCode {
    let names: Vec<&str> = BENCHES.iter().map(|(name, ..)| *name).collect();
    let arguments = match arguments::read(std::env::args().skip(1), &names) {
        Ok(Asked::Run(arguments)) => arguments,
        Ok(Asked::Help) => {
            println!("{}", arguments::USAGE);
            for (name, about, _) in BENCHES {
                println!("  {name:<14} {about}");
            }
            println!("  {:<14} the same appends through other libraries; only if named", "peers");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let mut report = Report::new(arguments.json);
    let mut failed = false;
    for (name, _, run) in BENCHES {
        if arguments.name.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        eprintln!("{name}");
        if let Err(error) = run(&arguments, &mut report) {
            eprintln!("{name} failed: {error:#}");
            failed = true;
        }
    }
    report.finish();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
