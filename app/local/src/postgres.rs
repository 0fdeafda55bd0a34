//! Postgres: its binaries, its cluster, and whether it answers.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::LocalError;
use crate::child::{POLL, Process, Program, end_orphan, find_in_path};
use crate::place::{Place, State, write_private};

/// The superuser of the local cluster.
pub(crate) const USER: &str = "postgres";

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// Creates the cluster if there is none.
pub(crate) fn prepare(
    place: &Place,
    state: &State,
    creating: impl FnOnce(),
) -> Result<(), LocalError> {
    let data = data_dir(&place.work);
    if data.join("PG_VERSION").exists() {
        return Ok(());
    }
    creating();
    let bin = newest_binaries()?;
    // A new cluster gets its name when it is complete: what a broken start leaves is not used.
    let new = place.work.join("postgres.new");
    let _ = fs::remove_dir_all(&new);
    let new = place.child_dir("postgres.new")?;
    let password = place.work.join("postgres.password");
    let _ = fs::remove_file(&password);
    write_private(&password, state.password.as_bytes())?;
    place.give(&password)?;
    let mut pwfile = OsString::from("--pwfile=");
    pwfile.push(&password);
    let args = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--username", USER];
    let mut args: Vec<OsString> = args.map(OsString::from).to_vec();
    args.extend([pwfile, "-D".into(), new.clone().into_os_string()]);
    let program = Program { name: "initdb", path: bin.join("initdb"), args, stop: Signal::SIGTERM };
    let created = Process::start(place, program).and_then(|run| run.wait_success(START));
    let _ = fs::remove_file(&password);
    created?;
    fs::rename(&new, &data).map_err(LocalError::io("cannot name", &data))
}

/// Starts the server; it is ready when this returns.
pub(crate) fn start(place: &Place, port: u16) -> Result<Process, LocalError> {
    let data = data_dir(&place.work);
    let bin = binaries_for(&data)?;
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        // Loopback TCP only; the path of a socket in a deep directory is too long anyway.
        "unix_socket_directories=".to_owned(),
        "max_connections=200".to_owned(),
        "shared_buffers=128MB".to_owned(),
        "fsync=on".to_owned(),
        "synchronous_commit=on".to_owned(),
        "full_page_writes=on".to_owned(),
        "logging_collector=off".to_owned(),
        "log_destination=stderr".to_owned(),
    ];
    let mut args: Vec<OsString> = vec!["-D".into(), data.into_os_string()];
    for setting in settings {
        args.extend(["-c".into(), setting.into()]);
    }
    let program =
        Program { name: "postgres", path: bin.join("postgres"), args, stop: Signal::SIGINT };
    let mut process = Process::start(place, program)?;
    process.wait_ready(START, || answers(port)).inspect_err(|_| process.kill())?;
    Ok(process)
}

/// Fast shutdown: open transactions are rolled back, data are flushed.
pub(crate) fn stop(process: &mut Process) {
    process.stop(STOP);
}

/// Ends the postmaster at once and waits until its backends have noticed.
pub(crate) fn kill(place: &Place, process: &mut Process) {
    process.kill();
    wait_for_backends(&data_dir(&place.work));
}

/// Ends a server of an earlier run over the same data directory.
pub(crate) fn end_earlier(work: &Path) -> Result<(), LocalError> {
    let data = data_dir(work);
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return Ok(()) };
    let mut lines = text.lines();
    let pid = lines.next().and_then(|line| line.trim().parse().ok());
    let same = lines.next().is_some_and(|line| Path::new(line.trim()) == data);
    match pid {
        Some(pid) if same => end_orphan(pid, &data, Signal::SIGINT, STOP)?,
        Some(_) | None => {}
    }
    wait_for_backends(&data);
    Ok(())
}

/// After a crash of the postmaster its backends end by themselves; a new server refuses to start
/// until they have. They live in the data directory, which is how they are known.
fn wait_for_backends(data: &Path) {
    let began = Instant::now();
    while began.elapsed() < STOP && lives_in(data) {
        thread::sleep(POLL);
    }
}

fn lives_in(data: &Path) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes
        .flatten()
        .any(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder == data))
}

fn data_dir(work: &Path) -> PathBuf {
    work.join("postgres")
}

/// The binaries of the version that wrote the data.
fn binaries_for(data: &Path) -> Result<PathBuf, LocalError> {
    let path = data.join("PG_VERSION");
    let version = fs::read_to_string(&path).map_err(LocalError::io("cannot read", &path))?;
    let version = version.trim();
    installed().into_iter().find(|(major, _)| major == version).map(|(_, bin)| bin).ok_or_else(
        || LocalError::PostgresVersion { data_dir: data.into(), needed: version.to_owned() },
    )
}

/// The newest installed binaries.
pub(crate) fn newest_binaries() -> Result<PathBuf, LocalError> {
    installed()
        .into_iter()
        .max_by_key(|(major, _)| major.parse::<u32>().unwrap_or(0))
        .map(|(_, bin)| bin)
        .ok_or(LocalError::MissingTool { tool: "Postgres", package: "postgresql" })
}

/// Major version and folder of all installed binaries: Debian's, and those in PATH.
fn installed() -> Vec<(String, PathBuf)> {
    let complete = |bin: &Path| bin.join("initdb").is_file() && bin.join("postgres").is_file();
    let mut found: Vec<(String, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().join("bin")))
        .filter(|(_, bin)| complete(bin))
        .collect();
    let in_path = find_in_path("initdb").and_then(|file| Some(file.parent()?.to_path_buf()));
    if let Some(bin) = in_path.filter(|bin| complete(bin))
        && let Some(major) = major_of(&bin)
    {
        found.push((major, bin));
    }
    found
}

/// `postgres (PostgreSQL) 17.2` → `17`.
fn major_of(bin: &Path) -> Option<String> {
    let output = std::process::Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version =
        text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_numeric()))?;
    version.split('.').next().map(str::to_owned)
}

/// Whether the server asks for a password (it takes connections) rather than refusing.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<u8> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        // StartupMessage, protocol 3.0.
        let body = format!("user\0{USER}\0database\0postgres\0\0");
        let length = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
        let mut message = length.to_be_bytes().to_vec();
        message.extend(196_608u32.to_be_bytes());
        message.extend(body.as_bytes());
        stream.write_all(&message)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        Ok(kind[0])
    };
    ask().is_ok_and(|kind| kind == b'R')
}
