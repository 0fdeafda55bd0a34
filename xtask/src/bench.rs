//! `cargo x bench` and `cargo x schemas`: runs of other crates' programs.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::machine::{self, For};
use crate::run::{cargo, exit_code};

/// Benchmarks in release mode; all arguments go to them.
pub(crate) fn run(args: Vec<String>) -> Result<ExitCode> {
    let root = crate::root()?;
    machine::check(For::Development)?;
    crate::dev::fetch_kafka()?;
    let mut command = cargo(&root, &["run", "--release", "--package", "foldstream-benches", "--"]);
    let status = command.args(args).status().context("cannot start cargo")?;
    Ok(exit_code(status))
}

/// The arguments of `shop` that write or compare the generated schemas.
pub(crate) const SCHEMAS: [&str; 4] = ["schemas", "generate", "--dir", "schemas/avro"];

/// Writes the generated schemas, or with `--check` compares them.
pub(crate) fn schemas(args: Vec<String>) -> Result<ExitCode> {
    let root = crate::root()?;
    machine::check(For::Development)?;
    let mut command = cargo(&root, &["run", "--quiet", "--package", "shop", "--"]);
    let status = command.args(SCHEMAS).args(args).status().context("cannot start cargo")?;
    Ok(exit_code(status))
}
