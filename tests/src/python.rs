//! Clients that are not ours: Python, in a virtual environment that is kept between runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

const REQUIREMENTS: &str = include_str!("../python/requirements.txt");
const READ_TOPICS: &str = include_str!("../python/read_topics.py");
const USE_REGISTRY: &str = include_str!("../python/use_registry.py");

/// Reads topics by the registry alone, checks every record, and answers what was found in each.
/// Blocks.
///
/// # Panics
/// There is no Python, its packages cannot be had, or a record is not as published.
#[must_use]
pub fn read_topics(bootstrap: &str, registry: &str, topics: &[&str]) -> Value {
    run_script(READ_TOPICS, &[&[bootstrap, registry], topics].concat())
}

/// Goes through the registry's API, then writes and reads a topic of its own by Avro. Blocks.
///
/// # Panics
/// There is no Python, its packages cannot be had, or an answer is not Confluent's.
#[must_use]
pub fn use_registry(bootstrap: &str, registry: &str, topic: &str) -> Value {
    run_script(USE_REGISTRY, &[bootstrap, registry, topic])
}

/// Runs a script to its end; the JSON that it prints.
fn run_script(script: &str, args: &[&str]) -> Value {
    let python = environment().join("bin/python");
    let mut command = Command::new(&python);
    command.args(["-c", script]).args(args);
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", python.display()));
    let (found, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the stranger is not content: {said}");
    serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found} {said}"))
}

/// The environment beside the binaries; made when it is not there or for other packages.
fn environment() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let shop = foldstream_testkit::binary("shop");
    let target = shop.ancestors().nth(2).expect("binaries lie in target/<profile>");
    let (place, mark) = (target.join("python-venv"), target.join("python-venv/requirements.txt"));
    if fs::read_to_string(&mark).is_ok_and(|made_for| made_for == REQUIREMENTS) {
        return place;
    }
    let _ = fs::remove_dir_all(&place);
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&place));
    made.unwrap_or_else(|said| {
        panic!("python3 with venv is needed (`cargo x test` installs it)\n{said}")
    });
    let wanted = tempfile::NamedTempFile::new().expect("temporary files can be written");
    fs::write(wanted.path(), REQUIREMENTS).expect("temporary files can be written");
    let mut install = Command::new(place.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    let installed = run(install.arg(wanted.path()));
    let hint =
        "the packages of tests/python/requirements.txt come from PyPI by pip: is it reachable?";
    installed.unwrap_or_else(|said| panic!("{hint}\n{said}"));
    // Last, so that one that was cut off is made again.
    fs::write(&mark, REQUIREMENTS).unwrap_or_else(|e| panic!("{}: {e}", mark.display()));
    place
}

/// # Errors
/// It cannot be started or fails: what it said.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}
