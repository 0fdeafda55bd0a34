//! `cargo x dev`: from a bare machine to everything running.

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use foldstream_local::{Progress, kafka_jars};

use crate::machine::{self, For};
use crate::run::{cargo, exit_code};

/// Checks, fetches, builds, then becomes `shop dev`.
pub(crate) fn run(mut args: Vec<String>) -> Result<ExitCode> {
    let root = crate::root()?;
    let release = args.iter().position(|arg| arg == "--release").map(|at| args.remove(at));
    machine::check(For::Development)?;
    fetch_kafka()?;
    // Kept apart from what other tasks print: with `--json` standard output is for programs.
    let mut build = cargo(&root, &["build", "--package", "shop"]);
    build.args(&release).stdout(std::io::stderr());
    let built = build.status().context("cannot start cargo")?;
    if !built.success() {
        return Ok(exit_code(built));
    }
    let profile = if release.is_some() { "release" } else { "debug" };
    let shop = target_dir(&root).join(profile).join("shop");
    // Takes our place, so that Ctrl-C and signals reach it directly.
    let error = Command::new(&shop).arg("dev").args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", shop.display()))
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir(root: &std::path::Path) -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// Fetches the Kafka jars if they are not there, and says how far it is.
pub(crate) fn fetch_kafka() -> Result<()> {
    let terminal = std::io::stderr().is_terminal();
    let mut said = None;
    kafka_jars(&mut |step| {
        let Progress::Fetching { bytes, .. } = step else {
            eprintln!("{}{step}", if terminal { "\r\x1b[K" } else { "" });
            return;
        };
        // In a log: a line every ten megabytes.
        let tens = bytes / 10_000_000;
        if terminal {
            eprint!("\r{step}\x1b[K");
            let _ = std::io::stderr().flush();
        } else if said != Some(tens) {
            eprintln!("{step}");
        }
        said = Some(tens);
    })?;
    Ok(())
}
