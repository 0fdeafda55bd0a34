//! `cargo x crash`: a long run under load and faults, and the checker after it.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::machine::{self, For};
use crate::run::{cargo, exit_code};

/// What `cargo x test` builds beside the rest: an application with planted faults. With all
/// packages and a test, whichever, so that cargo unites the same features of others' crates as for
/// the tests and builds only those crates again that hold a planted fault or use one that does.
pub(crate) const PLANTED: [&str; 8] = [
    "build",
    "--workspace",
    "--bin",
    "ledger-planted",
    "--test",
    "new",
    "--features",
    "crash-tests/planted-faults",
];

/// Builds the application under test and runs the harness; all arguments go to it.
pub(crate) fn run(args: Vec<String>) -> Result<ExitCode> {
    let root = crate::root()?;
    machine::check(For::Development)?;
    crate::dev::fetch_kafka()?;
    let package = ["--quiet", "--package", "crash-tests"];
    let build = cargo(&root, &["build"]).args(package).args(["--bins"]).status();
    let built = build.context("cannot start cargo")?;
    if !built.success() {
        return Ok(exit_code(built));
    }
    let mut command = cargo(&root, &["run"]);
    command.args(package).args(["--bin", "crash", "--"]).args(args);
    Ok(exit_code(command.status().context("cannot start cargo")?))
}
