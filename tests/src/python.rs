//! Clients that are not ours: Python, in a virtual environment that is kept between runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

const REQUIREMENTS: &str = include_str!("../python/requirements.txt");
const READ_TOPICS: &str = include_str!("../python/read_topics.py");

/// Reads topics by the registry alone, checks every record, and answers what was found in each.
/// Blocks.
///
/// # Panics
/// There is no Python, its packages cannot be had, or a record is not as published.
#[must_use]
pub fn read_topics(bootstrap: &str, registry: &str, topics: &[&str]) -> Value {
    let python = environment().join("bin/python");
    let mut command = Command::new(&python);
    command.args(["-c", READ_TOPICS, bootstrap, registry]).args(topics);
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", python.display()));
    let (found, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the stranger is not content: {said}");
    serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found} {said}"))
}

/// The environment beside the binaries; made when it is not there or for other packages.
fn environment() -> PathBuf {
    let shop = foldstream_testkit::binary("shop");
    let target = shop.ancestors().nth(2).expect("binaries lie in target/<profile>");
    let (place, mark) = (target.join("python-venv"), target.join("python-venv/requirements.txt"));
    if fs::read_to_string(&mark).is_ok_and(|made_for| made_for == REQUIREMENTS) {
        return place;
    }
    let _ = fs::remove_dir_all(&place);
    run(Command::new("python3").args(["-m", "venv"]).arg(&place));
    let wanted = tempfile::NamedTempFile::new().expect("temporary files can be written");
    fs::write(wanted.path(), REQUIREMENTS).expect("temporary files can be written");
    let mut install = Command::new(place.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(install.arg(wanted.path()));
    // Last, so that one that was cut off is made again.
    fs::write(&mark, REQUIREMENTS).unwrap_or_else(|e| panic!("{}: {e}", mark.display()));
    place
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
