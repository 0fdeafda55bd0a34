//! `cargo x test`: every check and test, against a Kafka and a Postgres started here.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use foldstream_local::Local;

use crate::bench::CHECK_SCHEMAS;
use crate::crash::PLANTED;
use crate::dev::{fetch_kafka, target_dir};
use crate::machine::{self, For};
use crate::run::{cargo, exit_code, wait_until};
use crate::{fuzz, tidy};

/// All of it takes no longer; whatever still runs then is killed.
const LIMIT: Duration = Duration::from_secs(80 * 60);

/// Runs the steps in order and stops at the first that fails. The tests come last, so that the
/// output ends with cargo's own summary.
pub(crate) fn run(mut args: Vec<String>) -> Result<ExitCode> {
    if args.iter().any(|arg| arg == "--fuzz") {
        return fuzz::run();
    }
    let root = crate::root()?;
    let deadline = Instant::now() + LIMIT;
    let fast = args.iter().position(|arg| arg == "--fast").map(|at| args.remove(at)).is_some();
    step("machine", || machine::check(For::Tests).map(|()| true))?;
    let run = |command: &mut Command| Ok(wait_until(command, deadline)?.success());
    let checks: [(&str, &dyn Fn() -> Result<bool>); 3] = [
        ("formatting", &|| run(&mut cargo(&root, &["fmt", "--all", "--check"]))),
        ("lints", &|| {
            let args = ["clippy", "--workspace", "--all-targets", "--quiet"];
            run(cargo(&root, &args).args(["--", "-D", "warnings"]))
        }),
        ("tidy", &|| tidy::report(&root)),
    ];
    for (name, check) in checks {
        if !fast && !step(name, check)? {
            return Ok(ExitCode::FAILURE);
        }
    }
    // With the tests, although only the binaries are needed now: cargo unites the features of
    // all that is built at once, and a build without the tests would be done again with them.
    let build = ["build", "--workspace", "--bins", "--tests", "--examples"];
    let build_both = || Ok(run(&mut cargo(&root, &build))? && run(&mut cargo(&root, &PLANTED))?);
    if !step("build", build_both)? {
        return Ok(ExitCode::FAILURE);
    }
    let shop = target_dir(&root).join("debug/shop");
    let compare = || run(Command::new(&shop).current_dir(&root).args(CHECK_SCHEMAS));
    if !fast && !step("generated files", compare)? {
        eprintln!("the schemas are not as they must be; `cargo x schemas` writes new ones");
        return Ok(ExitCode::FAILURE);
    }
    let mut local = None;
    step("infrastructure", || {
        if !(is_given("KAFKA_BOOTSTRAP") && is_given("DATABASE_URL")) {
            fetch_kafka()?;
            local = Some(Local::ephemeral(&mut |_| {})?);
        }
        Ok(true)
    })?;
    let mut tests = cargo(&root, &["test", "--workspace", "--no-fail-fast", "--"]);
    tests.args(args).env("LEDGER_PLANTED", target_dir(&root).join("debug/ledger-planted"));
    if let Some(local) = &local {
        for (name, value) in [
            ("KAFKA_BOOTSTRAP", local.kafka().to_owned()),
            ("DATABASE_URL", local.postgres_url("postgres")),
        ] {
            if !is_given(name) {
                tests.env(name, value);
            }
        }
    }
    eprintln!("── tests");
    let ended = wait_until(&mut tests, deadline).context("tests");
    drop(local);
    ended.map(exit_code)
}

fn is_given(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Runs one step and says how long it took.
fn step(name: &str, work: impl FnOnce() -> Result<bool>) -> Result<bool> {
    eprintln!("── {name}");
    let began = Instant::now();
    let done = work().with_context(|| name.to_owned());
    let verdict = if matches!(done, Ok(true)) { "ok" } else { "FAILED" };
    eprintln!("── {name}: {verdict} ({:.1} s)", began.elapsed().as_secs_f64());
    done
}
