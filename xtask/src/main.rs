//! Tasks of this repository: `cargo x dev`, `cargo x test` and the rest.

mod bench;
mod crash;
mod dev;
mod fuzz;
mod machine;
mod new;
mod run;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "\
usage: cargo x <task>

  dev [--release] [ARGS]     check the machine, build, start everything, load a sample month
                             (ARGS go to `shop dev`)
  test [--fast] [FILTER…]    all checks and tests against a real Kafka and Postgres
                             (--fast: only the tests; FILTER: only tests whose name holds it)
  test --fuzz                hostile bytes for the decoder of events, for 60 s
  tidy                       walls between crates, sizes, names, links
  schemas [--check]          write the generated Avro schemas, or compare them with the code
                             and each with all older ones
  bench [NAME] [--json] [--seconds N] [--quick]
                             benchmarks, in release mode
  crash [--minutes N] [--seed S] [--rate R] [--json]
                             load while processes, links, Kafka and Postgres fail; then a check
  new aggregate|read-model NAME [--root DIR]
                             write the files of a new aggregate or read model
";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let task = if args.is_empty() { String::new() } else { args.remove(0) };
    let done = match task.as_str() {
        "dev" => dev::run(args),
        "test" => test::run(args),
        "tidy" => tidy::run(),
        "schemas" => bench::schemas(args),
        "bench" => bench::run(args),
        "crash" => crash::run(args),
        "new" => new::run(args),
        "" | "help" | "-h" | "--help" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("there is no task {task:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The root of the workspace, from where cargo says this crate is.
fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    Ok(here.parent().context("the crate lies in the workspace")?.to_path_buf())
}
