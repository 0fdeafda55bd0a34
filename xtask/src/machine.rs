//! What must be installed, and installing it where that is possible.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use foldstream_local::{LocalError, missing_tools};

/// Who asks: tests need more than development.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Development,
    Tests,
    /// The benchmark that compiles other libraries.
    Peers,
}

/// Makes sure that everything is there: installs it by apt as root or with a sudo that asks for
/// no password, else says exactly what to install.
///
/// # Errors
/// Something is missing and cannot be installed.
pub(crate) fn check(purpose: For) -> Result<()> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    let Some(prefix) = apt_prefix() else {
        bail!(
            "this machine lacks what these Debian packages bring:\n  {}\n\
             On Debian or Ubuntu: sudo {install}\nElsewhere: install their like",
            missing.join("\n  ")
        );
    };
    eprintln!("installing: {}", missing.join(" "));
    if missing.contains(&"postgresql") {
        // Only the binaries are wanted, not a server of the system's.
        let file = "/etc/postgresql-common/createcluster.conf";
        let script = format!(
            "test -e {file} || {{ mkdir -p /etc/postgresql-common && \
             echo 'create_main_cluster = false' > {file}; }}"
        );
        run(&prefix, &["sh", "-c", &script])?;
    }
    run(&prefix, &["apt-get", "update", "-q"])?;
    let mut command = vec!["env", "DEBIAN_FRONTEND=noninteractive", "UCF_FORCE_CONFFOLD=1"];
    command.extend(["apt-get", "install", "-y", "-q", "--no-install-recommends"]);
    command.extend(["-o", "Dpkg::Options::=--force-confold"]);
    command.extend(&missing);
    run(&prefix, &command)?;
    let still = self::missing(purpose);
    if !still.is_empty() {
        bail!("apt-get succeeded, yet these are still missing: {}", still.join(" "));
    }
    Ok(())
}

/// The Debian packages whose content is not there. Commands and files are looked at, not package
/// names: they may have come another way.
fn missing(purpose: For) -> Vec<&'static str> {
    let mut packages = Vec::new();
    if !(in_path("cc") && in_path("make")) {
        packages.push("build-essential");
    }
    if !in_path("pkg-config") {
        packages.push("pkg-config");
    }
    let header = Path::new("/usr/include/openssl/ssl.h").exists();
    if !header && !succeeds("pkg-config", &["--exists", "openssl"]) {
        packages.push("libssl-dev");
    }
    for error in missing_tools() {
        if let LocalError::MissingTool { package, .. } = error {
            packages.push(package);
        }
    }
    // The protocol of one of them is compiled from its description.
    if purpose == For::Peers && !in_path("protoc") {
        packages.push("protobuf-compiler");
    }
    if purpose == For::Tests {
        if !in_path("psql") && !packages.contains(&"postgresql") {
            packages.push("postgresql-client");
        }
        // The interoperability test reads topics with a Python client in a virtual environment.
        if !succeeds("python3", &["-c", "import venv, ensurepip"]) {
            packages.extend(["python3", "python3-venv"]);
        }
    }
    packages
}

/// What to put before a command that needs root; none if there is no apt or no way to be root.
fn apt_prefix() -> Option<Vec<&'static str>> {
    if !in_path("apt-get") {
        return None;
    }
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() == b"0" {
        return Some(Vec::new());
    }
    succeeds("sudo", &["-n", "true"]).then(|| vec!["sudo", "-n"])
}

fn run(prefix: &[&str], command: &[&str]) -> Result<()> {
    let all: Vec<&str> = prefix.iter().chain(command).copied().collect();
    let (program, args) = all.split_first().context("a command has a name")?;
    // Its output is for people: standard output belongs to the task (`dev --json`).
    let mut command = Command::new(program);
    let status = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{} failed", all.join(" "));
    }
    Ok(())
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
