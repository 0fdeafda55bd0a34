//! `cargo x bench` and `cargo x schemas`: runs of other crates' programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::dev::target_dir;
use crate::machine::{self, For};
use crate::run::{cargo, exit_code};

/// The benchmark that is a workspace of its own.
const PEERS: &str = "peers";
/// The options of benchmarks that a value follows.
const WITH_VALUE: [&str; 4] = ["--seconds", "--case", "--pool", "--writers"];

/// Benchmarks in release mode; all arguments go to them.
pub(crate) fn run(args: Vec<String>) -> Result<ExitCode> {
    let root = crate::root()?;
    if name(&args) == Some(PEERS) {
        return peers(&root, args);
    }
    machine::check(For::Development)?;
    crate::dev::fetch_kafka()?;
    let mut command = cargo(&root, &["run", "--release", "--package", "foldstream-benches", "--"]);
    let status = command.args(args).status().context("cannot start cargo")?;
    Ok(exit_code(status))
}

/// The benchmark that is asked for.
fn name(args: &[String]) -> Option<&str> {
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if WITH_VALUE.contains(&arg) {
            args.next();
        } else if !arg.starts_with('-') {
            return Some(arg);
        }
    }
    None
}

/// Other libraries: built apart from ours, below the same target directory.
fn peers(root: &Path, args: Vec<String>) -> Result<ExitCode> {
    machine::check(For::Peers)?;
    crate::dev::fetch_kafka()?;
    let target = target_dir(root).join(PEERS);
    let folder = root.join("benches").join(PEERS);
    let mut command = cargo(root, &["run", "--release", "--manifest-path"]);
    command.arg(folder.join("Cargo.toml")).arg("--target-dir").arg(&target);
    match install_emmett(&folder.join("emmett"), target.join("emmett")) {
        Ok(installed) => {
            command.env("FOLDSTREAM_PEERS_EMMETT", installed);
        }
        // The others can still be measured; the run says what it leaves out.
        Err(error) => eprintln!("Emmett cannot be installed: {error:#}"),
    }
    let status = command.arg("--").args(args).status().context("cannot start cargo")?;
    Ok(exit_code(status))
}

/// Copies the script and installs its packages as the lock file says, outside of the sources.
fn install_emmett(from: &Path, to: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
    for file in ["package.json", "package-lock.json", "bench.mjs"] {
        fs::copy(from.join(file), to.join(file)).with_context(|| file.to_owned())?;
    }
    // What it prints is for people: standard output belongs to the figures.
    let status = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--loglevel", "error"])
        .current_dir(&to)
        .stdout(std::io::stderr())
        .status()
        .context("cannot start npm")?;
    ensure!(status.success(), "npm ci failed");
    Ok(to)
}

/// The arguments of `shop` that write the generated schemas.
const WRITE_SCHEMAS: [&str; 4] = ["schemas", "generate", "--dir", "schemas/avro"];
/// The arguments of `shop` that compare them with the code and with each other.
pub(crate) const CHECK_SCHEMAS: [&str; 5] =
    ["schemas", "check", "--offline", "--dir", "schemas/avro"];

/// Writes the generated schemas, or with `--check` compares them.
pub(crate) fn schemas(mut args: Vec<String>) -> Result<ExitCode> {
    let root = crate::root()?;
    machine::check(For::Development)?;
    let check = args.iter().position(|arg| arg == "--check").map(|at| args.remove(at)).is_some();
    let does: &[&str] = if check { &CHECK_SCHEMAS } else { &WRITE_SCHEMAS };
    let mut command = cargo(&root, &["run", "--quiet", "--package", "shop", "--"]);
    let status = command.args(does).args(args).status().context("cannot start cargo")?;
    Ok(exit_code(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_benchmark_is_found_wherever_it_stands() {
        let found = |text: &str| {
            let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            name(&args).map(str::to_owned)
        };
        assert_eq!(found("peers --json").as_deref(), Some(PEERS));
        assert_eq!(found("--json --seconds 3 peers").as_deref(), Some(PEERS));
        assert_eq!(found("append --case peers").as_deref(), Some("append"));
        assert_eq!(found("--case peers"), None);
    }
}
